package fetch

import (
	"bytes"
	"path"
	"strings"
)

// mediaExtensions are the file extensions that fetched files keep: FFmpeg's demuxers use them
// to distinguish formats, and local HLS playlists depend on them.
var mediaExtensions = set(`.3g2 .3gp .aac .ac3 .aif .aiff .amr .ape .asf .avi .bmp .caf .dts .dv .eac3 .ec3 .f4v .flac
		.flv .gif .h264 .h265 .hevc .ivf .jpeg .jpg .m2ts .m2v .m4a .m4s .m4v .mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .mts .mxf
		.nut .oga .ogg .ogv .opus .png .rm .rmvb .ts .tta .vob .wav .webm .webp .wma .wmv .wtv .wv .y4m`)

func set(words string) map[string]bool {
	out := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		out[w] = true
	}
	return out
}

// typeExtensions are the extensions of media types.
var typeExtensions = map[string]string{
	"video/mp4": ".mp4", "audio/mp4": ".m4a", "video/iso.segment": ".m4s", "video/quicktime": ".mov", "video/webm": ".webm", "audio/webm": ".webm",
	"video/x-matroska": ".mkv", "video/matroska": ".mkv", "video/mp2t": ".ts", "video/mpeg": ".mpg", "video/x-flv": ".flv",
	"video/x-msvideo": ".avi", "video/x-ms-wmv": ".wmv", "video/ogg": ".ogv", "application/mxf": ".mxf", "video/3gpp": ".3gp",
	"audio/mpeg": ".mp3", "audio/aac": ".aac", "audio/ogg": ".ogg", "audio/flac": ".flac", "audio/wav": ".wav", "audio/x-wav": ".wav",
}

// extension returns the extension of the first path that has one of media, or else that of
// the content type; empty if there is none.
func extension(contentType string, paths ...string) string {
	for _, p := range paths {
		if ext := strings.ToLower(path.Ext(p)); mediaExtensions[ext] {
			return ext
		}
	}
	mediaType, _, _ := strings.Cut(contentType, ";")
	return typeExtensions[strings.ToLower(strings.TrimSpace(mediaType))]
}

// segmentExtensions are those that FFmpeg's HLS demuxer accepts by default (libavformat/hls.c,
// allowed_extensions).
var segmentExtensions = set(".3gp .aac .ac3 .eac3 .flac .m4a .m4s .m4v .mkv .mov .mp2 .mp3 .mp4 .mpg .ts .wav")

// segmentExtension returns the extension of an HLS segment. Newer versions of FFmpeg require
// it to match the content, so it is derived from the content unless that is encrypted.
func segmentExtension(head []byte, urlPath string, encrypted, hasMap bool) string {
	if !encrypted {
		switch {
		case len(head) > 0 && head[0] == 0x47: // sync byte of MPEG-TS
			return ".ts"
		case len(head) >= 8 && isBox(head[4:8]):
			return ".m4s"
		case bytes.HasPrefix(head, []byte{0xFF, 0xF1}), bytes.HasPrefix(head, []byte{0xFF, 0xF9}): // ADTS
			return ".aac"
		}
	}
	if ext := strings.ToLower(path.Ext(urlPath)); segmentExtensions[ext] {
		return ext
	}
	if hasMap {
		return ".m4s"
	}
	return ".ts"
}

// isBox reports whether a name is that of a box that fragments of MP4 begin with.
func isBox(name []byte) bool {
	switch string(name) {
	case "ftyp", "styp", "moof", "sidx", "moov", "prft", "emsg", "free":
		return true
	}
	return false
}
