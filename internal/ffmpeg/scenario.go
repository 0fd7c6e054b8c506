package ffmpeg

import (
	"regexp"
	"strconv"
	"strings"
)

// scenario is what a scenario's name says of a job; zero fields are not in it.
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
	scenarioWidth = map[string]int{"2": 2560, "4": 3840, "8": 7680} // of the 2K, 4K and 8K that encoders mean
	widthOfHeight = map[int]int{144: 256, 240: 426, 360: 640, 480: 854, 540: 960, 576: 1024, 720: 1280, 1080: 1920, 1440: 2560, 2160: 3840, 4320: 7680}
)

// parseScenario reads names such as 720p30-h264, 4K60-h265 and 1080p-vp9. A name
// may hold anything else: what is not understood says nothing.
func parseScenario(name string) scenario {
	var s scenario
	for _, word := range strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("-_ /,:", r) }) {
		switch {
		case s.take(word):
		case codecs[word] != nil:
			s.codec = word
		}
	}
	return s
}

func (s *scenario) take(word string) bool {
	if m := scenarioLines.FindStringSubmatch(word); m != nil {
		h, _ := strconv.Atoi(m[1])
		return s.size(widthOfHeight[h], h) && s.rate(m[2])
	}
	if m := scenarioK.FindStringSubmatch(word); m != nil {
		w := scenarioWidth[m[1]]
		return s.size(w, w*9/16) && s.rate(m[2])
	}
	if m := scenarioSize.FindStringSubmatch(word); m != nil {
		w, _ := strconv.Atoi(m[1])
		h, _ := strconv.Atoi(m[2])
		return s.size(w, h)
	}
	if m := scenarioFPS.FindStringSubmatch(word); m != nil {
		return s.rate(m[1])
	}
	return false
}

func (s *scenario) size(w, h int) bool {
	if !sideOK(w) || !sideOK(h) {
		return false
	}
	s.width, s.height = w, h
	return true
}

func (s *scenario) rate(digits string) bool {
	if n, err := strconv.ParseInt(digits, 10, 32); err == nil && n > 0 && n <= maxFPS {
		s.fps = rate{n, 1}
	}
	return true
}
