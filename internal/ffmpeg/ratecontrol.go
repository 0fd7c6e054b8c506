package ffmpeg

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Bounds of bitrates, bit/s.
const (
	minBitrate      = 1e3
	maxBitrate      = 2e9
	maxAudioBitrate = 10e6
)

// defaultBitrate is used for a job that names neither a bitrate nor a crf.
const defaultBitrate = "2000k"

// rateControl returns the arguments of quality and speed. Without a crf the bitrate is
// the target; with both it is a cap where the encoder supports one.
func (pl *planner) rateControl(from params, r rendition, streaming bool) (asked string, args []string) {
	text, bits, hasBitrate := bitrate(from, maxBitrate, "bitrate")
	t, tuned := tunings[r.encoder]
	crf, hasCRF := pl.crf(from, r.encoder, t)
	args = append(append(args, t.always...), pl.preset(from, r.encoder, r.codec, t, tuned)...)
	buffer := []string{"-maxrate", text, "-bufsize", strconv.FormatInt(2*bits, 10)}
	switch {
	case hasCRF && hasBitrate && t.crf == crfCapped:
		args = append(append(args, "-crf", crf), buffer...)
	case hasCRF && hasBitrate && t.crf == crfConstrained:
		args = append(args, "-crf", crf, "-b:v", text)
	case hasCRF:
		if hasBitrate {
			pl.note("bitrate %s ignored: %s takes only one of crf and bitrate", text, r.encoder)
		}
		text = ""
		args = append(args, "-crf", crf)
		if t.crf == crfConstrained {
			args = append(args, "-b:v", "0") // otherwise the encoder's default bitrate is its cap
		}
	default:
		if !hasBitrate {
			text, bits = defaultBitrate, 2_000_000
			buffer = []string{"-maxrate", text, "-bufsize", strconv.FormatInt(2*bits, 10)}
		}
		args = append(args, "-b:v", text)
		if streaming {
			args = append(args, buffer...)
		}
	}
	return text, args
}

func (pl *planner) crf(from params, encoder string, t tuning) (string, bool) {
	name, f, ok := from.number(fmt.Sprintf("within %g and %g", t.crfMin, t.crfMax), "crf")
	if !ok || encoder == "" {
		return "", false
	}
	if t.crfMax == t.crfMin {
		from.problem(name, "%s has none", encoder)
		return "", false
	}
	if f < t.crfMin || f > t.crfMax || (t.crfWhole && f != math.Trunc(f)) {
		kind := ""
		if t.crfWhole {
			kind = "a whole number "
		}
		from.problem(name, "%s is not %sbetween %g and %g", number(f), kind, t.crfMin, t.crfMax)
		return "", false
	}
	return number(f), true
}

func (pl *planner) preset(from params, encoder, codec string, t tuning, tuned bool) []string {
	name, preset, ok := from.word("preset")
	if encoder == "" {
		return nil
	}
	if !ok {
		args, _ := t.preset(pl.settings.standardPreset(encoder, codec))
		return args
	}
	if !tuned {
		from.problem(name, "%s has none", encoder)
		return nil
	}
	args, ok := t.preset(preset)
	if !ok {
		from.problem(name, "%s is not a preset of %s: %s", show(preset), encoder, t.allowed())
	}
	return args
}

// bitratePattern: 2000k, 2M, 1.5M, or plain bits a second.
var bitratePattern = regexp.MustCompile(`^(\d{1,12}(?:\.\d{1,6})?)([kKmM]?)$`)

// bitrate reads a bitrate in FFmpeg's notation; plain bits become kilobits if they are a
// multiple.
func bitrate(from params, high float64, keys ...string) (string, int64, bool) {
	name, text, ok := from.text(keys...)
	if !ok {
		return "", 0, false
	}
	m := bitratePattern.FindStringSubmatch(text)
	if m == nil {
		from.problem(name, "%s is not a bitrate such as 2000k, 2M or 2000000", show(text))
		return "", 0, false
	}
	bits, _ := strconv.ParseFloat(m[1], 64)
	switch m[2] {
	case "k", "K":
		bits *= 1e3
	case "m", "M":
		bits *= 1e6
	}
	if bits < minBitrate || bits > high {
		from.problem(name, "%s is not between %.0fk and %.0fM bit/s", show(text), minBitrate/1e3, high/1e6)
		return "", 0, false
	}
	n := int64(math.Round(bits))
	if m[2] == "" && n%1000 == 0 {
		text = strconv.FormatInt(n/1000, 10) + "k"
	}
	return text, n, true
}

// crfMode is how an encoder combines a crf with a bitrate.
type crfMode int

