package energy

import (
	"slices"
	"time"
)

// usageDelta is the use of a zone's hardware between two successive readings with a Usage. It may
// cover several steps. It is open until the second reading.
type usageDelta struct {
	from, to      instant
	before, after *Usage         // after is nil while it is open
	others        *time.Duration // use by processes outside jobs; nil: unknown
	previous      *usageDelta    // nil once closed
}

// maxUsageAge is how long the last closed delta may be used in place of an open one.
const maxUsageAge = 3 * time.Second

// orPrevious returns the delta itself or, while it is open, the previous one, so that closing a
// window does not have to wait for the next Usage.
func (d *usageDelta) orPrevious(at instant) *usageDelta {
	if d != nil && d.previous != nil && at-d.previous.to < maxUsageAge {
		return d.previous
	}
	return d
}

// close ends a delta. ahead is the amount by which the use by jobs has exceeded the use by all
// processes so far.
func (d *usageDelta) close(u *Usage, at instant, ahead time.Duration) (newAhead time.Duration) {
	d.to, d.after, d.previous = at, u, nil
	busy, capacity, known := d.busy()
	if !known {
		return 0
	}
	var jobs time.Duration
	for job, used := range u.Jobs {
		jobs += max(0, used-d.before.Jobs[job])
	}
	// The use by jobs and the use by all processes have different resolutions. If jobs seem to
	// have used more than all processes, the excess is subtracted from the others' use later.
	left := busy - jobs - ahead
	others := max(0, left)
	d.others = &others
	return min(max(0, -left), capacity)
}

// busy returns the use by all processes and the capacity in a closed delta; false if unknown.
func (d *usageDelta) busy() (busy, capacity time.Duration, known bool) {
	if d == nil || d.after == nil {
		return 0, 0, false
	}
	busy, capacity = d.after.Busy-d.before.Busy, d.after.Capacity-d.before.Capacity
	return busy, capacity, capacity > 0 && busy >= 0
}

// utilization returns the used fraction of the capacity, 0 to 1; nil if unknown.
func (d *usageDelta) utilization() *float64 {
	busy, capacity, known := d.busy()
	if !known {
		return nil
	}
	part := busy.Seconds() / capacity.Seconds()
	return &part
}

// useRates are the use per second by the jobs of some windows and by all other processes, in
// billionths of a thread or of a card.
type useRates struct {
	jobs        []int64
	jobsKnown   bool // of each job
	others      int64
	othersKnown bool
	method      string // of the Usage
}

func newUseRates(d *usageDelta, windows []*window) useRates {
	r := useRates{jobs: make([]int64, len(windows)), jobsKnown: d != nil && d.after != nil}
	if !r.jobsKnown {
		return r
	}
	r.method = d.after.Method
	for i, w := range windows {
		rate, known := d.rate(w)
		r.jobs[i], r.jobsKnown = rate, r.jobsKnown && known
	}
	if d.others != nil {
		r.others, r.othersKnown = int64(portion(*d.others, time.Second, d.to-d.from)), true
	}
	return r
}

// maxThreads is the highest plausible use per time. It keeps products of rates within 64 bits.
const maxThreads = 1 << 20

// rate returns the use per second by a window's job in a closed delta: its use divided by the
// time for which the window was open in it. The use of a job that began in it started at 0.
func (d *usageDelta) rate(w *window) (rate int64, known bool) {
	var before time.Duration
	known = w.from >= d.from
	if used, ok := d.before.Jobs[w.job]; ok {
		before, known = used, true
	}
	after, ok := d.after.Jobs[w.job]
	open := min(w.to, d.to) - max(w.from, d.from)
	if !known || !ok || after < before || open <= 0 || (after-before)/maxThreads > open {
		return 0, false
	}
	return int64(portion(after-before, time.Second, open)), true
}

// weights returns the jobs' rates, or equal weights if a rate is unknown or all are 0.
func (r useRates) weights() (weights []int64, method string) {
	if r.jobsKnown && slices.ContainsFunc(r.jobs, func(rate int64) bool { return rate > 0 }) {
		return r.jobs, r.method
	}
	return slices.Repeat([]int64{1}, len(r.jobs)), shareEqual
}
