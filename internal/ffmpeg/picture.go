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

// size reads width and height. Chroma is halved in both directions, so an odd side is
// rounded up to the next even one.
func (pl *planner) size(from params) (w, h int) {
	s := parseScenario(pl.job.Scenario)
	w, h = defaultWidth, defaultHeight
	if s.width > 0 {
		w, h = s.width, s.height
	}
	for _, l := range from.layers {
		at := params{layers: []layer{l}, problems: pl.problems}
		if name, text, ok := at.text("resolution"); ok {
			rw, rh, ok := parseSize(text)
			if !ok {
				at.problem(name, "%s is not WIDTHxHEIGHT within %d and %d px", show(text), minSide, maxSide)
				break
			}
			w, h = rw, rh
			break
		}
		fw, okW := at.between(minSide, maxSide, " px", "resolution_width", "width")
		fh, okH := at.between(minSide, maxSide, " px", "resolution_height", "height")
		_, _, hasW := at.value("resolution_width", "width")
		_, _, hasH := at.value("resolution_height", "height")
		if hasW != hasH {
			at.problem(l.prefix+"resolution", "only one of width and height is set")
		}
		if okW && okH {
			w, h = int(fw), int(fh)
			break
		}
	}
	if w&1+h&1 > 0 {
		pl.notes = append(pl.notes, fmt.Sprintf("resolution %dx%d has an odd side; encoded as %dx%d", w, h, w+w&1, h+h&1))
	}
	return w + w&1, h + h&1
}

func parseSize(s string) (w, h int, ok bool) {
	if m := scenarioSize.FindStringSubmatch(strings.ToLower(s)); m != nil {
		w, _ = strconv.Atoi(m[1])
		h, _ = strconv.Atoi(m[2])
	} else if named := (scenario{}); named.parseWord(strings.ToLower(s)) { // 720p, 4k
		w, h = named.width, named.height
	}
	return w, h, sideOK(w) && sideOK(h)
}

func (pl *planner) fps(from params, s scenario) rate {
	fallback := rate{defaultFPS, 1}
	if s.fps.num > 0 {
		fallback = s.fps
	}
	name, v, ok := from.value("fps", "frame_rate")
	if !ok {
		return fallback
	}
	r, ok := parseRate(v)
	if !ok || r.float() > maxFPS {
		from.problem(name, "%s is not above 0 and up to %d frames a second", show(v), maxFPS)
		return fallback
	}
	return r
}

// rate is a frame rate as a fraction, since 29.97 is 30000/1001.
type rate struct{ num, den int64 }

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
	width, height int
	fps           rate
	codec         string
}

var (
	scenarioLines = regexp.MustCompile(`^(\d{3,4})p(\d{1,3})?$`)    // 720p30, 1080p
	scenarioK     = regexp.MustCompile(`^([248])k(\d{1,3})?$`)      // 4K60
	scenarioSize  = regexp.MustCompile(`^(\d{2,5})x(\d{2,5})$`)     // 640x480
	scenarioFPS   = regexp.MustCompile(`^(\d{1,3})fps$`)            // 60fps
	scenarioWidth = map[string]int{"2": 2560, "4": 3840, "8": 7680} // 2K, 4K and 8K as encoders use them
	widthOfHeight = map[int]int{144: 256, 240: 426, 360: 640, 480: 854, 540: 960, 576: 1024, 720: 1280, 1080: 1920, 1440: 2560, 2160: 3840, 4320: 7680}
)

// parseScenario reads names such as 720p30-h264, 4K60-h265 and 1080p-vp9. Words of a name
// that it does not know are ignored.
func parseScenario(name string) scenario {
	var s scenario
	for _, word := range strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("-_ /,:", r) }) {
		switch {
		case s.parseWord(word):
		case codecs[word] != nil:
			s.codec = word
		}
	}
	return s
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
	s.width, s.height = w, h
	return true
}

func (s *scenario) setRate(digits string) bool {
	if n, err := strconv.ParseInt(digits, 10, 32); err == nil && n > 0 && n <= maxFPS {
		s.fps = rate{n, 1}
	}
	return true
}
