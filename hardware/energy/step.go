package energy

import (
	"slices"
	"time"
)

// instant is a time on the ledger's clock: the time since its first event by Go's monotonic
// clock, so that setting the wall clock changes nothing.
type instant = time.Duration

// step is the time between two successive readings of a zone, or a piece of it.
type step struct {
	from, to instant
	energy   Microjoules // 0 in a gap
	whole    *step       // the step of which this is a piece; itself if it is not cut

	// The same in all pieces.
	gap         bool         // the energy is unknown
	usage       *usageDelta  // the one that contains the step; nil: unknown
	utilization *float64     // at the end of the whole step; nil: unknown
	crossCheck  *Microjoules // energy of the whole step by the second counter; nil: there is none
	errorBound  Microjoules  // of the whole step's energy, by the sensor's own error
	peak        Watts        // the highest mean power around the step; see recentSteps
}

func newStep(from, to instant, energy Microjoules) *step {
	s := &step{from: from, to: to, energy: energy}
	s.whole = s
	return s
}

func (s *step) length() time.Duration { return s.to - s.from }

// ofWhole returns the piece's part, by time, of an amount in the whole step.
func (s *step) ofWhole(amount Microjoules) Microjoules {
	return portion(amount, s.length(), s.whole.length())
}

// cut divides a step at a time inside it, in proportion to time.
func (s *step) cut(at instant) (head, tail *step) {
	first, second := *s, *s
	first.to, second.from = at, at
	first.energy = portion(s.energy, first.length(), s.length())
	second.energy = s.energy - first.energy
	return &first, &second
}

// pieces cuts a step where one of the open windows begins.
func (s *step) pieces(open []*window) []*step {
	var starts []instant
	for _, w := range open {
		if s.from < w.from && w.from < s.to {
			starts = append(starts, w.from)
		}
	}
	slices.Sort(starts)
	var pieces []*step
	for _, start := range slices.Compact(starts) {
		var head *step
		head, s = s.cut(start)
		pieces = append(pieces, head)
	}
	return append(pieces, s)
}

// recentSteps are the latest steps of a zone since its last gap, as many as are needed for a mean
// power: over less than the sensor's update interval, an update would look like a burst.
type recentSteps []*step

const (
	// minAveraging is the shortest time over which a mean power is computed.
	minAveraging = 10 * time.Millisecond
	// manyUpdates is the number of sensor updates from which one more or less does not matter.
	manyUpdates = 10
)

// add appends a step and sets its peak power: the higher of its own mean and the mean over the
// sensor's update interval.
func (r *recentSteps) add(s *step, update time.Duration) {
	if s.gap {
		*r = nil
		return
	}
	steps := append(*r, s)
	enough := max(update, minAveraging)
	for len(steps) > 1 && s.to-steps[1].from >= enough {
		steps = slices.Delete(steps, 0, 1)
	}
	*r = steps
	var energy Microjoules
	for _, recent := range steps {
		energy += recent.energy
	}
	s.peak = max(
		meanPower(energy, max(s.to-steps[0].from, enough)),
		meanPower(s.energy, max(s.length(), manyUpdates*update, minAveraging)),
	)
}

func meanPower(energy Microjoules, over time.Duration) Watts {
	return Watts(float64(energy.Joules()) / over.Seconds())
}
