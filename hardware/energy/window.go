package energy

import (
	"math"
	"time"
)

// window is the time in which a job ran, from FFmpeg's start to its exit, with the energy used in
// it so far, by zone.
type window struct {
	job      string
	start    time.Time
	from, to instant
	tallies  map[string]*tally // by zone ID
}

// stillOpen is the value of to in an open window.
const stillOpen instant = math.MaxInt64

func newWindow(job string, start time.Time, from instant) *window {
	return &window{job: job, start: start, from: from, to: stillOpen, tallies: map[string]*tally{}}
}

// tally returns the tally of a zone in the window.
func (w *window) tally(zoneID string) *tally {
	t := w.tallies[zoneID]
	if t == nil {
		t = newTally()
		w.tallies[zoneID] = t
	}
	return t
}

// seen records the time of a reading of a zone, to find the one closest to the window's start.
func (w *window) seen(zoneID string, reading instant) {
	t := w.tally(zoneID)
	t.startDistance = min(t.startDistance, (reading - w.from).Abs())
}

// tally sums up the steps of one zone in one window.
type tally struct {
	share      attribution              // the job's
	machine    Microjoules              // used by all
	covered    time.Duration            // read without a gap
	errorBound Microjoules              // of machine, by the sensor's own error
	equalError Microjoules              // of share, due to equal division
	methods    map[string]time.Duration // time by method of sharing, without that alone
	power      powerRange
	gaps       int
	lastGap    *step // already counted; a gap may come in several pieces
	cutAtStart bool  // a step was cut at the window's start
	cutAtEnd   bool
	// startDistance is the time between the window's start and the closest reading.
	startDistance time.Duration

	// Of the steps with a cross-check: the energy by either counter, their length, and the
	// power by the second one.
	checked, crossCheck Microjoules
	checkedFor          time.Duration
	crossCheckPower     powerRange
}

const unseen time.Duration = math.MaxInt64

func newTally() *tally {
	return &tally{startDistance: unseen, methods: map[string]time.Duration{}}
}

// add adds a piece within the window, and the job's share of it.
func (t *tally) add(w *window, s *step, method string, mine attribution) {
	if s.gap {
		if t.lastGap != s.whole {
			t.gaps++
			t.lastGap = s.whole
		}
		return
	}
	t.share = t.share.plus(mine)
	t.machine += s.energy
	t.covered += s.length()
	t.errorBound += s.ofWhole(s.errorBound)
	t.power.add(s.peak)
	t.cutAtStart = t.cutAtStart || s.whole.from < w.from
	t.cutAtEnd = t.cutAtEnd || s.whole.to > w.to
	if method != shareAlone {
		t.methods[method] += s.length()
	}
	if method == shareEqual { // the job may have used nothing, or all of it
		t.equalError += max(mine.total(), s.energy-mine.total())
	}
	if s.crossCheck != nil {
		t.checked += s.energy
		t.crossCheck += s.ofWhole(*s.crossCheck)
		t.checkedFor += s.length()
		t.crossCheckPower.add(meanPower(*s.crossCheck, s.whole.length()))
	}
}

// edgeBound returns the energy that may have been counted on the wrong side of the window's edges:
// at each edge, the highest power in the window × (update interval + distance of the closest
// reading). If a gap covers an edge, no energy was counted on either side of it.
func (t *tally) edgeBound(update, endDistance time.Duration) Joules {
	late := 2 * update
	if t.cutAtStart {
		late += t.startDistance
	}
	if t.cutAtEnd {
		late += endDistance
	}
	return Joules(float64(t.power.max) * late.Seconds())
}

const (
	// CrossCheckTolerance is the relative difference above which a counter and its cross-check
	// contradict each other.
	CrossCheckTolerance = 0.1
	// crossCheckAveraging is how long the moving average of a cross-check may be: NVML's power
	// is the mean of the last second.
	crossCheckAveraging = time.Second
	// minCrossCheck is the shortest time over which a cross-check is evaluated.
	minCrossCheck = 2 * crossCheckAveraging
)

// contradiction reports whether the cross-check contradicts the counter, and their difference
// relative to the counter. Short windows in which the power changes much have a larger tolerance.
func (t *tally) contradiction() (difference float64, contradict bool) {
	if t.checkedFor < minCrossCheck || t.checked <= 0 {
		return 0, false
	}
	apart := math.Abs(float64(t.crossCheck - t.checked))
	allowed := CrossCheckTolerance*float64(max(t.crossCheck, t.checked)) +
		float64(t.crossCheckPower.averagingError(crossCheckAveraging).Microjoules())
	return apart / float64(t.checked), apart > allowed
}

// powerRange is the lowest and the highest of a set of powers.
type powerRange struct {
	min, max Watts
	known    bool
}

func (r *powerRange) add(p Watts) {
	if !r.known {
		*r = powerRange{p, p, true}
	}
	r.min, r.max = min(r.min, p), max(r.max, p)
}

// averagingError returns a bound on the error of energy that was integrated from a moving average:
// in the worst case the average lags behind a change across the whole range.
func (r *powerRange) averagingError(over time.Duration) Joules {
	return Joules(float64(r.max-r.min) * over.Seconds())
}
