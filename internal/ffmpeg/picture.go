package ffmpeg

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// Bounds and defaults of size and frame rate.
const (
	minSide, maxSide            = 16, 16384 // px
	maxFPS                      = 300
	defaultWidth, defaultHeight = 1280, 720
	defaultFPS                  = 30
)

func sideOK(px int) bool { return px >= minSide && px <= maxSide }

// size reads width and height of an output. What neither the job nor its scenario names
// is taken from the input; it is zero while that is not known. Chroma is halved in both
// directions, so an odd side is rounded up to the next even one.
func (pl *planner) size(from params) (s size, ofSource bool) {
	s, named := pl.namedSize(from)
	switch {
	case named:
	case pl.scenario.size.known():
		s = pl.scenario.size
	case pl.hasInput && !pl.source.size.known():
		return size{}, true
	case pl.hasInput:
		s, ofSource = pl.source.size, true
	default:
		s = size{defaultWidth, defaultHeight}
	}
	made := size{side(s.width), side(s.height)}
	switch {
	case made == s:
	case sideOK(s.width) && sideOK(s.height):
		pl.note("resolution %s has an odd side; encoded as %s", s, made)
	default:
		pl.note("resolution %s of the input is not between %d and %d px per side; encoded as %s", s, minSide, maxSide, made)
	}
	return made, ofSource
}

// side is the length that a side of px is encoded with; sourceSizeFilter does the same.
func side(px int) int { return min(max(px+px&1, minSide), maxSide) }

// sourceSizeFilter keeps the size of what FFmpeg decodes, which may have been turned and
// may be another than the one that was probed.
var sourceSizeFilter = fmt.Sprintf("scale=w='clip(ceil(iw/2)*2,%[1]d,%[2]d)':h='clip(ceil(ih/2)*2,%[1]d,%[2]d)'", minSide, maxSide)

// namedSize reads the size that the job's parameters name.
func (pl *planner) namedSize(from params) (s size, named bool) {
	for _, l := range from.layers {
		at := from.only(l)
		if name, text, ok := at.text("resolution"); ok {
			s, ok := parseSize(text)
			if !ok {
				at.problem(name, "%s is not WIDTHxHEIGHT between %d and %d px", show(text), minSide, maxSide)
			}
			return s, ok
		}
		w, okW := at.between(minSide, maxSide, " px", "resolution_width", "width")
		h, okH := at.between(minSide, maxSide, " px", "resolution_height", "height")
		_, _, hasW := at.value("resolution_width", "width")
		_, _, hasH := at.value("resolution_height", "height")
		if hasW != hasH {
			at.problem(l.prefix+"resolution", "only one of width and height is set")
		}
		if okW && okH {
			return size{int(w), int(h)}, true
		}
	}
	return size{}, false
}

func parseSize(s string) (of size, ok bool) {
	if m := scenarioSize.FindStringSubmatch(strings.ToLower(s)); m != nil {
		of.width, _ = strconv.Atoi(m[1])
		of.height, _ = strconv.Atoi(m[2])
	} else if named := (scenario{}); named.parseWord(strings.ToLower(s)) { // 720p, 4k
		of = named.size
	}
	return of, sideOK(of.width) && sideOK(of.height)
}

// fps reads the frame rate of an output. What neither the job nor its scenario names is
// taken from the input; it is zero while that is not known.
func (pl *planner) fps(from params) (r rate, ofSource bool) {
	name, v, ok := from.value("fps", "frame_rate")
	if ok {
		if r, ok = parseRate(v); ok && r.float() <= maxFPS {
			return r, false
		}
		from.problem(name, "%s must be above 0 and at most %d frames per second", show(v), maxFPS)
	}
	switch {
	case pl.scenario.fps.known():
		return pl.scenario.fps, false
	case !pl.hasInput:
		return rate{defaultFPS, 1}, false
	case pl.source.fps.known() && pl.source.fps.float() > maxFPS:
		pl.note("the input has %s frames per second; encoded at %d", pl.source.fps, maxFPS)
		return rate{maxFPS, 1}, true
	case pl.source.uneven:
		pl.note("the input's frame rate varies; encoded at %.4g frames per second", pl.source.fps.float())
	}
	return pl.source.fps, true
}

// rate is a frame rate as a fraction, since 29.97 is 30000/1001. Zero: not known.
type rate struct{ num, den int64 }

