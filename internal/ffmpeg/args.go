package ffmpeg

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// globalArgs come first: no questions, log lines with their level, and progress on file
// descriptor 3.
func globalArgs() []string {
	return []string{"-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+verbose", "-stats_period", "0.5", "-progress", "pipe:3", "-max_error_rate", "1", "-y"}
}

// source is an input in FFmpeg's terms: a URL with its protocol, and the options that
// restrict FFmpeg to that protocol.
type source struct {
	url     string
	options []string
	network bool
	finite  bool // stored, not live: it has a length that can be probed
	looped  bool // repeated endlessly; the output's duration ends it
}

func (s source) args() []string {
	args := append([]string{}, s.options...)
	if s.looped {
		args = append(args, "-stream_loop", "-1")
	}
	return append(args, "-i", s.url)
}

// fileURL is the URL of a local file, which FFmpeg cannot take for anything else.
func fileURL(path string) string { return "file:" + path }

// args is the argument vector of the encode: one decode, and one encode for each
// destination.
func (p *plan) args(in source, destinations []string) []string {
	args := append(globalArgs(), p.device().global...)
	if p.streaming {
		args = append(args, "-re") // a stream is sent at the pace of playback
	}
	args = append(args, in.args()...)
	ladder := len(p.renditions) > 1
	if ladder {
		args = append(args, "-filter_complex", p.split())
	}
	for i, r := range p.renditions {
		if ladder {
			args = append(args, "-map", fmt.Sprintf("[v%d]", i))
		} else {
			args = append(args, "-map", "0:V:0", "-vf", r.filter())
		}
		args = append(args, p.audio.mapping...)
		args = append(args, "-c:v", r.encoder)
		args = append(args, r.video...)
		if deviceOf(r.encoder).upload == "" {
			args = append(args, "-pix_fmt", "yuv420p")
		}
		if r.fromRGB {
			args = append(args, "-colorspace", "bt709", "-color_range", "tv")
		}
		args = append(args, p.audio.encoding...)
		if in.looped || !p.whole {
			args = append(args, "-t", seconds(p.duration))
		}
		args = append(args, r.container.args...)
		if p.streaming {
			args = append(args, "-rw_timeout", rwTimeout)
		}
		if r.preset != "" {
			args = append(args, "-fpre", r.preset)
		}
		args = append(args, "-f", r.container.format, destinations[i])
	}
	return args
}

// filter brings pictures to the rendition's rate and size, and to its encoder.
func (r *rendition) filter() string {
	chain := r.geometry()
	if upload := deviceOf(r.encoder).upload; upload != "" {
		chain += "," + upload
	}
	return chain
}

// geometry brings pictures to the rendition's rate and size. The rate comes first, so
// that dropped frames are not scaled.
func (r *rendition) geometry() string {
	chain := fmt.Sprintf("scale=%d:%d", r.size.width, r.size.height)
	if r.sourceSize {
		chain = sourceSizeFilter
	}
	if r.fromRGB { // else the matrix is that of SD, and the output does not say so
		chain += ":out_color_matrix=bt709:out_range=tv"
	}
	if r.fps.known() {
		chain = fmt.Sprintf("fps=%s,%s", r.fps, chain)
	}
	return chain
}

// device is the device of the plan's hardware encoders. There is one at most, as one
// hwaccel applies to the whole job.
func (p *plan) device() device {
	for _, r := range p.renditions {
		if d := deviceOf(r.encoder); d.global != nil {
			return d
		}
	}
	return device{}
}

// split is the filter graph of a ladder.
func (p *plan) split() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[0:V:0]split=%d", len(p.renditions))
	for i := range p.renditions {
		fmt.Fprintf(&b, "[s%d]", i)
	}
	for i, r := range p.renditions {
		fmt.Fprintf(&b, ";[s%d]%s[v%d]", i, r.filter(), i)
	}
	return b.String()
}

// seconds formats a duration in FFmpeg's notation, to the microsecond.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
}

// rwTimeout is how long a network peer may be silent, µs.
const rwTimeout = "30000000"
