package energy

import (
	"fmt"
	"math"
	"time"
)

// DefaultMaxPower is the highest power taken for true of a zone that names none:
// above any processor package, memory or card that is sold, and below what a
// counter seems to have used when it was reset.
const DefaultMaxPower Watts = 2000

// jitter is how far a reading's time stamp may lie from the moment its counter
// was latched.
const jitter = 20 * time.Millisecond

// sleepGrain is how much of a difference between two clocks is taken for a suspend and
// not for the time that reading both took.
const sleepGrain = 50 * time.Millisecond

// StepKind says what one more reading of a counter brought.
type StepKind int

const (
	// NoStep: the first reading, or one that is not later than the last.
	NoStep StepKind = iota
	// Counted: Energy was used between From and To.
	Counted
	// Gap: what was used between From and To is not known.
	Gap
)

// Step is what happened between two successive readings of one zone.
type Step struct {
	Kind     StepKind
	From, To time.Time
	Energy   Microjoules // 0 unless Counted; never negative
	Why      string      // the reason of a Gap
}

// Accumulator follows one zone's counter, which wraps, is reset and now and then
// lies, and adds up in 64 bits what can be believed. The zero value is ready.
type Accumulator struct {
	last  Reading
	read  bool
	total Microjoules
	gaps  int
}

// Total is the energy counted so far.
func (a *Accumulator) Total() Microjoules { return a.total }

// Gaps is how often the chain of readings broke.
func (a *Accumulator) Gaps() int { return a.gaps }

// Last is the latest reading that counts; false before the first and after one
// that was nonsense.
func (a *Accumulator) Last() (Reading, bool) { return a.last, a.read }

// Add takes the next reading. One that is not later than the last is dropped:
// the counter is cumulative, so that the next one brings what it would have.
func (a *Accumulator) Add(r Reading) Step {
	if r.Counter < 0 || (r.Zone.Range > 0 && r.Counter > r.Zone.Range) {
		return a.breakOff(r)
	}
	if !a.read {
		a.last, a.read = r, true
		return Step{}
	}
	elapsed := r.At.Sub(a.last.At)
	if elapsed <= 0 {
		return Step{}
	}
	step := Step{Kind: Counted, From: a.last.At, To: r.At}
	step.Energy, step.Why = a.difference(r, elapsed)
	a.last = r
	if step.Why != "" {
		step.Kind, step.Energy = Gap, 0
		a.gaps++
		return step
	}
	a.total += step.Energy
	return step
}

// breakOff ends the chain at a reading outside the counter's own range; the next
// good one starts a new chain.
func (a *Accumulator) breakOff(r Reading) Step {
	if !a.read || !r.At.After(a.last.At) {
		return Step{}
	}
	a.read = false
	a.gaps++
	return Step{
		Kind: Gap, From: a.last.At, To: r.At,
		Why: fmt.Sprintf("counter at %d µJ, outside 0 to %d", r.Counter, r.Zone.Range),
	}
}

// difference is what the counter moved by since the last reading, or why that
// cannot be told. A wrap is (range − previous) + current.
func (a *Accumulator) difference(r Reading, elapsed time.Duration) (Microjoules, string) {
	limit := r.Zone.maxPower()
	if slept := r.Asleep - a.last.Asleep; slept > sleepGrain {
		return 0, fmt.Sprintf("the machine was suspended for %v", slept.Round(time.Millisecond))
	}
	if silence := halfWrap(r.Zone.Range, limit); silence > 0 && elapsed > silence {
		return 0, fmt.Sprintf("silent for %v, in which the counter may have wrapped more than once", elapsed)
	}
	moved := r.Counter - a.last.Counter
	if moved < 0 {
		if r.Zone.Range <= 0 {
			return 0, "counter went back and its range is not known"
		}
		moved += r.Zone.Range
	}
	if moved < 0 || float64(moved) > float64(limit)*1e6*(elapsed+r.Zone.Update+jitter).Seconds() {
		return 0, fmt.Sprintf("counter jumped by %d µJ in %v", moved, elapsed)
	}
	if moved > math.MaxInt64-a.total {
		return 0, "more energy than 64 bits hold"
	}
	return moved, ""
}

func (z *Zone) maxPower() Watts {
	if z.MaxPower > 0 {
		return z.MaxPower
	}
	return DefaultMaxPower
}

// MaxInterval is how long readings of the zone may lie apart: at full power its counter
// makes a quarter of a turn meanwhile. 0: as long as one likes.
func (z *Zone) MaxInterval() time.Duration { return halfWrap(z.Range, z.maxPower()) / 2 }

// halfWrap is how long a counter of a range takes to half a turn at a power, or
// 0 for one that does not wrap in a lifetime or whose range is not known.
func halfWrap(counterRange Microjoules, power Watts) time.Duration {
	seconds := float64(counterRange) / 2 / 1e6 / float64(power)
	if seconds <= 0 || seconds > math.MaxInt64/1e9/2 {
		return 0
	}
	return time.Duration(seconds * 1e9)
}
