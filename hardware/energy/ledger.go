package energy

import (
	"slices"
	"time"
)

// settleDelay is how long a step stays pending before its attribution is final: the start of a
// job may be reported after the readings around it.
const settleDelay = 2 * time.Second

// Ledger attributes the energy of all zones to jobs, the idle baseline and the rest. For each
// zone, these parts and the pending energy add up to the energy read, to the microjoule, in
// whatever order samples, starts and ends arrive.
//
// The error bounds are lowest if every sensor is read at a job's start and end: Record that
// sample, then Open or Close. All times should carry Go's monotonic clock; then setting the wall
// clock changes nothing.
type Ledger struct {
	settleDelay time.Duration
	epoch       time.Time
	started     bool
	latest      instant
	zones       []*zoneLedger // in the order of their first sample
	open        []*window     // in the order of Open
	closed      map[string]Account
	tracked     map[string]*curveRecorder
	busyUntil   instant // the machine was not idle before this
	restored    map[string]Baseline
	samplers    map[string]SamplerState
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{
		settleDelay: settleDelay,
		closed:      map[string]Account{}, tracked: map[string]*curveRecorder{}, samplers: map[string]SamplerState{},
	}
}

// zoneLedger is the state of one zone.
type zoneLedger struct {
	zone    *Zone
	sampler string
	removed bool // its sampler no longer has it

	counter    Accumulator
	crossCheck *Microjoules // of the last reading
	errorBound *Microjoules // of the last reading
	usage      *usageDelta  // not yet closed; nil before the first Usage
	jobsAhead  time.Duration
	recent     recentSteps
	power      powerMeter

	pending   []*step     // not yet settled
	settledTo instant     // end of the last settled step
	used      attribution // settled, in windows
	outside   attribution // settled, outside windows
	learner   baselineLearner
	idle      idleAllocator

	seen    bool // read at least once
	readAt  instant
	fault   string // why it cannot be read at present
	faultAt instant
	faults  int
}

// Record adds a sample.
func (l *Ledger) Record(s Sample) {
	l.advance(l.instant(s.At))
	state := l.samplers[s.Sampler]
	if s.At.After(state.At) {
		state.At = s.At
	}
	state.Samples++
	state.Faults += len(s.Faults)
	l.samplers[s.Sampler] = state

	for _, f := range s.Faults {
		if f.Zone != nil {
			l.recordFault(f, s.Sampler)
		}
	}
	for _, r := range s.Readings {
		if r.Zone != nil {
			l.recordReading(r, s.Sampler)
		}
	}
	l.settle(l.latest - l.settleDelay)
}

func (l *Ledger) recordFault(f Fault, sampler string) {
	z := l.zone(f.Zone, sampler)
	l.updateZone(z, f.Zone)
	z.faults++
	if at := l.instant(f.At); z.fault == "" && (!z.seen || at > z.readAt) {
		z.fault, z.faultAt = f.Err, at
	}
}

func (l *Ledger) recordReading(r Reading, sampler string) {
	z, at := l.zone(r.Zone, sampler), l.instant(r.At)
	if z.seen && at <= z.readAt {
		return
	}
	l.updateZone(z, r.Zone)
	before := z.readAt
	z.seen, z.readAt, z.fault = true, at, ""
	l.advance(at)
	for _, w := range l.open {
		w.seen(z.zone.ID, at)
	}
	delta := z.counter.Add(r)
	z.power.add(delta)
	if delta.Elapsed > 0 {
		s := z.step(before, r, at, delta)
		z.pending = append(z.pending, s)
		for _, recorder := range l.tracked {
			recorder.addStep(z.zone, s)
		}
	}
	z.crossCheck, z.errorBound = r.CrossCheck, r.ErrorBound
	z.recordUsage(r.Usage, at)
}

