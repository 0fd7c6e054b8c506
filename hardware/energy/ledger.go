package energy

import (
	"slices"
	"time"
)

// settleAfter is how long an interval waits before it is split for good, so that the word of a
// job's start may come later than the readings around it.
const settleAfter = 2 * time.Second

// Ledger splits what the zones' counters say between jobs, the idle machine and the
// rest. Per zone, the parts and what is not yet settled add up to what was read, to the
// microjoule, in whatever order samples, starts and ends arrive.
//
// Starts and ends are best told together with a reading of each sensor made at
// that moment: Record it, then Open or Close. All times should carry Go's
// monotonic clock, and then no setting of the wall clock matters.
type Ledger struct {
	settleAfter time.Duration
	epoch       time.Time
	started     bool
	latest      instant
	zones       []*zoneBook // in the order they were first heard of
	open        []*window   // in the order they were opened
	closed      map[string]Account
	followed    map[string]*recording
	quietAt     instant // since when no job is worked for
	restored    map[string]Baseline
	samplers    map[string]SamplerState
}

// NewLedger makes an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{
		settleAfter: settleAfter,
		closed:      map[string]Account{}, followed: map[string]*recording{}, samplers: map[string]SamplerState{},
	}
}

// zoneBook is what the ledger knows of one zone.
type zoneBook struct {
	zone      *Zone
	sampler   string // who reads it
	gone      bool   // its sampler has it no more
	counter   Accumulator
	usage     *period       // of use, still open; nil: nobody's was ever told
	cross     *Microjoules  // the second opinion at the last reading
	doubt     *Microjoules  // the sensor's doubt at the last reading
	ahead     time.Duration // by which jobs have used more than all together: of clocks that tick differently
	trail     trail
	pending   []interval // read and not yet split for good
	settledTo instant    // up to where it was split for good
	used      parts      // in windows, split for good
	loose     parts      // in the time without a window, split for good
	calm      calm
	idle      idleBudget
	power     powerMeter
	fault     string // why it cannot be read at present
	faultAt   instant
	faults    int
	seen      bool // has been read at least once
	readAt    instant
}

// Record takes a sampler's look at its zones.
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
		if f.Zone == nil {
			continue
		}
		z := l.book(f.Zone, s.Sampler)
		l.become(z, f.Zone)
		z.faults++
		if at := l.instant(f.At); z.fault == "" && (!z.seen || at > z.readAt) {
			z.fault, z.faultAt = f.Err, at
		}
	}
	for _, r := range s.Readings {
		if r.Zone != nil {
			l.read(l.book(r.Zone, s.Sampler), r)
		}
	}
	l.settle(l.latest - l.settleAfter)
}

// read takes one reading of a zone.
func (l *Ledger) read(z *zoneBook, r Reading) {
	at := l.instant(r.At)
	if z.seen && at <= z.readAt {
		return
	}
	l.become(z, r.Zone)
	before := z.readAt
	delta := z.counter.Add(r)
	z.seen, z.readAt, z.fault = true, at, ""
	l.advance(at)
	for _, w := range l.open {
		w.near(z, at)
	}
	if delta.Elapsed > 0 {
		s := &span{from: before, to: at, energy: delta.Energy, gap: delta.Gap, usage: z.usage, busy: r.Utilization}
		s.doubt = z.doubtOf(delta, r)
		if r.CrossCheck != nil && z.cross != nil && *r.CrossCheck >= *z.cross && !s.gap {
			moved := *r.CrossCheck - *z.cross
			s.cross = &moved
		}
		z.trail.add(s, z.zone.UpdateInterval)
		z.pending = append(z.pending, interval{span: s, from: s.from, to: s.to, energy: delta.Energy})
		for _, record := range l.followed {
			record.machine(z.zone, s)
		}
	}
	z.power.add(delta)
	z.cross, z.doubt = r.CrossCheck, r.ErrorBound
	z.heard(r.Usage, at)
}

// become has a zone be what it is said to be now: it may have ceased to count, or
// begun to. What it brought to open windows before is no part of their totals then:
// other zones counted at that time.
func (l *Ledger) become(z *zoneBook, zone *Zone) {
	begins := zone.Counted && !z.zone.Counted
	z.zone = zone
	if !begins {
		return
	}
	for _, iv := range z.pending {
		l.settleOne(z, iv)
	}
	z.pending = nil
	for _, w := range l.open {
		l.giveBackOf(w, z)
		delete(w.tallies, zone.ID)
	}
	for _, record := range l.followed {
		record.drop(zone)
	}
}

