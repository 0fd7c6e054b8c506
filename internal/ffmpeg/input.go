package ffmpeg

import (
	"errors"
	"os"
	"slices"
	"strings"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// reading is how a job's input is read.
type reading struct {
	format string // input_format: hls, dash or a demuxer of FFmpeg's; empty: found out
	sha256 string // input_sha256, hexadecimal; empty: not compared
	stream bool   // input_mode: FFmpeg reads it itself
}

func (pl *planner) reading() (r reading) {
	if name, mode, ok := pl.word("input_mode"); ok {
		if r.stream = mode == "stream"; !r.stream && mode != "fetch" && mode != "auto" {
			pl.problem(name, "%s is not auto, fetch or stream", show(mode))
		}
	}
	if name, format, ok := pl.word("input_format"); ok {
		allowed := slices.Concat([]string{reach.HLS, reach.DASH, "mp4"}, pl.settings.inputFormats())
		if r.format = format; !slices.Contains(allowed, format) {
			pl.problem(name, "%s is not one of %s (jobs.input_formats)", show(format), strings.Join(allowed, ", "))
		}
	}
	if name, sum, ok := pl.word("input_sha256"); ok {
		if r.sha256 = sum; len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "" {
			pl.problem(name, "%s is not 64 hexadecimal digits", show(sum))
		}
	}
	if !pl.hasInput {
		pl.unuse("input_mode", "input_format", "input_sha256")
	}
	return r
}

// inputFormats are the demuxers that inputs may use.
func (s *Settings) inputFormats() []string {
	if len(s.InputFormats) > 0 {
		return s.InputFormats
	}
	return strings.Split(selfContained, ",")
}

// readers makes the sources of inputs, by what they may open besides the input itself.
func (s *Settings) readers() readers { return readers(strings.Join(s.inputFormats(), ",")) }

// readers are the demuxers of inputs, separated by commas.
type readers string

// segments read the segments of playlists.
func (d readers) segments() string { return string(d) + ",webvtt,aac,mp3,ac3,eac3" }

// linkedHLS are the options to read a playlist in the workspace, whose segments are there as
// well.
func (d readers) linkedHLS() []string {
	return whitelist([]string{"file", "crypto"}, "hls,"+d.segments(), "-f", "hls")
}

// demuxer is the format given to FFmpeg; empty: it probes.
func (r reading) demuxer() string {
	if r.format == reach.HLS || r.format == reach.DASH {
		return "" // that of the playlist; a fetched one is a different matter
	}
	return r.format
}

// input finds out what a job reads. bad is set for a file that cannot be read.
func (s *pathResolver) input(given, format string) (in reach.Input, bad *job.Failure) {
	in, err := s.settings.Inputs.Input(given, format, s.workspace)
	var refused *reach.Refused
	var invalid *reach.Invalid
	switch {
	case errors.As(err, &refused):
		s.problem("input", "%v", err)
	case errors.As(err, &invalid):
		s.problem("input", "%s is %v", quote("input", given), err)
	case err != nil:
		return in, failure(protocol.ReasonInputError, "input %s: %v", quote("input", given), err)
	}
	return in, nil
}

func whitelist(protocols []string, formats string, more ...string) []string {
	return append([]string{"-protocol_whitelist", strings.Join(unique(protocols), ","), "-format_whitelist", formats}, more...)
}

// file reads a file on this machine.
func (d readers) file(path, demuxer string) source {
	options := whitelist([]string{"file"}, string(d))
	if demuxer != "" {
		options = append(options, "-f", demuxer)
	}
	return source{url: fileURL(path), finite: true, options: options}
}

// localPlaylist reads a playlist on this machine as it is, with the files that it
// refers to. These were checked, so their names do not matter.
func (d readers) localPlaylist(path, format string) source {
	in := source{url: fileURL(path), options: append(whitelist([]string{"file"}, "dash,"+d.segments()), "-f", "dash"), finite: true}
	if format == reach.HLS {
		in.options = append(d.linkedHLS(), "-allowed_extensions", "ALL")
		in.finite = false // it may grow
	}
	return in
}

// underlying are the FFmpeg protocols that a protocol of live inputs needs.
var underlying = map[string][]string{
	"rtmp": {"rtmp", "tcp"}, "rtmps": {"rtmps", "rtmp", "tls", "tcp"}, "srt": {"srt", "udp"},
}

// stream reads a stream.
func (d readers) stream(url, scheme, demuxer string) source {
	protocols := underlying[scheme]
	if protocols == nil {
		protocols = []string{scheme, "tcp", "tls", "udp"}
	}
	options := whitelist(protocols, string(d), "-rw_timeout", rwTimeout)
	options = append(options, verifyTLS(scheme)...)
	if demuxer != "" {
		options = append(options, "-f", demuxer)
	}
	return source{url: url, network: true, options: options}
}

// relayed reads a file over http through a relay. Whether it has an end is not known.
func (d readers) relayed(url, demuxer string) source {
	options := whitelist([]string{"http", "tcp"}, string(d), "-rw_timeout", rwTimeout)
	if demuxer != "" {
		options = append(options, "-f", demuxer)
	}
	return source{url: url, network: true, options: options}
}

// proxiedPlaylist reads a playlist and what it refers to over http and https alone, through a
// relay. Whether it has an end is not known.
func (d readers) proxiedPlaylist(url, format, proxy string) source {
	protocols := []string{"http", "https", "httpproxy", "tls", "tcp"}
	if format == reach.HLS {
		protocols = append(protocols, "crypto")
	}
	options := whitelist(protocols, format+","+d.segments(), "-rw_timeout", rwTimeout, "-http_proxy", proxy, "-f", format)
	return source{url: url, network: true, options: options}
}

// verifyTLS makes FFmpeg verify the certificate of the server of a stream. FFmpeg has the options
// only where the protocol itself uses TLS. The file is for an FFmpeg with OpenSSL, which has
// no certificates by itself.
func verifyTLS(scheme string) []string {
	if scheme != "rtmps" && scheme != "tls" {
		return nil
	}
	options := []string{"-tls_verify", "1"}
	for _, path := range certificates() {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return append(options, "-ca_file", path)
		}
	}
	return options
}

// certificates are the files and folders of the certificates that this machine trusts: what
// OpenSSL's variables name, and where systems keep them (crypto/x509/root_linux.go).
func certificates() []string {
	var paths []string
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
		paths = append(paths, absolute(os.Getenv(name))...)
	}
	return append(paths, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem")
}