// step returns the step from the previous reading to r, which had a delta.
func (z *zoneLedger) step(before instant, r Reading, at instant, delta Delta) *step {
	s := newStep(before, at, delta.Energy)
	s.gap, s.usage, s.utilization = delta.Gap, z.usage, r.Utilization
	s.errorBound = Microjoules(r.Zone.Uncertainty * float64(delta.Energy))
	if r.ErrorBound != nil && z.errorBound != nil && *r.ErrorBound >= *z.errorBound {
		s.errorBound = *r.ErrorBound - *z.errorBound
	}
	if r.CrossCheck != nil && z.crossCheck != nil && *r.CrossCheck >= *z.crossCheck {
		moved := *r.CrossCheck - *z.crossCheck
		s.crossCheck = &moved
	}
	z.recent.add(s, z.zone.UpdateInterval)
	return s
}

// recordUsage closes the open usageDelta and opens the next.
func (z *zoneLedger) recordUsage(u *Usage, at instant) {
	if u == nil {
		return
	}
	if z.usage != nil {
		z.jobsAhead = z.usage.close(u, at, z.jobsAhead)
	}
	z.usage = &usageDelta{from: at, before: u, previous: z.usage}
}

// zone returns the state of a zone, which is created at its first sample.
func (l *Ledger) zone(zone *Zone, sampler string) *zoneLedger {
	i := slices.IndexFunc(l.zones, func(z *zoneLedger) bool { return z.zone.ID == zone.ID })
	if i < 0 {
		i = len(l.zones)
		l.zones = append(l.zones, &zoneLedger{zone: zone})
		l.restoreBaseline(l.zones[i])
	}
	z := l.zones[i]
	if z.removed && l.estimatedSince(z) {
		z.counter.restart()
	}
	z.sampler, z.removed = sampler, false
	return z
}

// estimatedSince reports whether an estimate has replaced a zone after its last reading. If so,
// the next reading is treated as the first: the estimate includes the energy counted in between.
func (l *Ledger) estimatedSince(z *zoneLedger) bool {
	return slices.ContainsFunc(l.zones, func(other *zoneLedger) bool {
		return other != z && other.sampler == z.sampler && other.zone.Source == Estimated && other.seen && other.readAt > z.readAt
	})
}

// updateZone replaces a zone by its current version. If the zone becomes counted, its earlier
// energy is removed from open windows: other zones were counted at that time.
func (l *Ledger) updateZone(z *zoneLedger, zone *Zone) {
	begins := zone.Counted && !z.zone.Counted
	z.zone = zone
	if !begins {
		return
	}
	for _, s := range z.pending {
		l.settleStep(z, s)
	}
	z.pending = nil
	for _, w := range l.open {
		z.moveOutside(w)
		delete(w.tallies, zone.ID)
	}
	for _, recorder := range l.tracked {
		recorder.drop(zone.ID)
	}
}

// SetZones sets the zones of a sampler. Its other zones no longer appear in snapshots and later
// accounts, until they are sampled again.
func (l *Ledger) SetZones(sampler string, zones []*Zone) {
	for _, z := range l.zones {
		kept := slices.ContainsFunc(zones, func(zone *Zone) bool { return zone.ID == z.zone.ID })
		if z.sampler == sampler && !kept {
			z.removed = true
		}
	}
}

// Track starts to record the power curve of a job. From then until Forget the machine does not
// count as idle. Tracking a job again has no effect.
func (l *Ledger) Track(job string, at time.Time) {
	if l.tracked[job] == nil {
		l.tracked[job] = newCurveRecorder(at, l.instant(at))
	}
}

// MarkBusy declares that the machine was not idle until a time, although no job was tracked.
func (l *Ledger) MarkBusy(until time.Time) { l.busyUntil = max(l.busyUntil, l.instant(until)) }

// Curve returns the power curve of a tracked job so far; nil for any other job.
func (l *Ledger) Curve(job string) *Curve {
	if recorder := l.tracked[job]; recorder != nil {
		return recorder.curve()
	}
	return nil
}

