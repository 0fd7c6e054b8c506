package ffmpeg

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/protocol"
)

// maxText bounds every text parameter, in bytes: the longest path that Linux accepts.
const maxText = 4096

// params reads a job's parameters and collects what is wrong with them, each problem
// with the name of its parameter. An entry of a ladder has precedence over its job.
type params struct {
	layers   []layer
	problems *[]string
	all      *[]layer // every layer that was read, to find what was not
}

type layer struct {
	prefix string // of the parameter's name, such as "outputs[1]."
	values protocol.Parameters
	read   map[string]bool // parameters whose value was used
}

func newParams(p protocol.Parameters) params {
	return params{problems: new([]string), all: new([]layer)}.above("", p)
}

// above returns a reader that reads an entry first.
func (p params) above(prefix string, values protocol.Parameters) params {
	l := layer{prefix, values, map[string]bool{}}
	*p.all = append(*p.all, l)
	p.layers = append([]layer{l}, p.layers...)
	return p
}

// own returns a reader of the uppermost layer only.
func (p params) own() params {
	p.layers = p.layers[:1]
	return p
}

// only returns a reader of one layer.
func (p params) only(l layer) params {
	p.layers = []layer{l}
	return p
}

// alone returns a reader of an object that has no layer below it.
func (p params) alone(prefix string, values protocol.Parameters) params {
	p.layers = nil
	return p.above(prefix, values)
}

// knownParameters are those that have an effect on some job.
var knownParameters = []string{
	"input", "input_mode", "input_format", "input_sha256", "output", "output_mode", "rtmp_url", "stream_key", "codec", "encoder", "bitrate", "preset", "crf", "resolution",
	"resolution_width", "resolution_height", "width", "height", "fps", "frame_rate", "duration", "duration_seconds", "hwaccel",
	"audio_codec", "audio_bitrate", "outputs", "quality", "resource_limits", "accept_damaged",
}

// unread lists the parameters that were not used: those that are not known, and those
// that have no effect on this job.
func (p params) unread() (unknown, idle []string) {
	for _, l := range *p.all {
		for key, v := range l.values {
			switch name := quote("", l.prefix+key); {
			case l.read[key] || v == nil || v == "":
			case slices.Contains(knownParameters, key):
				idle = append(idle, name)
			default:
				unknown = append(unknown, name)
			}
		}
	}
	slices.Sort(unknown)
	slices.Sort(idle)
	return unknown, idle
}

func (p params) problem(name, format string, args ...any) {
	*p.problems = append(*p.problems, name+": "+fmt.Sprintf(format, args...))
}

// value returns the first of the keys that is present, in the uppermost layer that has
// one. Null and the empty string count as absent.
func (p params) value(keys ...string) (name string, v any, ok bool) {
	for _, l := range p.layers {
		for _, k := range keys {
			if v := l.values[k]; v != nil && v != "" {
				l.read[k] = true
				return l.prefix + k, v, true
			}
		}
	}
	return "", nil, false
}

// unuse makes parameters count as without effect though they were read.
func (p params) unuse(keys ...string) {
	for _, l := range p.layers {
		for _, k := range keys {
			delete(l.read, k)
		}
	}
}

// text reads a string, without the blanks around it unless it is a path. One that could be
// taken for an option, or that contains control characters, is a problem and absent.
func (p params) text(keys ...string) (name, s string, ok bool) {
	name, v, ok := p.value(keys...)
	if !ok {
		return name, "", false
	}
	switch v := v.(type) {
	case string:
		if s = v; !slices.Contains(paths, keys[0]) || strings.TrimSpace(v) == "" {
			s = strings.TrimSpace(v)
		}
	case json.Number:
		s = v.String()
	case float64, int, int64:
		s = fmt.Sprint(v)
	default:
		p.problem(name, "%s is not text: %s", show(v), allowedText(name))
		return name, "", false
	}
	switch {
	case strings.HasPrefix(s, "-"):
		p.problem(name, "%s begins with a dash", quote(name, s))
	case len(s) > maxText:
		p.problem(name, "longer than %d bytes", maxText)
	case strings.ContainsFunc(s, unicode.IsControl) || strings.ToValidUTF8(s, "") != s:
		p.problem(name, "%s contains control characters", quote(name, s))
	default:
		return name, s, s != ""
	}
	return name, "", false
}

// paths are the parameters that are paths, which are taken as they are written.
var paths = []string{"input", "output"}

