package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// tick is a tick mark of an axis.
type tick struct {
	At        string // position in percent of the axis
	Text      string
	Secondary bool // label hidden on narrow screens
}

// timeSteps are the possible distances between ticks of a time axis.
var timeSteps = []time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

// timeTicks returns at most ten ticks at round times for an axis from 0 to span.
func timeTicks(span time.Duration) []tick {
	const maxSteps = 9
	i := slices.IndexFunc(timeSteps, func(step time.Duration) bool { return span/step <= maxSteps })
	step := 24 * time.Hour
	if i >= 0 {
		step = timeSteps[i]
	}
	for span/step > maxSteps {
		step *= 2
	}
	var ticks []tick
	for k := time.Duration(0); k <= span/step; k++ {
		ticks = append(ticks, tick{At: percentOf(float64(k*step), float64(span)), Text: timeLabel(k*step, step), Secondary: k%2 == 1})
	}
	return ticks
}

// timeLabel formats a time in the unit that fits the step of the axis.
func timeLabel(at, step time.Duration) string {
	unit, name := time.Second, "s"
	switch {
	case step >= 24*time.Hour:
		unit, name = 24*time.Hour, "d"
	case step >= 30*time.Minute:
		unit, name = time.Hour, "h"
	case step >= time.Minute:
		unit, name = time.Minute, "min"
	}
	text := fmt.Sprintf("%.3f", float64(at)/float64(unit))
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + " " + name
}

// powerTicks returns the ticks of an axis from 0 that includes highest, in W, and the end of
// the axis. It has about maxSteps steps.
func powerTicks(highest float64, maxSteps int) (ticks []tick, top float64) {
	if !(highest > 0) || math.IsInf(highest, 0) {
		highest = 1
	}
	step := roundStep(highest*1.05, maxSteps)
	n := int(math.Ceil(highest * 1.05 / step))
	top = float64(n) * step
	decimals := int(max(0, -math.Floor(math.Log10(step)+1e-9)))
	for k := 0; k <= n; k++ {
		ticks = append(ticks, tick{At: percentOf(float64(n-k), float64(n)), Text: fixed(float64(k)*step, decimals) + " W"})
	}
	return ticks, top
}

// roundStep returns the smallest step (1, 2 or 5 times a power of ten) that divides top into
// at most maxSteps parts.
func roundStep(top float64, maxSteps int) float64 {
	raw := top / float64(maxSteps)
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, f := range []float64{1, 2, 5} {
		if f*power >= raw*(1-1e-9) {
			return f * power
		}
	}
	return 10 * power
}

// percentOf returns part in percent of whole as a CSS length, limited to 0 to 100 %.
func percentOf(part, whole float64) string {
	if !(whole > 0) {
		return "0%"
	}
	return fmt.Sprintf("%.3f%%", max(0, min(100, 100*part/whole)))
}
