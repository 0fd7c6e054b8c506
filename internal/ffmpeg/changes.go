package ffmpeg

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// defaultGOP is the number of frames between key frames that x264 and x265 allow.
const defaultGOP = 250

// noteChanges notes what an encode changes of its input without having been asked to.
func (pl *planner) noteChanges(p plan) {
	of := pl.source
	if of.interlaced != "" {
		pl.note("the input is marked as interlaced (%s); encoded as progressive without deinterlacing", of.interlaced)
	}
	switch hdr := hdrTransfers[of.transfer]; {
	case hdr != "":
		pl.note("the input is HDR (%s) with %d bits per sample; encoded with 8 bits and not tone-mapped, tagged as %s", hdr, of.bits, of.transfer)
	case of.bits > 8:
		pl.note("the input has %d bits per sample; encoded with 8", of.bits)
	}
	for _, r := range p.renditions {
		pl.noteShape(r)
	}
	if left := pl.leftOut(p.audio); len(left) > 0 {
		pl.note("left out: %s", strings.Join(left, ", "))
	}
	if len(p.renditions) > 1 && !p.streaming {
		pl.noteKeyFrames(p.renditions)
	}
}

// hdrTransfers are transfer functions of HDR, by FFmpeg's name (ITU-T H.273, table 3).
var hdrTransfers = map[string]string{"smpte2084": "PQ", "arib-std-b67": "HLG"}

// noteShape notes a size that has another aspect ratio than the input: the encode keeps the
// picture's shape by pixels that are not square.
func (pl *planner) noteShape(r rendition) {
	in := pl.source.size
	if r.sourceSize || !in.known() || !r.size.known() {
		return
	}
	sar := 1.0
	if of, ok := parseRate(strings.Replace(pl.source.sar, ":", "/", 1)); ok {
		sar = of.float()
	}
	shape := float64(in.width) / float64(in.height) * sar
	if pixel := shape * float64(r.size.height) / float64(r.size.width); math.Abs(pixel-1) > 0.01 {
		pl.note("resolution %s does not have the input's aspect ratio of %.4g:1; its pixels are %.4g times as wide as high", r.size, shape, pixel)
	}
}

// leftOut names the tracks that are not encoded.
func (pl *planner) leftOut(chosen audio) []string {
	var left []string
	used := 0
	if chosen.mapping != nil {
		used = 1
	}
	if n := len(pl.source.audio) - used; n > 0 {
		text := tracksText(n, "audio")
		if unknown := undecodable(pl.source.audio); len(unknown) > 0 && pl.source.track < 0 && used == 0 {
			text += fmt.Sprintf(" (no decoder for %s)", strings.Join(unknown, ", "))
		}
		left = append(left, text)
	}
	return append(left, pl.source.leftOut...)
}

// undecodable names the codecs of audio tracks that this FFmpeg cannot decode.
func undecodable(tracks []probedStream) (codecs []string) {
	for _, s := range tracks {
		if !s.decodable() && !slices.Contains(codecs, s.codecName()) {
			codecs = append(codecs, s.codecName())
		}
	}
	return codecs
}

// noteKeyFrames notes how far apart the key frames of a ladder are, between which players
// switch.
func (pl *planner) noteKeyFrames(rs []rendition) {
	for _, r := range rs {
		if (r.encoder == "libx264" || r.encoder == "libx265") && r.fps.known() {
			pl.note("key frames are up to %.2f s apart and not aligned between the outputs", defaultGOP/r.fps.float())
			return
		}
	}
}