// word reads a name of FFmpeg's or of the master's protocol, in lower case.
func (p params) word(keys ...string) (name, s string, ok bool) {
	name, s, ok = p.text(keys...)
	if !ok {
		return name, "", false
	}
	s = strings.ToLower(s)
	if len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
		p.problem(name, "%s is not a name: %s", show(s), allowedText(name))
		return name, "", false
	}
	return name, s, true
}

// number reads a number given as number or string; allowed is for the message.
func (p params) number(allowed string, keys ...string) (name string, f float64, ok bool) {
	name, v, ok := p.value(keys...)
	if !ok {
		return name, 0, false
	}
	f, err := toNumber(v)
	if err != nil {
		p.problem(name, "%s is not a number %s", show(v), allowed)
		return name, 0, false
	}
	return name, f + 0, true // makes -0 a 0
}

// boolean reads true or false, also as text.
func (p params) boolean(keys ...string) (b, ok bool) {
	name, v, ok := p.value(keys...)
	if !ok {
		return false, false
	}
	switch v := v.(type) {
	case bool:
		return v, true
	case string:
		if b, err := strconv.ParseBool(strings.TrimSpace(v)); err == nil {
			return b, true
		}
	}
	p.problem(name, "%s is not true or false", show(v))
	return false, false
}

func toNumber(v any) (f float64, err error) {
	switch v := v.(type) {
	case json.Number:
		f, err = strconv.ParseFloat(v.String(), 64)
	case string:
		f, err = strconv.ParseFloat(strings.TrimSpace(v), 64)
	case float64:
		f = v
	case int:
		f = float64(v)
	case int64:
		f = float64(v)
	default:
		err = strconv.ErrSyntax
	}
	if err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
		err = strconv.ErrRange
	}
	return f, err
}

// between reads a number within inclusive bounds.
func (p params) between(low, high float64, unit string, keys ...string) (f float64, ok bool) {
	name, f, ok := p.number(fmt.Sprintf("within %g and %g%s", low, high, unit), keys...)
	if ok && (f < low || f > high) {
		p.problem(name, "%s is not between %g and %g%s", number(f), low, high, unit)
		return 0, false
	}
	return f, ok
}

// allowedTexts describe the values of text parameters, for messages.
var allowedTexts = map[string]string{
	"input":         "a path or a URL is allowed",
	"input_mode":    "auto, fetch or stream is allowed",
	"input_format":  "hls, dash or the name of an FFmpeg demuxer is allowed",
	"input_sha256":  "64 hexadecimal digits are allowed",
	"output":        "a path is allowed",
	"output_mode":   "file, rtmp or stream is allowed",
	"rtmp_url":      "rtmp://HOST/… or rtmps://HOST/… is allowed",
	"stream_key":    "letters, digits and ._~?=&%/+- are allowed",
	"codec":         "h264, h265, vp8, vp9, av1 or the name of an FFmpeg encoder is allowed",
	"encoder":       "h264, h265, vp8, vp9, av1 or the name of an FFmpeg encoder is allowed",
	"preset":        "the name of a preset, such as medium, is allowed",
	"bitrate":       "a bitrate such as 2000k is allowed",
	"audio_bitrate": "a bitrate such as 128k is allowed",
	"audio_codec":   "aac, opus, mp3, copy or none is allowed",
	"resolution":    "WIDTHxHEIGHT such as 1280x720 is allowed",
	"quality":       "none, psnr, ssim or vmaf is allowed",
	"hwaccel":       "none or auto is allowed",
}

// allowedText describes the values of a text parameter, also of a ladder's entry.
func allowedText(name string) string { return allowedTexts[name[strings.LastIndexByte(name, '.')+1:]] }

// quote quotes a text parameter for a message, without its secrets.
func quote(name, s string) string {
	if strings.HasSuffix(name, "stream_key") {
		return strconv.Quote(safetext.Mark)
	}
	switch protocol, _, _ := reach.CutProtocol(s); {
	case protocol == "" || protocol == "file":
	case strings.HasPrefix(s[len(protocol):], "://"):
		s = safetext.URL(s)
	default: // not what a URL is, and FFmpeg would still connect
		s = protocol + ":" + safetext.Mark
	}
	return show(s)
}

// show quotes a value for a message, without the secrets of URLs, and then shortened.
func show(v any) string {
	const maxRunes = 81
	s, ok := v.(string)
	if ok {
		s = strconv.Quote(safetext.URLs(s))
	} else if b, err := json.Marshal(v); err == nil {
		s = safetext.URLs(string(b))
	} else {
		s = safetext.URLs(fmt.Sprint(v))
	}
	return safetext.Shorten(s, maxRunes)
}

// number formats a number in digits, unless it has very many.
func number(f float64) string {
	if math.Abs(f) >= 1e15 {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}
