package energy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// source is a zone as the machine has it: it knows what was used, of which the
// ledger sees the counter only.
type source struct {
	zone     *Zone
	sampler  string
	counter  Microjoules
	sinceGap Microjoules // used since the last reading
	readable bool        // there is a reading to count from
	broken   bool        // reset since that reading
	readAt   float64     // s
	believed Microjoules // what the readings can account for
}

func (s *source) use(energy Microjoules) {
	s.sinceGap += energy
	s.counter += energy
	if s.zone.Range > 0 && s.counter >= s.zone.Range {
		s.counter -= s.zone.Range
	}
}

// reset sets the counter to where it cannot have come to by itself.
func (s *source) reset() {
	switch {
	case s.broken:
		return
	case s.zone.Range == 0:
		s.counter -= 1e12
	default:
		s.counter = (s.counter + s.zone.Range/2) % s.zone.Range
	}
	s.broken = true
}

// read is a look at the counter: what was used since the last is accounted for
// unless the counter was reset, or silent for half of its range at full power.
func (s *source) read(now float64) Reading {
	tooLong := s.zone.Range > 0 && now-s.readAt > float64(s.zone.Range)/2/1e6/float64(s.zone.MaxPower)
	if s.readable && !s.broken && !tooLong {
		s.believed += s.sinceGap
	}
	s.readable, s.broken, s.sinceGap, s.readAt = true, false, 0, now
	return Reading{Zone: s.zone, At: at(now), Counter: s.counter}
}

// Any schedule of overlapping jobs, samples of several samplers, gaps and wraps
// adds up to what was read, to the microjoule.
func TestEnergyIsConserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewLedger()
		l.settleAfter = time.Duration(rapid.IntRange(1, 5000).Draw(t, "settle after ms")) * time.Millisecond
		var sources []*source
		for i := range rapid.IntRange(1, 5).Draw(t, "zones") {
			limit := Microjoules(rapid.SampledFrom([]int64{0, 65536e6, 262144e6}).Draw(t, "range"))
			counter := limit - Microjoules(rapid.Int64Range(1, 100e6).Draw(t, "before the wrap"))
			if limit == 0 {
				counter = 1e15
			}
			sources = append(sources, &source{
				zone: &Zone{
					ID: fmt.Sprint("zone-", i), Name: fmt.Sprint("zone-", i), Source: Measured, Method: "test",
					Domain: rapid.SampledFrom([]Domain{DomainCPU, DomainDRAM, DomainGPU}).Draw(t, "domain"), Counted: true,
					Range: limit, MaxPower: 1000,
				},
				sampler: rapid.SampledFrom([]string{"rapl", "nvml"}).Draw(t, "sampler"),
				counter: counter,
			})
		}
		if rapid.Bool().Draw(t, "baselines known") {
			learned := map[string]Baseline{}
			for _, z := range sources {
				learned[z.zone.ID] = Baseline{Power: Watts(rapid.IntRange(0, 400).Draw(t, "idle watts")), Spread: 2, Seconds: 9, LearnedAt: at(0)}
			}
			l.RestoreBaselines(learned)
		}
		usage := map[string]time.Duration{}
		var busy time.Duration
		var open []string
		var accounts []Account
		now, jobs := 0.0, 0

		look := func() {
			for _, sampler := range rapid.SampledFrom([][]string{{"rapl"}, {"nvml"}, {"rapl", "nvml"}}).Draw(t, "samplers") {
				s := Sample{Sampler: sampler, At: at(now)}
				who := &Usage{Method: sampler + " use", Jobs: map[string]time.Duration{}}
				for job, used := range usage {
					if rapid.IntRange(0, 9).Draw(t, "known") > 0 {
						who.Jobs[job] = used
					}
				}
				if rapid.IntRange(0, 9).Draw(t, "all known") > 0 {
					who.Busy, who.Capacity = busy, seconds(now*8)
				}
				for _, z := range sources {
					if z.sampler != sampler {
						continue
					}
					if rapid.IntRange(0, 19).Draw(t, "fault") == 0 {
						s.Faults = append(s.Faults, Fault{z.zone, at(now), "input/output error"})
						continue
					}
					r := z.read(now)
					r.Usage = who
					if rapid.Bool().Draw(t, "second opinion") {
						other := r.Counter + Microjoules(rapid.Int64Range(-1e6, 1e6).Draw(t, "apart"))
						r.CrossCheck = &other
					}
					s.Readings = append(s.Readings, r)
				}
				l.Record(s)
			}
		}
		// A moment at which something happened that is told only now.
		told := func() time.Time {
			return at(now - float64(rapid.SampledFrom([]int{0, 0, 3, 40, 700, 9000}).Draw(t, "told late by ms"))/1000)
		}
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			wait := float64(rapid.SampledFrom([]int{1, 7, 100, 100, 1000}).Draw(t, "ms")) / 1000
			now += wait
			for _, z := range sources {
				z.use(Microjoules(rapid.Int64Range(0, int64(900e6*wait)).Draw(t, "µJ")))
				if rapid.IntRange(0, 39).Draw(t, "reset") == 0 {
					z.reset()
				}
			}
			busy += time.Duration(rapid.Int64Range(0, int64(8e9*wait)).Draw(t, "other cpu ns"))
			for _, job := range open {
				used := time.Duration(rapid.Int64Range(0, int64(8e9*wait)).Draw(t, "cpu ns"))
				usage[job] += used
				busy += used
			}
			switch rapid.SampledFrom([]string{"look", "look", "look", "look", "open", "close", "forget"}).Draw(t, "event") {
			case "look":
				look()
			case "open":
				jobs++
				job := fmt.Sprint("job-", jobs)
				open = append(open, job)
				usage[job] = 0
				l.Open(job, told())
			case "close":
				if len(open) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(open)-1).Draw(t, "job")
				accounts = append(accounts, l.Close(open[i], told()))
				withinSources(t, l.Curve(open[i]))
				l.Forget(open[i])
				delete(usage, open[i])
				open = slices.Delete(open, i, i+1)
			case "forget":
				l.Forget("stranger")
			}
			check(t, l, sources)
		}
		for _, job := range open {
			accounts = append(accounts, l.Close(job, at(now)))
		}
		l.settle(stillOpen)
		check(t, l, sources)
		compare(t, l, accounts)
	})
}

