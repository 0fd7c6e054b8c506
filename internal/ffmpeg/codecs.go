package ffmpeg

import (
	"slices"
	"strconv"
	"strings"
)

// codecs maps the names that jobs use for codecs to the encoders that make them,
// the preferred first.
var codecs = map[string][]string{
	"h264": {"libx264", "libopenh264"},
	"h265": {"libx265"},
	"hevc": {"libx265"},
	"vp9":  {"libvpx-vp9"},
	"av1":  {"libsvtav1", "libaom-av1", "librav1e"},
}

// canonicalCodec is our name for what FFmpeg calls a codec.
func canonicalCodec(ffmpegName string) string {
	if ffmpegName == "hevc" {
		return "h265"
	}
	return ffmpegName
}

// crfMode is what an encoder makes of a crf and a bitrate together.
type crfMode int

const (
	crfCapped      crfMode = iota // the bitrate is the cap: -maxrate and -bufsize
	crfConstrained                // the bitrate is the encoder's own cap: -b:v
	crfAlone                      // the encoder takes one of the two: crf rules
)

// tuning is how one encoder is told about quality and speed.
type tuning struct {
	always         []string
	crfMin, crfMax float64 // equal: the encoder has no crf
	crfWhole       bool    // only whole numbers
	crf            crfMode
	presets        map[string][]string // what each preset stands for
	speeds         int                 // numbers 0 to speeds are presets too
	speed          func(n int) []string
	standard       string // the preset when the job names none; empty: the encoder's own
}

// presetNames are x264's, from fast to slow. Jobs use them for every codec.
var presetNames = []string{"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"}

// presetsBy makes a preset table from the values for presetNames.
func presetsBy(f func(v string) []string, values ...string) map[string][]string {
	m := make(map[string][]string, len(values))
	for i, v := range values {
		m[presetNames[i]] = f(v)
	}
	return m
}

func presetOption(v string) []string { return []string{"-preset", v} }

func numbered(option string) func(int) []string {
	return func(n int) []string { return []string{option, strconv.Itoa(n)} }
}

// vpxSpeed: deadline good knows -cpu-used 0 to 5, realtime 0 to 8
// (https://trac.ffmpeg.org/wiki/Encode/VP9).
func vpxSpeed(n int) []string {
	deadline := "good"
	if n > 5 {
		deadline = "realtime"
	}
	return []string{"-deadline", deadline, "-cpu-used", strconv.Itoa(n)}
}

func vpxPreset(v string) []string {
	n, _ := strconv.Atoi(v)
	return vpxSpeed(n)
}

// aomSpeed: usage good knows -cpu-used 0 to 6, realtime up to 8.
func aomSpeed(n int) []string {
	usage := "good"
	if n > 6 {
		usage = "realtime"
	}
	return []string{"-usage", usage, "-cpu-used", strconv.Itoa(n)}
}

func aomPreset(v string) []string {
	n, _ := strconv.Atoi(v)
	return aomSpeed(n)
}