// Baselines returns the learned baselines by zone ID, for RestoreBaselines in a later run. Those
// of estimated zones are left out: the model may have other parameters by then.
func (l *Ledger) Baselines() map[string]Baseline {
	learned := map[string]Baseline{}
	for _, z := range l.zones {
		if b := z.learner.learned; b != nil && z.zone.Source != Estimated {
			learned[z.zone.ID] = *b
		}
	}
	return learned
}

// RestoreBaselines restores baselines that an earlier run on this machine has learned, except
// those of estimated zones. Restored baselines expire like learned ones.
func (l *Ledger) RestoreBaselines(learned map[string]Baseline) {
	l.restored = learned
	for _, z := range l.zones {
		l.restoreBaseline(z)
	}
}

func (l *Ledger) restoreBaseline(z *zoneLedger) {
	b, ok := l.restored[z.zone.ID]
	if ok && z.zone.Source != Estimated && z.learner.learned == nil && b.Power >= 0 && b.Spread >= 0 {
		z.learner.learned = &b
	}
}

// Open starts a job's window, at FFmpeg's start. Opening an open window again has no effect. Open
// also tracks the job, if it is not tracked yet.
func (l *Ledger) Open(job string, at time.Time) {
	l.Track(job, at)
	if l.openWindow(job) >= 0 {
		return
	}
	delete(l.closed, job)
	w := newWindow(job, at, l.instant(at))
	for _, z := range l.zones {
		for reading := range z.readings {
			w.seen(z.zone.ID, reading)
		}
	}
	l.open = append(l.open, w)
}

// Close ends a job's window, at FFmpeg's exit, and returns the job's account. Closing it again
// returns the same account until Forget. Without an open window the account is unavailable.
func (l *Ledger) Close(job string, at time.Time) Account {
	i := l.openWindow(job)
	if i < 0 {
		if account, ok := l.closed[job]; ok {
			return account
		}
		return UnknownAccount(at, at, "the start of this job was not recorded")
	}
	w := l.open[i]
	w.to = l.instant(at)
	if w.to <= w.from {
		for _, z := range l.zones {
			z.moveOutside(w)
		}
		l.closed[job] = UnknownAccount(w.start, at, "the window is empty")
	} else {
		distances := l.readingDistances(w.to)
		l.cutPending(w.to)
		l.settle(w.to)
		l.closed[job] = l.account(w, at, distances)
	}
	l.open = slices.Delete(l.open, i, i+1)
	return l.closed[job]
}

func (l *Ledger) openWindow(job string) int {
	return slices.IndexFunc(l.open, func(w *window) bool { return w.job == job })
}

// Forget drops a job's window, account and curve. Energy that was attributed to the job stays
// attributed to jobs.
func (l *Ledger) Forget(job string) {
	l.open = slices.DeleteFunc(l.open, func(w *window) bool { return w.job == job })
	delete(l.closed, job)
	if l.tracked[job] != nil {
		delete(l.tracked, job)
		l.busyUntil = l.latest
	}
}

// readings yields the times of the latest readings of a zone: those of its pending steps, and the
// last one.
func (z *zoneLedger) readings(yield func(instant) bool) {
	for _, s := range z.pending {
		if !yield(s.whole.from) {
			return
		}
	}
	if z.seen {
		yield(z.readAt)
	}
}

// readingDistances returns the time between at and the closest reading of each zone, by zone ID.
func (l *Ledger) readingDistances(at instant) map[string]time.Duration {
	distances := map[string]time.Duration{}
	for _, z := range l.zones {
		closest := unseen
		for reading := range z.readings {
			closest = min(closest, (reading - at).Abs())
		}
		distances[z.zone.ID] = closest
	}
	return distances
}

// instant converts a time to the ledger's clock.
func (l *Ledger) instant(t time.Time) instant {
	if !l.started {
		l.epoch, l.started = t, true
	}
	return t.Sub(l.epoch)
}

// time converts an instant to wall-clock time.
func (l *Ledger) time(at instant) time.Time { return l.epoch.Add(at) }

func (l *Ledger) advance(to instant) { l.latest = max(l.latest, to) }