// heard closes the period of use at a moment that told who used the zone so far, and
// begins the next.
func (z *zoneBook) heard(u *Usage, at instant) {
	switch {
	case u == nil:
		return
	case z.usage != nil:
		p := z.usage
		p.to, p.after, p.last = at, u, nil
		p.others, z.ahead = others(p.before, u, z.ahead)
	}
	z.usage = &period{from: at, before: u, last: z.usage}
}

// doubtOf is how far a step may be off by the sensor's own error.
func (z *zoneBook) doubtOf(delta Delta, r Reading) Microjoules {
	if r.ErrorBound != nil && z.doubt != nil && *r.ErrorBound >= *z.doubt {
		return *r.ErrorBound - *z.doubt
	}
	return Microjoules(r.Zone.Uncertainty * float64(delta.Energy))
}

// SetZones says which zones a sampler has from now on. Those that it had before and has no
// more are no part of what comes: sensors that took the place of others.
func (l *Ledger) SetZones(sampler string, zones []*Zone) {
	for _, z := range l.zones {
		gone := z.sampler == sampler && !slices.ContainsFunc(zones, func(zone *Zone) bool { return zone.ID == z.zone.ID })
		z.gone = z.gone || gone
	}
}

// Track says that a job is worked for from now on, FFmpeg's start or not: its power is
// recorded for Curve, and until Forget the machine is not idle. Following a job again
// changes nothing.
func (l *Ledger) Track(job string, at time.Time) {
	if l.followed[job] == nil {
		l.followed[job] = newRecording(at, l.instant(at))
	}
}

// MarkBusy says that until a moment the machine did work that is no job: nothing of that
// time is learned as idleness.
func (l *Ledger) MarkBusy(until time.Time) { l.quietAt = max(l.quietAt, l.instant(until)) }

// Curve is what was recorded of a followed job up to now; nil of any other.
func (l *Ledger) Curve(job string) *Curve {
	if record := l.followed[job]; record != nil {
		return record.curve()
	}
	return nil
}

// Baselines are what was learned of the idle machine, by zone ID, to be restored in a
// later run. Those of estimates are left out: the next run's model may have other figures.
func (l *Ledger) Baselines() map[string]Baseline {
	known := map[string]Baseline{}
	for _, z := range l.zones {
		if z.calm.learned != nil && z.zone.Source != Estimated {
			known[z.zone.ID] = *z.calm.learned
		}
	}
	return known
}

// RestoreBaselines takes over what an earlier run on this very machine learned, but of estimates.
// It expires as if it had been learned here.
func (l *Ledger) RestoreBaselines(learned map[string]Baseline) {
	l.restored = learned
	for _, z := range l.zones {
		l.restore(z)
	}
}

func (l *Ledger) restore(z *zoneBook) {
	if b, ok := l.restored[z.zone.ID]; ok && z.zone.Source != Estimated && z.calm.learned == nil && b.Power >= 0 && b.Spread >= 0 {
		z.calm.learned = &b
	}
}

// Open begins a job's window: FFmpeg's start. Opening an open job again changes
// nothing. A job that was not followed is from now on.
func (l *Ledger) Open(job string, at time.Time) {
	l.Track(job, at)
	if slices.ContainsFunc(l.open, func(w *window) bool { return w.job == job }) {
		return
	}
	delete(l.closed, job)
	w := newWindow(job, at, l.instant(at))
	for _, z := range l.zones {
		z.eachReading(func(reading instant) { w.near(z, reading) })
	}
	l.open = append(l.open, w)
}

// Close ends a job's window, at FFmpeg's exit, and says what it cost. Closing
// again gives the same account until the job is forgotten; of a job that was
// never opened the account is unknown and says so.
func (l *Ledger) Close(job string, at time.Time) Account {
	i := slices.IndexFunc(l.open, func(w *window) bool { return w.job == job })
	if i < 0 {
		if account, ok := l.closed[job]; ok {
			return account
		}
		return UnknownAccount(at, at, "no start of this job was recorded")
	}
	w := l.open[i]
	end := l.instant(at)
	if end <= w.from {
		l.open = slices.Delete(l.open, i, i+1)
		l.giveBack(w)
		l.closed[job] = UnknownAccount(w.start, at, "the window has no length")
		return l.closed[job]
	}
	w.to = end
	tails := l.tails(end)
	l.cut(end)
	l.settle(end)
	l.open = slices.Delete(l.open, i, i+1)
	l.closed[job] = l.account(w, at, tails)
	return l.closed[job]
}

