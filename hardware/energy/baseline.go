package energy

import (
	"slices"
	"time"
)

const (
	// minIdleSample is the shortest idle time that makes a sample: a little less than the usual
	// interval between readings.
	minIdleSample = 900 * time.Millisecond
	// minIdleSamples make a baseline. The latest maxIdleSamples are kept.
	minIdleSamples, maxIdleSamples = 5, 120
	// maxIdleUse is the highest utilization by processes outside jobs at which the machine
	// counts as idle.
	maxIdleUse = 0.1
	// baselineMaxAge is how long a baseline is valid after the machine was last idle.
	baselineMaxAge = 7 * 24 * time.Hour
	// maxClockError is how far in the future a valid baseline may have been learned.
	maxClockError = time.Hour
)

// Baselines are the baselines of a machine in the form in which an agent saves them.
type Baselines struct {
	// Machine identifies the machine: the data directory may be moved to another one.
	Machine string              `json:"machine"`
	Zones   map[string]Baseline `json:"zones"` // by zone ID
}

// Baseline is the power of a zone, or of all counted zones together, while no job runs and the
// machine is otherwise nearly idle.
type Baseline struct {
	// Power is the median of the idle samples, in W.
	Power Watts `json:"power_watts"`
	// Spread is half the distance between the 10th and the 90th percentile of the idle samples,
	// in W. For several zones it is the sum of their spreads.
	Spread Watts `json:"spread_watts"`
	// LearnedAt is when the machine was last idle.
	LearnedAt time.Time `json:"learned_at"`
	// Seconds is the idle time that the samples cover.
	Seconds float64 `json:"seconds"`
}

// valid reports whether a baseline is neither too old nor from the future.
func (b *Baseline) valid(now time.Time) bool {
	age := now.Sub(b.LearnedAt.Round(0)) // by the wall clock: it may be from an earlier run
	return age <= baselineMaxAge && age >= -maxClockError
}

// sumBaselines returns the baseline of several zones together; nil if one has none.
func sumBaselines(zones []*zoneLedger, now time.Time) *Baseline {
	var sum *Baseline
	for _, z := range zones {
		b := z.learner.baseline(now)
		if b == nil {
			return nil
		}
		if sum == nil {
			sum = &Baseline{LearnedAt: b.LearnedAt, Seconds: b.Seconds}
		}
		sum.Power += b.Power
		sum.Spread += b.Spread
		sum.Seconds = min(sum.Seconds, b.Seconds)
		if b.LearnedAt.Before(sum.LearnedAt) {
			sum.LearnedAt = b.LearnedAt
		}
	}
	return sum
}

// baselineLearner learns one zone's baseline.
type baselineLearner struct {
	energy  Microjoules // of the current sample
	length  time.Duration
	samples []idleSample // oldest first
	learned *Baseline
}

type idleSample struct {
	power  Watts
	length time.Duration
}

// add adds the energy used in an idle time that ended at end.
func (l *baselineLearner) add(energy Microjoules, length time.Duration, end time.Time) {
	l.energy += energy
	l.length += length
	if l.length < minIdleSample {
		return
	}
	l.samples = append(l.samples, idleSample{meanPower(l.energy, l.length), l.length})
	l.interrupt()
	if len(l.samples) > maxIdleSamples {
		l.samples = slices.Delete(l.samples, 0, 1)
	}
	if len(l.samples) >= minIdleSamples {
		l.learned = newBaseline(l.samples, end)
	}
}

// interrupt discards the current sample.
func (l *baselineLearner) interrupt() { l.energy, l.length = 0, 0 }

// baseline returns the baseline if it is valid at now, or nil.
func (l *baselineLearner) baseline(now time.Time) *Baseline {
	if l.learned == nil || !l.learned.valid(now) {
		return nil
	}
	return l.learned
}

func newBaseline(samples []idleSample, learnedAt time.Time) *Baseline {
	var length time.Duration
	powers := make([]Watts, len(samples))
	for i, s := range samples {
		length += s.length
		powers[i] = s.power
	}
	slices.Sort(powers)
	last := len(powers) - 1
	return &Baseline{
		Power:     (powers[last/2] + powers[(last+1)/2]) / 2,
		Spread:    (powers[last-last/10] - powers[last/10]) / 2,
		LearnedAt: learnedAt.Round(0),
		Seconds:   length.Seconds(),
	}
}

// idleAllocator splits the idle part off a zone's energy, step by step. If a step has less energy
// than the baseline, the difference is carried over to later steps; otherwise noise around the
// baseline would count as work. There are separate carries for times with and without an open
// window.
type idleAllocator struct {
	power Watts
	known bool
	carry struct{ inWindow, outside Microjoules }
}

// setBaseline sets the baseline for later steps; nil means none.
func (i *idleAllocator) setBaseline(b *Baseline) {
	i.known = b != nil
	if b != nil {
		i.power = b.Power
	}
}

// allocate returns the idle part of the energy used in a length of time; false without a
// baseline. The carry of a window ends with the window. A carry is at most the baseline × 1 s.
func (i *idleAllocator) allocate(energy Microjoules, length time.Duration, inWindow bool) (idle Microjoules, known bool) {
	if !i.known {
		return 0, false
	}
	carry := &i.carry.inWindow
	if !inWindow {
		carry, i.carry.inWindow = &i.carry.outside, 0
	}
	perSecond := Joules(i.power).Microjoules()
	due := portion(perSecond, length, time.Second) + *carry
	idle = min(due, energy)
	*carry = min(due-idle, perSecond)
	return idle, true
}
