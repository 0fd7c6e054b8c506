package ffmpeg

import (
	"encoding/json"
	"fmt"
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
	"vp8":  {"libvpx"},
	"vp9":  {"libvpx-vp9"},
	"av1":  {"libsvtav1", "libaom-av1", "librav1e"},
}

// codecOf is the name of a codec in the table above for its other names; any other word
// stays as it is.
func codecOf(word string) string {
	switch word {
	case "avc", "x264", "h.264":
		return "h264"
	case "hevc", "x265", "h.265":
		return "h265"
	}
	return word
}

// canonicalCodec is the master's name for a codec of FFmpeg.
func canonicalCodec(ffmpegName string) string {
	if ffmpegName == "hevc" {
		return "h265"
	}
	return ffmpegName
}

// encoder finds the encoder for the name of a codec, or takes the name of an encoder.
func (pl *planner) encoder(from params, picture size) (encoder, codec string) {
	name, ok := pl.codecName(from)
	if !ok {
		return "", ""
	}
	if family := pl.acceleration(); family != "" && codecs[name] != nil {
		return pl.accelerated(name, family)
	}
	if codecs[name] != nil && pl.settings.PreferHardware {
		if encoder, codec := pl.preferred(from, name, picture); encoder != "" {
			return encoder, codec
		}
	}
	for _, e := range codecs[name] {
		if codec, ok := pl.caps.Video[e]; ok && pl.usable(e) {
			return e, codec
		}
	}
	codec, ok = pl.caps.Video[name]
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

// codecName is the name of the codec or encoder that an output asks for. Of both, in one
// layer, the encoder is the more exact; false after a problem.
func (pl *planner) codecName(from params) (name string, ok bool) {
	at, word, ok := from.word("encoder", "codec")
	switch {
	case ok && strings.HasSuffix(at, "encoder"):
		for _, l := range from.layers {
			if l.prefix+"encoder" == at {
				pl.compareCodec(from.only(l), word)
			}
		}
		return codecOf(word), true
	case ok:
		return codecOf(word), true
	case at != "":
		return "", false
	case pl.scenario.codec != "":
		return pl.scenario.codec, true
	}
	return defaultCodec, true
}

// compareCodec notes a codec that is not that of the encoder beside it.
func (pl *planner) compareCodec(from params, encoder string) {
	_, codec, ok := from.word("codec")
	if of := pl.caps.Video[encoder]; ok && codecOf(codec) != canonicalCodec(of) && codecOf(codec) != codecOf(encoder) {
		pl.note("codec %s ignored: encoder %s is named as well", codec, encoder)
	}
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

// acceleration is the suffix of the hardware encoders that the job or, where the job does
// not name an encoder, its scenario asks for, such as _nvenc; empty when none is.
func (pl *planner) acceleration() string {
	at, accel, ok := pl.word("hwaccel")
	if at == "" && pl.scenario.accel != "" {
		name, named := pl.codecName(pl.params)
		accel, ok = pl.scenario.accel, named && codecs[name] != nil
	}
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
	encoder = hardwareEncoder(name, family)
	codec, ok := pl.caps.Video[encoder]
	if !ok || !pl.usable(encoder) {
		pl.lacks("encoder %s (no trial encode succeeded)", encoder)
		return "", ""
	}
	return encoder, codec
}

// hardwareFamilies are those that jobs.prefer_hardware looks through, in this order.
var hardwareFamilies = []string{"_nvenc", "_qsv", "_vaapi", "_amf", "_videotoolbox", "_vulkan", "_v4l2m2m"}

// Sides of pictures that hardware encoders are preferred for, px. Trial encodes have the
// smallest; encoders for H.264 go no further than the largest.
const (
	minHardwareWidth, minHardwareHeight = 320, 240
	maxHardwareSide                     = 4096
)

// preferred is a proved hardware encoder for a codec, if there is one for all that the
// output asks for. All outputs of a job use encoders of one family, as FFmpeg opens one
// device.
func (pl *planner) preferred(from params, name string, picture size) (encoder, codec string) {
	if _, accel, _ := pl.word("hwaccel"); accel == "none" {
		return "", ""
	}
	for _, family := range hardwareFamilies {
		encoder := hardwareEncoder(name, family)
		codec, ok := pl.caps.Video[encoder]
		if !ok || !pl.tried[encoder] || pl.family != "" && pl.family != family {
			continue
		}
		if why := whyNotPreferred(from, encoder, picture); why != "" {
			pl.note("%s encoded in software: %s", name, why)
			continue
		}
		pl.family = family
		return encoder, codec
	}
	return "", ""
}

// whyNotPreferred says why a hardware encoder is not preferred for an output; empty when it is.
func whyNotPreferred(from params, encoder string, picture size) string {
	t := tunings[encoder]
	if _, preset, ok := from.word("preset"); ok {
		if _, ok := t.preset(preset); !ok {
			return fmt.Sprintf("%s has no preset %s", encoder, preset)
		}
	}
	if _, _, ok := from.value("crf"); ok && t.crfMax == t.crfMin {
		return encoder + " has no crf"
	}
	if w, h := picture.width, picture.height; picture.known() && (w < minHardwareWidth || h < minHardwareHeight || max(w, h) > maxHardwareSide) {
		return fmt.Sprintf("%s is not preferred for %s, outside of %dx%d to %[5]dx%[5]d", encoder, picture, minHardwareWidth, minHardwareHeight, maxHardwareSide)
	}
	return ""
}

// hardwareEncoder is FFmpeg's name of the encoder of a family for a codec.
func hardwareEncoder(codec, family string) string {
	if codec == "h265" {
		codec = "hevc"
	}
	return codec + family
}

// wantsHardware reports whether a job can only be planned once hardware encoders were
// tried.
func wantsHardware(j protocol.Job, s Settings) bool {
	if s.PreferHardware || newPlanner(j, node{}).acceleration() != "" {
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