// Forget drops a job, open or closed, its account and its curve. What it has used
// stays split off.
func (l *Ledger) Forget(job string) {
	l.open = slices.DeleteFunc(l.open, func(w *window) bool { return w.job == job })
	delete(l.closed, job)
	if l.followed[job] != nil {
		delete(l.followed, job)
		l.quietAt = l.latest
	}
}

// giveBack makes a window's energy the time's without one.
func (l *Ledger) giveBack(w *window) {
	for _, z := range l.zones {
		l.giveBackOf(w, z)
	}
}

func (l *Ledger) giveBackOf(w *window, z *zoneBook) {
	if t := w.tallies[z.zone.ID]; t != nil {
		z.used = z.used.minus(t.share)
		z.loose.add(parts{idle: t.share.idle, rest: t.share.own + t.share.rest, vague: t.share.vague, undivided: t.share.undivided})
	}
}

// tails is how far from a moment each zone was read, by zone ID.
func (l *Ledger) tails(at instant) map[string]time.Duration {
	nearest := map[string]time.Duration{}
	for _, z := range l.zones {
		z.eachReading(func(reading instant) {
			distance := (reading - at).Abs()
			if old, ok := nearest[z.zone.ID]; !ok || distance < old {
				nearest[z.zone.ID] = distance
			}
		})
	}
	return nearest
}

// cut divides the waiting interval that a moment lies in, in each zone.
func (l *Ledger) cut(at instant) {
	for _, z := range l.zones {
		for i, iv := range z.pending {
			if iv.from < at && at < iv.to {
				head, tail := iv.cut(at)
				z.pending[i] = head
				z.pending = slices.Insert(z.pending, i+1, tail)
				break
			}
		}
	}
}

// settle splits the intervals that end by a moment, for good.
func (l *Ledger) settle(until instant) {
	for _, z := range l.zones {
		done := 0
		for _, iv := range z.pending {
			if iv.to > until {
				break
			}
			l.settleOne(z, iv)
			done++
		}
		z.pending = slices.Delete(z.pending, 0, done)
	}
}

// settleOne books one interval of a zone.
func (l *Ledger) settleOne(z *zoneBook, iv interval) {
	z.settledTo = iv.to
	l.learn(z, iv)
	z.prepare(l.wall(iv.to))
	at := iv.from
	for _, s := range split(iv, l.open, &z.idle) {
		z.loose.add(s.loose)
		for _, one := range s.shares {
			z.used.add(one.parts)
			one.owner.tally(z).take(one.owner, iv, &s, one.parts)
			if record := l.followed[one.owner.job]; record != nil && z.zone.Counted && !iv.gap {
				record.job(z.zone, &s, one.parts, at)
			}
		}
		at += s.length
	}
}

// learn takes an interval for the baseline if the machine was idle in all of it. Where it
// is not known whether it was, nothing is learned.
func (l *Ledger) learn(z *zoneBook, iv interval) {
	busy := iv.usage.known(iv.from).busy()
	if busy == nil {
		busy = iv.busy
	}
	switch {
	case len(l.followed) > 0 || iv.from < l.quietAt || iv.gap:
		z.calm.disturb()
	case busy == nil || *busy > calmUse:
		z.calm.disturb()
	default:
		z.calm.add(iv.energy, iv.to-iv.from, l.wall(iv.to))
	}
}

// eachReading calls f with the moments of the readings that the zone still
// remembers.
func (z *zoneBook) eachReading(f func(instant)) {
	for _, iv := range z.pending {
		f(iv.span.from)
	}
	if z.seen {
		f(z.readAt)
	}
}

// book of a zone, begun when it is first heard of.
func (l *Ledger) book(zone *Zone, sampler string) *zoneBook {
	for _, z := range l.zones {
		if z.zone.ID == zone.ID {
			z.sampler, z.gone = sampler, false
			return z
		}
	}
	z := &zoneBook{zone: zone, sampler: sampler}
	l.zones = append(l.zones, z)
	l.restore(z)
	return z
}

// instant puts a time on the ledger's clock.
func (l *Ledger) instant(t time.Time) instant {
	if !l.started {
		l.epoch, l.started = t, true
	}
	return t.Sub(l.epoch)
}

// wall is the time of an instant.
func (l *Ledger) wall(at instant) time.Time { return l.epoch.Add(at) }

func (l *Ledger) advance(to instant) { l.latest = max(l.latest, to) }
