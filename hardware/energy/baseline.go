package energy

import (
	"slices"
	"time"
)

const (
	// calmLength is the least length of idleness that gives one figure of power: a little
	// below the usual interval between readings.
	calmLength = 900 * time.Millisecond
	// calmFewest is how many figures make a baseline, and calmMost how many of the
	// latest are kept.
	calmFewest, calmMost = 5, 120
	// calmUse is the highest part of the machine that processes of no job may use
	// while it counts as idle.
	calmUse = 0.1
	// baselineMaxAge is how long a baseline holds after the machine was last idle.
	baselineMaxAge = 7 * 24 * time.Hour
)

// Baseline is the power of a zone, or of all counted zones together, while no job runs and
// other processes hardly use the machine.
type Baseline struct {
	// Power is the median of the idle samples, in W.
	Power Watts `json:"power_watts"`
	// Spread is half the distance between their 10th and 90th percentiles, in W. Of several
	// zones it is the sum of theirs.
	Spread Watts `json:"spread_watts"`
	// LearnedAt is when the machine was last idle.
	LearnedAt time.Time `json:"learned_at"`
	// Seconds of idle time that the samples cover.
	Seconds float64 `json:"seconds"`
}

// expired reports whether a baseline is too old at a moment; one from the future is
// of a clock that was wrong.
func (b *Baseline) expired(now time.Time) bool {
	age := now.Sub(b.LearnedAt.Round(0)) // by the wall clock: it may be of an earlier run
	return age > baselineMaxAge || age < -time.Hour
}

// calm learns one zone's baseline.
type calm struct {
	energy  Microjoules
	length  time.Duration
	pieces  []calmPiece // oldest first
	learned *Baseline
}

// calmPiece is one length of idleness.
type calmPiece struct {
	power  Watts
	length time.Duration
}

// add takes a piece of idleness, which ended at a moment.
func (c *calm) add(energy Microjoules, length time.Duration, at time.Time) {
	c.energy += energy
	c.length += length
	if c.length < calmLength {
		return
	}
	c.pieces = append(c.pieces, calmPiece{Watts(float64(c.energy.Joules()) / c.length.Seconds()), c.length})
	c.energy, c.length = 0, 0
	if len(c.pieces) > calmMost {
		c.pieces = slices.Delete(c.pieces, 0, 1)
	}
	if len(c.pieces) < calmFewest {
		return
	}
	var all time.Duration
	sorted := make([]Watts, len(c.pieces))
	for i, piece := range c.pieces {
		all += piece.length
		sorted[i] = piece.power
	}
	slices.Sort(sorted)
	at = at.Round(0)
	last := len(sorted) - 1
	c.learned = &Baseline{
		Power:     (sorted[last/2] + sorted[(last+1)/2]) / 2,
		Spread:    (sorted[last-last/10] - sorted[last/10]) / 2,
		Seconds:   all.Seconds(),
		LearnedAt: at,
	}
}

// disturb drops the idleness that was under way: it was none to its end.
func (c *calm) disturb() { c.energy, c.length = 0, 0 }

// baseline that holds at a moment; nil without one.
func (c *calm) baseline(now time.Time) *Baseline {
	if c.learned == nil || c.learned.expired(now) {
		return nil
	}
	return c.learned
}

// idleBudget hands out a zone's baseline piece by piece. What a piece of low power
// could not give, those after it do: else noise around the baseline would count as
// work. The debts of times with and without jobs are apart.
type idleBudget struct {
	power Watts // baseline
	known bool
	owed  struct{ inWindow, loose Microjoules }
}

// take is the idle part of the energy used in a length of time; false without a
// baseline.
func (b *idleBudget) take(energy Microjoules, length time.Duration, inWindow bool) (Microjoules, bool) {
	if !b.known {
		return 0, false
	}
	owed := &b.owed.inWindow
	if !inWindow {
		owed, b.owed.inWindow = &b.owed.loose, 0
	}
	perSecond := Joules(b.power).Microjoules()
	due := portion(perSecond, length, time.Second) + *owed
	taken := min(due, energy)
	*owed = min(due-taken, perSecond)
	return taken, true
}

// prepare puts the zone's baseline at a moment into its budget.
func (z *zoneBook) prepare(now time.Time) {
	b := z.calm.baseline(now)
	z.idle.known = b != nil
	if b != nil {
		z.idle.power = b.Power
	}
}

// busy is the part of the machine that was used in a period, 0 to 1; nil where that is
// not known.
func (p *period) busy() *float64 {
	switch {
	case p == nil || p.before == nil || p.after == nil:
		return nil
	case p.after.Capacity <= p.before.Capacity || p.after.Busy < p.before.Busy:
		return nil
	}
	busy := (p.after.Busy - p.before.Busy).Seconds() / (p.after.Capacity - p.before.Capacity).Seconds()
	return &busy
}

// others is what processes of no job used between two moments; nil where that is
// not known. The jobs' use and everybody's come from clocks of different grain: by what
// the jobs were ahead, the others are cut short later.
func others(before, after *Usage, ahead time.Duration) (*time.Duration, time.Duration) {
	if before == nil || after == nil || after.Capacity <= before.Capacity || after.Busy < before.Busy {
		return nil, 0
	}
	all := after.Busy - before.Busy
	var jobs time.Duration
	for job, used := range after.Jobs {
		jobs += max(0, used-before.Jobs[job])
	}
	left := all - jobs - ahead
	used, ahead := max(0, left), max(0, -left)
	return &used, min(ahead, after.Capacity-before.Capacity)
}

// Baselines are what was learned of the idle machine, for a later life of the agent.
type Baselines struct {
	// Machine tells machines apart: a data directory may move to another.
	Machine string              `json:"machine"`
	Zones   map[string]Baseline `json:"zones"` // by zone ID
}