const (
	crfCapped      crfMode = iota // the bitrate is the cap: -maxrate and -bufsize
	crfConstrained                // the bitrate is the encoder's own cap: -b:v
	crfAlone                      // the encoder takes only one of them: crf
)

// tuning is how the quality and speed of one encoder are set.
type tuning struct {
	always         []string
	crfMin, crfMax float64 // equal: the encoder has no crf
	crfWhole       bool    // only whole numbers
	crf            crfMode
	presets        map[string][]string // arguments of each preset
	speeds         int                 // the numbers 0 to speeds are presets as well
	speed          func(n int) []string
	standard       string // preset of a job that names none; empty: the encoder's own default
}

// standardPreset is the preset of an encoder for jobs that name none. What is configured
// for a codec is for the first of its encoders: what a number means, they do not agree on.
func (s *Settings) standardPreset(encoder, codec string) string {
	if preset, ok := s.DefaultPresets[codec]; ok && codecs[codec][0] == encoder {
		return preset
	}
	return tunings[encoder].standard
}

// checkDefaultPresets refuses codecs and presets that there are not.
func (s *Settings) checkDefaultPresets() error {
	for codec, preset := range s.DefaultPresets {
		if codecs[codec] == nil {
			return fmt.Errorf("default preset of %s: no such codec", show(codec))
		}
		if _, ok := tunings[codecs[codec][0]].preset(preset); !ok {
			return fmt.Errorf("default preset of %s: %s has no preset %s", codec, codecs[codec][0], show(preset))
		}
	}
	return nil
}

// presetNames are x264's, from fast to slow. Jobs use them for every codec.
var presetNames = []string{"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"}

// presetsBy makes a table of presets from the values for presetNames.
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

// vpxSpeed: deadline good supports -cpu-used 0 to 5, realtime 0 to 8
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

// vp9Presets are also named by deadline and -cpu-used: good/4.
var vp9Presets = func() map[string][]string {
	m := presetsBy(vpxPreset, "8", "7", "6", "5", "4", "3", "2", "1", "0", "0")
	for deadline, last := range map[string]int{"good": 5, "realtime": 8} {
		for n := range last + 1 {
			m[fmt.Sprintf("%s/%d", deadline, n)] = []string{"-deadline", deadline, "-cpu-used", strconv.Itoa(n)}
		}
	}
	return m
}()

// aomSpeed: usage good supports -cpu-used 0 to 6, realtime up to 8.
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

// NVENC has p1 (fast) to p7 (slow), Quick Sync x264's names from veryfast to veryslow.
var (
	nvenc = tuning{presets: presetsBy(presetOption, "p1", "p1", "p2", "p3", "p4", "p4", "p5", "p6", "p7", "p7")}
	qsv   = tuning{presets: presetsBy(presetOption, "veryfast", "veryfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "veryslow")}
)

// tunings are those of the encoders whose options are known. Any other encoder gets only
// size, rate and bitrate.
var tunings = map[string]tuning{
	"libx264":    {crfMax: 51, crf: crfCapped, standard: "fast", presets: presetsBy(presetOption, presetNames...)},
	"libx264rgb": {crfMax: 51, crf: crfCapped, presets: presetsBy(presetOption, presetNames...)},
	"libx265":    {crfMax: 51, crf: crfCapped, standard: "fast", presets: presetsBy(presetOption, presetNames...)},
	"libvpx": {
		crfMin: 4, crfMax: 63, crfWhole: true, crf: crfConstrained, standard: "fast",
		presets: presetsBy(vpxPreset, "8", "7", "6", "5", "4", "3", "2", "1", "0", "0"), speeds: 8, speed: vpxSpeed,
	},
	"libvpx-vp9": {
		always: []string{"-row-mt", "1"},
		crfMax: 63, crfWhole: true, crf: crfConstrained, standard: "good/4",
		presets: vp9Presets, speeds: 8, speed: vpxSpeed,
	},
	"libsvtav1": {
		crfMin: 1, crfMax: 63, crfWhole: true, crf: crfAlone, standard: "8",
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

// preset returns the arguments of a preset; false when the encoder has no such preset.
func (t tuning) preset(name string) ([]string, bool) {
	if args, ok := t.presets[name]; ok {
		return args, true
	}
	if n, err := strconv.Atoi(name); err == nil && t.speed != nil && n >= 0 && n <= t.speeds {
		return t.speed(n), true
	}
	return nil, false
}

// allowed lists the presets, for a message.
func (t tuning) allowed() string {
	s := strings.Join(presetNames, ", ")
	if t.speed != nil {
		s += ", or 0 to " + strconv.Itoa(t.speeds)
	}
	return s
}
