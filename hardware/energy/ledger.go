package energy

import (
	"slices"
	"time"
)

// LedgerConfig sets a Ledger up; the zero value is useful.
type LedgerConfig struct {
	// DefaultMaxPower is the highest power that can be true of a zone that names
	// none; 0 takes the package's DefaultMaxPower.
	DefaultMaxPower Watts
	// SettleAfter is how long an interval waits before it is split for good, so
	// that the word of a job's start may come later than the readings around
	// it; 0 takes 2 s.
	SettleAfter time.Duration
}

// Ledger splits what the zones' counters say between jobs and the rest of the
// machine. Per zone, what jobs got, the rest and what is not yet settled add up
// to what was read, to the microjoule, in whatever order samples, starts and
// ends arrive.
//
// Starts and ends are best told together with a reading of each sensor made at
// that moment: Record it, then Open or Close. All times should carry Go's
// monotonic clock, and then no setting of the wall clock matters.
type Ledger struct {
	config   LedgerConfig
	epoch    time.Time
	started  bool
	latest   instant
	zones    []*zoneBook // in the order they were first heard of
	open     []*window   // in the order they were opened
	closed   map[string]Account
	samplers map[string]SamplerState
}

// NewLedger makes an empty ledger.
func NewLedger(config LedgerConfig) *Ledger {
	if config.SettleAfter <= 0 {
		config.SettleAfter = 2 * time.Second
	}
	return &Ledger{config: config, closed: map[string]Account{}, samplers: map[string]SamplerState{}}
}

// zoneBook is what the ledger knows of one zone.
type zoneBook struct {
	zone    *Zone
	counter Accumulator
	usage   map[string]time.Duration // CPU times at the last reading
	pending []interval               // read and not yet split for good
	jobs    Microjoules              // split off to jobs
	rest    Microjoules              // nobody's
	power   powerMeter
	fault   string // why it cannot be read at present
	faultAt instant
	faults  int
	seen    bool // has been read at least once
	readAt  instant
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
		z := l.book(f.Zone)
		z.faults++
		if at := l.instant(f.At); z.fault == "" && (!z.seen || at > z.readAt) {
			z.fault, z.faultAt = f.Err, at
		}
	}
	for _, r := range s.Readings {
		if r.Zone != nil {
			l.read(l.book(r.Zone), r, s.Usage)
		}
	}
	l.settle(l.latest - l.config.SettleAfter)
}

// read takes one reading of a zone.
func (l *Ledger) read(z *zoneBook, r Reading, usage map[string]time.Duration) {
	at := l.instant(r.At)
	if z.seen && at <= z.readAt {
		return
	}
	step := z.counter.Add(r)
	z.zone, z.seen, z.readAt, z.fault = r.Zone, true, at, ""
	l.advance(at)
	for _, w := range l.open {
		w.near(z, at)
	}
	if step.Kind != NoStep {
		s := &span{
			from: l.instant(step.From), to: at, energy: step.Energy, gap: step.Kind == Gap,
			before: z.usage, after: usage,
		}
		z.pending = append(z.pending, interval{span: s, from: s.from, to: s.to, energy: step.Energy})
	}
	z.power.add(step)
	z.usage = usage
}

// Open begins a job's window: FFmpeg's start. Opening an open job again changes
// nothing.
func (l *Ledger) Open(job string, at time.Time) {
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
		return Unknown(at, at, "no start of this job was recorded")
	}
	w := l.open[i]
	end := l.instant(at)
	if end <= w.from {
		l.open = slices.Delete(l.open, i, i+1)
		l.giveBack(w)
		l.closed[job] = Unknown(w.start, at, "the window has no length")
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

// Forget drops a job, open or closed, and its account. What it has used stays
// split off.
func (l *Ledger) Forget(job string) {
	l.open = slices.DeleteFunc(l.open, func(w *window) bool { return w.job == job })
	delete(l.closed, job)
}

// giveBack makes what a window got the rest's.
func (l *Ledger) giveBack(w *window) {
	for _, z := range l.zones {
		if t := w.tallies[z.zone.ID]; t != nil {
			z.jobs -= t.share
			z.rest += t.share
		}
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
			z.settle(iv, l.open)
			done++
		}
		z.pending = slices.Delete(z.pending, 0, done)
	}
}

// settle books one interval.
func (z *zoneBook) settle(iv interval, windows []*window) {
	power := iv.span.power(z.zone.Update)
	for _, p := range split(iv, windows) {
		if p.owner == nil {
			z.rest += p.share
			continue
		}
		z.jobs += p.share
		p.owner.tally(z).take(iv, p, power)
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
func (l *Ledger) book(zone *Zone) *zoneBook {
	for _, z := range l.zones {
		if z.zone.ID == zone.ID {
			return z
		}
	}
	z := &zoneBook{zone: zone, counter: Accumulator{DefaultMaxPower: l.config.DefaultMaxPower}}
	l.zones = append(l.zones, z)
	return z
}

// instant puts a time on the ledger's clock.
func (l *Ledger) instant(t time.Time) instant {
	if !l.started {
		l.epoch, l.started = t, true
	}
	return t.Sub(l.epoch)
}

func (l *Ledger) advance(to instant) { l.latest = max(l.latest, to) }
