package ffmpeg

import (
	"encoding/json"
	"slices"
	"strings"

	"ffmpeg-agent/messages/protocol"
)

// defaultCodec is used for a job that names no codec.
const defaultCodec = "h264"

// codecs maps the names that jobs use for codecs to their encoders, the preferred first.
var codecs = map[string][]string{
	"h264": {"libx264", "libopenh264"},
	"h265": {"libx265"},
	"hevc": {"libx265"},
	"vp9":  {"libvpx-vp9"},
	"av1":  {"libsvtav1", "libaom-av1", "librav1e"},
}

// canonicalCodec is the master's name for a codec of FFmpeg.
func canonicalCodec(ffmpegName string) string {
	if ffmpegName == "hevc" {
		return "h265"
	}
	return ffmpegName
}

// encoder finds the encoder for the name of a codec, or takes the name of an encoder.
func (pl *planner) encoder(from params, s scenario) (encoder, codec string) {
	name := defaultCodec
	if s.codec != "" {
		name = s.codec
	}
	if at, word, ok := from.word("codec"); ok {
		name = word
	} else if at != "" {
		return "", ""
	}
	if family := pl.acceleration(); family != "" && codecs[name] != nil {
		return pl.accelerated(name, family)
	}
	for _, e := range codecs[name] {
		if codec, ok := pl.caps.Video[e]; ok && pl.usable(e) {
			return e, codec
		}
	}
	codec, ok := pl.caps.Video[name]
	switch {
	case codecs[name] != nil, !ok:
		pl.lacks("codec %s", name)
		return "", ""
	case !pl.usable(name):
		pl.lacks("encoder %s (no trial encode succeeded)", name)
		return "", ""
	}
	return name, codec
}

// usable: the encoder's trial succeeded, or it needs no hardware and was not tried yet.
func (pl *planner) usable(encoder string) bool {
	works, tried := pl.tried[encoder]
	return works || (!tried && !needsHardware(encoder))
}

// accelerations maps a job's hwaccel to the suffix of FFmpeg's encoders of that family.
var accelerations = map[string]string{
	"cuda": "_nvenc", "nvenc": "_nvenc", "nvdec": "_nvenc", "qsv": "_qsv", "vaapi": "_vaapi", "amf": "_amf",
	"videotoolbox": "_videotoolbox", "v4l2m2m": "_v4l2m2m", "vulkan": "_vulkan",
}

// acceleration is the suffix of the hardware encoders that the job asks for, such as
// _nvenc; empty when it asks for none.
func (pl *planner) acceleration() string {
	_, accel, ok := pl.word("hwaccel")
	if !ok || accel == "none" || accel == "auto" {
		return ""
	}
	family, known := accelerations[accel]
	anyWorks := false
	for encoder, works := range pl.tried {
		anyWorks = anyWorks || works && strings.HasSuffix(encoder, family)
	}
	if !known || !anyWorks {
		pl.lacks("hwaccel %s (no trial encode succeeded)", accel)
	}
	return family
}

// accelerated is the encoder of a family for a codec.
func (pl *planner) accelerated(name, family string) (encoder, codec string) {
	if name == "h265" {
		name = "hevc" // FFmpeg's name for it
	}
	encoder = name + family
	codec, ok := pl.caps.Video[encoder]
	if !ok || !pl.usable(encoder) {
		pl.lacks("encoder %s (no trial encode succeeded)", encoder)
		return "", ""
	}
	return encoder, codec
}

// wantsHardware reports whether a job can only be planned once hardware encoders were
// tried.
func wantsHardware(j protocol.Job) bool {
	pl := &planner{params: newParams(j.Parameters)}
	if pl.acceleration() != "" {
		return true
	}
	raw, err := json.Marshal(j.Parameters)
	return err == nil && slices.ContainsFunc(hardwareSuffixes, func(s string) bool { return strings.Contains(string(raw), s) })
}

// hardwareSuffixes end the names of encoders that need hardware, which only a trial
// encode proves to be there.
var hardwareSuffixes = []string{"_nvenc", "_qsv", "_vaapi", "_amf", "_videotoolbox", "_v4l2m2m", "_omx", "_mf", "_vulkan", "_rkmpp", "_mediacodec", "_d3d12va"}

func needsHardware(encoder string) bool {
	return slices.ContainsFunc(hardwareSuffixes, func(s string) bool { return strings.HasSuffix(encoder, s) })
}

// device is how FFmpeg reaches a family of hardware encoders.
type device struct {
	global []string // arguments before the input
	upload string   // end of the filter chain: brings frames to the device
}

func deviceOf(encoder string) device {
	switch {
	case strings.HasSuffix(encoder, "_vaapi"):
		return device{global: []string{"-init_hw_device", "vaapi=hw", "-filter_hw_device", "hw"}, upload: "format=nv12,hwupload"}
	case strings.HasSuffix(encoder, "_qsv"):
		return device{global: []string{"-init_hw_device", "qsv=hw", "-filter_hw_device", "hw"}, upload: "format=nv12,hwupload=extra_hw_frames=64"}
	case strings.HasSuffix(encoder, "_vulkan"):
		return device{global: []string{"-init_hw_device", "vulkan=hw", "-filter_hw_device", "hw"}, upload: "format=nv12,hwupload"}
	}
	return device{}
}
