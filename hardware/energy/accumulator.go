package energy

import (
	"math"
	"time"
)

// DefaultMaxPower is the plausibility limit of a zone without one of its own: above any
// processor package, memory or card on the market, and below the power that a counter reset
// looks like.
const DefaultMaxPower Watts = 2000

const (
	// timestampJitter is how far a reading's time stamp may lie from the moment at which the
	// counter was latched.
	timestampJitter = 20 * time.Millisecond
	// suspendTolerance is the difference between two clocks that reading them one after the
	// other explains. More is a suspend.
	suspendTolerance = 50 * time.Millisecond
)

// Delta is the change of a zone's counter between two successive readings. The zero value
// means that there is none: the reading was the first, or not later than the one before.
type Delta struct {
	Elapsed time.Duration // between the two readings
	Energy  Microjoules   // never negative; 0 in a gap
	Gap     bool          // the energy is unknown
}

// Known reports whether there is a delta and its energy is known.
func (d Delta) Known() bool { return d.Elapsed > 0 && !d.Gap }

// Accumulator unwraps one zone's counter and sums its plausible deltas. Where the counter was
// reset, may have wrapped more than once or is implausible it counts a gap. The zero value is
// ready to use.
type Accumulator struct {
	last    Reading
	hasLast bool // false before the first reading and after one out of range
	total   Microjoules
	gaps    int
}

// Total is the sum of all known deltas.
func (a *Accumulator) Total() Microjoules { return a.total }

// Gaps is the number of deltas whose energy is unknown.
func (a *Accumulator) Gaps() int { return a.gaps }

// restart makes the next reading the first.
func (a *Accumulator) restart() { a.hasLast = false }

// Add takes the next reading. A reading that is not later than the one before is dropped; the
// counter is cumulative, so the next one includes its energy.
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

// difference is the energy since the last reading; false if it is unknown. After a wrap it is
// (range − previous) + current.
func (a *Accumulator) difference(r Reading, elapsed time.Duration) (energy Microjoules, known bool) {
	if r.Suspended-a.last.Suspended > suspendTolerance {
		return 0, false // elapsed does not include the suspend, the counter may
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