// check holds in every state: each zone's parts add up to what was believable.
func check(t *rapid.T, l *Ledger, sources []*source) {
	t.Helper()
	snapshot := l.Snapshot()
	for _, z := range snapshot.Zones {
		i := slices.IndexFunc(sources, func(s *source) bool { return s.zone.ID == z.ID })
		parts := []Microjoules{z.Jobs, z.Idle, z.Rest, z.Undivided, z.Unsettled}
		var sum Microjoules
		for _, part := range parts {
			sum += part
		}
		if z.Energy != sum || slices.Min(parts) < 0 {
			t.Fatalf("%s: %d µJ are not %d", z.ID, z.Energy, parts)
		}
		if z.Energy != sources[i].believed {
			t.Fatalf("%s: %d µJ counted, %d read", z.ID, z.Energy, sources[i].believed)
		}
	}
}

// compare holds at the end: what the jobs were told they cost is what was split
// off to jobs, and each account is fit to be believed.
func compare(t *rapid.T, l *Ledger, accounts []Account) {
	var split, told Microjoules
	for _, z := range l.zones {
		split += z.used.sum()
	}
	for _, a := range accounts {
		if (a.Total.Energy == nil) != (a.Total.Source == Unavailable) {
			t.Fatalf("energy and source disagree: %+v", a.Total)
		}
		if a.Total.Energy == nil {
			continue
		}
		told += a.Total.Energy.Microjoules()
		if *a.Total.Energy < 0 || *a.Total.Energy > *a.Machine.Energy || a.Total.CoveragePercent < 0 || a.Total.CoveragePercent > 100 || *a.Total.ErrorBound < 0 {
			t.Fatalf("not to be believed: %+v of %+v", a.Total, a.Machine)
		}
		var domains Microjoules
		for _, d := range a.Domains {
			if d.Total.Energy != nil {
				domains += d.Total.Energy.Microjoules()
			}
			addsUp(t, d)
		}
		addsUp(t, a.Breakdown)
		if domains != a.Total.Energy.Microjoules() {
			t.Fatalf("domains make %d µJ, the total is %v J", domains, *a.Total.Energy)
		}
	}
	if split != told {
		t.Fatalf("%d µJ split off to jobs, their accounts say %d", split, told)
	}
}

// withinSources: a curve divides no more than was read.
func withinSources(t *rapid.T, c *Curve) {
	t.Helper()
	for _, p := range c.Points {
		var read Microjoules
		for i, used := range p.Zones {
			if used != nil && c.Zones[i].Counted {
				read += *used
			}
		}
		if p.Job != nil && *p.Job+*p.Idle+*p.Rest > read {
			t.Fatalf("%d to %d ms: %d + %d + %d µJ of %d", p.From, p.To, *p.Job, *p.Idle, *p.Rest, read)
		}
	}
}

// addsUp: what a split consists of makes its total.
func addsUp(t *rapid.T, s Breakdown) {
	t.Helper()
	if s.Net.Energy != nil && s.Idle.Energy.Microjoules()+s.Net.Energy.Microjoules() != s.Total.Energy.Microjoules() {
		t.Fatalf("idle %v + net %v are not %v", *s.Idle.Energy, *s.Net.Energy, *s.Total.Energy)
	}
	if s.Job.Energy != nil && s.Job.Energy.Microjoules()+s.Rest.Energy.Microjoules() != s.Net.Energy.Microjoules() {
		t.Fatalf("job %v + rest %v are not %v", *s.Job.Energy, *s.Rest.Energy, *s.Net.Energy)
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