// NVENC knows p1 (fast) to p7 (slow), Quick Sync x264's names from veryfast to veryslow.
var (
	nvenc = tuning{presets: presetsBy(presetOption, "p1", "p1", "p2", "p3", "p4", "p4", "p5", "p6", "p7", "p7")}
	qsv   = tuning{presets: presetsBy(presetOption, "veryfast", "veryfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "veryslow")}
)

// tunings are the encoders whose options are known. Any other encoder is given
// size, rate and bitrate alone.
var tunings = map[string]tuning{
	"libx264":    {crfMax: 51, crf: crfCapped, presets: presetsBy(presetOption, presetNames...)},
	"libx264rgb": {crfMax: 51, crf: crfCapped, presets: presetsBy(presetOption, presetNames...)},
	"libx265":    {crfMax: 51, crf: crfCapped, presets: presetsBy(presetOption, presetNames...)},
	"libvpx": {
		crfMin: 4, crfMax: 63, crfWhole: true, crf: crfConstrained, standard: "medium",
		presets: presetsBy(vpxPreset, "8", "7", "6", "5", "4", "3", "2", "1", "0", "0"), speeds: 8, speed: vpxSpeed,
	},
	"libvpx-vp9": {
		always: []string{"-row-mt", "1"},
		crfMax: 63, crfWhole: true, crf: crfConstrained, standard: "medium",
		presets: presetsBy(vpxPreset, "8", "7", "6", "5", "4", "3", "2", "1", "0", "0"), speeds: 8, speed: vpxSpeed,
	},
	"libsvtav1": {
		crfMin: 1, crfMax: 63, crfWhole: true, crf: crfAlone, standard: "medium",
		presets: presetsBy(presetOption, "12", "11", "10", "9", "8", "7", "5", "4", "3", "2"), speeds: 12, speed: numbered("-preset"),
	},
	"libaom-av1": {
		always: []string{"-row-mt", "1"},
		crfMax: 63, crfWhole: true, crf: crfConstrained, standard: "medium",
		presets: presetsBy(aomPreset, "8", "8", "7", "6", "5", "4", "3", "2", "1", "0"), speeds: 8, speed: aomSpeed,
	},
	"h264_nvenc": nvenc, "hevc_nvenc": nvenc, "av1_nvenc": nvenc,
	"h264_qsv": qsv, "hevc_qsv": qsv,
	"librav1e": {
		standard: "medium",
		presets:  presetsBy(func(v string) []string { return []string{"-speed", v} }, "10", "9", "8", "8", "7", "6", "5", "4", "2", "0"),
		speeds:   10, speed: numbered("-speed"),
	},
}

// preset returns the arguments for a preset; false when the encoder has none of that name.
func (t tuning) preset(name string) ([]string, bool) {
	if args, ok := t.presets[name]; ok {
		return args, true
	}
	if n, err := strconv.Atoi(name); err == nil && t.speed != nil && n >= 0 && n <= t.speeds {
		return t.speed(n), true
	}
	return nil, false
}

// allowed says which presets there are, for a message.
func (t tuning) allowed() string {
	s := strings.Join(presetNames, ", ")
	if t.speed != nil {
		s += ", or 0 to " + strconv.Itoa(t.speeds)
	}
	return s
}

// container is a file format that outputs may have.
type container struct {
	format string   // FFmpeg's muxer
	video  []string // codecs it takes; nil: left to FFmpeg
	audio  []string // audio encoders it takes, the default first
	args   []string
}

var (
	anyAudio = []string{"aac", "libopus", "libmp3lame", "copy"}
	isoMedia = []string{"-movflags", "+faststart"}
)

// containers by the extension of an output's name.
var containers = map[string]container{
	".mp4":  {format: "mp4", audio: anyAudio, args: isoMedia},
	".m4v":  {format: "mp4", audio: anyAudio, args: isoMedia},
	".mov":  {format: "mov", audio: []string{"aac", "libmp3lame", "copy"}, args: isoMedia},
	".mkv":  {format: "matroska", audio: anyAudio},
	".webm": {format: "webm", video: []string{"vp8", "vp9", "av1"}, audio: []string{"libopus", "copy"}},
	".ts":   {format: "mpegts", video: []string{"h264", "h265", "mpeg1video", "mpeg2video", "mpeg4"}, audio: anyAudio},
	".flv":  {format: "flv", video: []string{"h264", "flv1"}, audio: []string{"aac", "libmp3lame", "copy"}},
	".avi":  {format: "avi", audio: []string{"libmp3lame", "aac", "copy"}},
}

func extensions() string {
	var names []string
	for e := range containers {
		names = append(names, e)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// audioCodecs maps a job's audio_codec to FFmpeg's encoder.
var audioCodecs = map[string]string{
	"aac": "aac", "opus": "libopus", "libopus": "libopus", "mp3": "libmp3lame", "libmp3lame": "libmp3lame", "copy": "copy", "none": "none",
}

// hardwareSuffixes end the names of encoders that need hardware which a trial has to
// prove first.
var hardwareSuffixes = []string{"_nvenc", "_qsv", "_vaapi", "_amf", "_videotoolbox", "_v4l2m2m", "_omx", "_mf", "_vulkan", "_rkmpp", "_mediacodec", "_d3d12va"}

func needsHardware(encoder string) bool {
	return slices.ContainsFunc(hardwareSuffixes, func(s string) bool { return strings.HasSuffix(encoder, s) })
}

// selfContained are the demuxers that inputs may use: those of containers and raw
// streams that hold video in themselves. Left out are devices, scripts that name
// other files, image sequences, and the readers that take any text for video (tty).
const selfContained = "mov,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,live_flv,kux,ogg,asf,asf_o,mxf,mxf_opatom,nut,ivf,h264,hevc,vvc,av1,obu," +
	"m4v,h261,h263,vc1,vc1test,dirac,dnxhd,mjpeg,mpjpeg,yuv4mpegpipe,rm,gif,apng,dv,gxf,wtv,swf,nsv,r3d,cavsvideo,avs2,avs3,roq,smk,bink,nuv,pva,flic"

// playlists are demuxers that open further addresses, each again within the
// whitelisted protocols.
const playlists = "hls,dash,webvtt,aac,mp3"
