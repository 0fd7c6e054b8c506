package energy

import (
	"math"
	"time"
)

// DefaultMaxPower is the plausibility limit of a zone that has none of its own. It is above the
// power of any processor package, memory or card on the market, and below the apparent power of
// a counter reset.
const DefaultMaxPower Watts = 2000

const (
	// timestampJitter is the maximum distance of a reading's time stamp from the time at which
	// the counter was latched.
	timestampJitter = 20 * time.Millisecond
	// suspendTolerance is the maximum difference between two clocks that is due to reading them
	// one after the other. A larger one is a suspend.
	suspendTolerance = 50 * time.Millisecond
)

// Delta is the change of a zone's counter between two successive readings. The zero value means
// no delta: the reading was the first, or not later than the previous one.
type Delta struct {
	Elapsed time.Duration // between the two readings
	Energy  Microjoules   // never negative; 0 in a gap
	Gap     bool          // the energy is unknown
}

// Known reports whether there is a delta and its energy is known.
func (d Delta) Known() bool { return d.Elapsed > 0 && !d.Gap }

// Accumulator unwraps one zone's counter and sums its plausible deltas. It counts a gap if the
// counter was reset, may have wrapped more than once, or is implausible. The zero value is ready
// to use.
type Accumulator struct {
	last    Reading
	hasLast bool // false before the first reading and after one out of range
	total   Microjoules
	gaps    int
}

// Total returns the sum of all known deltas.
func (a *Accumulator) Total() Microjoules { return a.total }

// Gaps returns the number of deltas of unknown energy.
func (a *Accumulator) Gaps() int { return a.gaps }

// restart makes the next reading the first.
func (a *Accumulator) restart() { a.hasLast = false }

// Add adds the next reading and returns its delta. A reading that is not later than the previous
// one is dropped; the counter is cumulative, so the next reading includes its energy.
func (a *Accumulator) Add(r Reading) Delta {
	inRange := r.Counter >= 0 && (r.Zone.Range <= 0 || r.Counter <= r.Zone.Range)
	if !a.hasLast {
		a.last, a.hasLast = r, inRange
		return Delta{}
	}
	elapsed := r.At.Sub(a.last.At)
	if elapsed <= 0 {
		return Delta{}
	}
	var energy Microjoules
	known := false
	if inRange {
		energy, known = a.difference(r, elapsed)
	}
	a.last, a.hasLast = r, inRange
	if !known {
		a.gaps++
		return Delta{Elapsed: elapsed, Gap: true}
	}
	a.total += energy
	return Delta{Elapsed: elapsed, Energy: energy}
}

// difference returns the energy since the last reading; false if unknown. After a wrap it is
// (range − previous) + current.
func (a *Accumulator) difference(r Reading, elapsed time.Duration) (energy Microjoules, known bool) {
	if r.Suspended-a.last.Suspended > suspendTolerance {
		return 0, false // elapsed does not include the suspend, but the counter may
	}
	if half := r.Zone.halfWrap(); half > 0 && elapsed > half {
		return 0, false // it may have wrapped more than once
	}
	energy = r.Counter - a.last.Counter
	if energy < 0 {
		energy += r.Zone.Range // 0 if unknown: the counter was reset
	}
	limit := float64(r.Zone.maxPower()) * 1e6 * (elapsed + r.Zone.UpdateInterval + timestampJitter).Seconds()
	if energy < 0 || float64(energy) > limit || energy > math.MaxInt64-a.total {
		return 0, false
	}
	return energy, true
}