func (r rate) known() bool { return r.num > 0 }

func (r rate) String() string {
	if r.den == 1 {
		return strconv.FormatInt(r.num, 10)
	}
	return fmt.Sprintf("%d/%d", r.num, r.den)
}

func (r rate) float() float64 { return float64(r.num) / float64(r.den) }

// ntscRates are written with decimals and mean fractions.
var ntscRates = map[string]rate{
	"23.976": {24000, 1001}, "23.98": {24000, 1001}, "29.97": {30000, 1001},
	"47.952": {48000, 1001}, "59.94": {60000, 1001}, "119.88": {120000, 1001},
}

// parseRate reads frames a second: 25, 12.5, 29.97 or 30000/1001.
func parseRate(v any) (rate, bool) {
	s, isText := v.(string)
	if num, den, ok := strings.Cut(strings.TrimSpace(s), "/"); isText && ok {
		n, err1 := strconv.ParseInt(num, 10, 32)
		d, err2 := strconv.ParseInt(den, 10, 32)
		return rate{n, d}, err1 == nil && err2 == nil && n > 0 && d > 0
	}
	f, err := toNumber(v)
	if err != nil || f <= 0 || f > 1e6 {
		return rate{}, false
	}
	if r, ok := ntscRates[number(f)]; ok {
		return r, true
	}
	r := big.NewRat(int64(math.Round(f*1000)), 1000) // three decimals are enough for a frame rate
	return rate{r.Num().Int64(), r.Denom().Int64()}, r.Sign() > 0
}

// scenario is what the name of a job's scenario stands for; what it leaves out is zero.
type scenario struct {
	size  size
	fps   rate
	codec string
	accel string // as in a job's hwaccel
}

var (
	scenarioLines = regexp.MustCompile(`^(\d{3,4})p(\d{1,3})?$`)    // 720p30, 1080p
	scenarioK     = regexp.MustCompile(`^([248])k(\d{1,3})?$`)      // 4K60
	scenarioSize  = regexp.MustCompile(`^(\d{2,5})x(\d{2,5})$`)     // 640x480
	scenarioFPS   = regexp.MustCompile(`^(\d{1,3})fps$`)            // 60fps
	scenarioWidth = map[string]int{"2": 2560, "4": 3840, "8": 7680} // 2K, 4K and 8K as encoders use them
	widthOfHeight = map[int]int{144: 256, 240: 426, 360: 640, 480: 854, 540: 960, 576: 1024, 720: 1280, 1080: 1920, 1440: 2560, 2160: 3840, 4320: 7680}
)

// parseScenario reads names such as 720p30-h264, 4K60-x265 and 1080p-hevc-nvenc. unknown
// are the words of the name that stand for nothing.
func parseScenario(name string) (s scenario, unknown []string) {
	for _, word := range strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("-_ /,:", r) }) {
		switch codec := codecOf(word); {
		case s.parseWord(word):
		case codecs[codec] != nil:
			s.codec = codec
		case accelerations[word] != "":
			s.accel = word
		default:
			unknown = append(unknown, show(word))
		}
	}
	return s, unknown
}

// parseWord reads a word that stands for a size, a rate or both.
func (s *scenario) parseWord(word string) bool {
	if m := scenarioLines.FindStringSubmatch(word); m != nil {
		h, _ := strconv.Atoi(m[1])
		return s.setSize(widthOfHeight[h], h) && s.setRate(m[2])
	}
	if m := scenarioK.FindStringSubmatch(word); m != nil {
		w := scenarioWidth[m[1]]
		return s.setSize(w, w*9/16) && s.setRate(m[2])
	}
	if m := scenarioSize.FindStringSubmatch(word); m != nil {
		w, _ := strconv.Atoi(m[1])
		h, _ := strconv.Atoi(m[2])
		return s.setSize(w, h)
	}
	if m := scenarioFPS.FindStringSubmatch(word); m != nil {
		return s.setRate(m[1])
	}
	return false
}

func (s *scenario) setSize(w, h int) bool {
	if !sideOK(w) || !sideOK(h) {
		return false
	}
	s.size = size{w, h}
	return true
}

// setRate sets the rate that a word ends with, if it does.
func (s *scenario) setRate(digits string) bool {
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n <= 0 || n > maxFPS {
		return digits == ""
	}
	s.fps = rate{n, 1}
	return true
}
