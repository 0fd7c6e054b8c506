package energy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// source is a zone with its true energy. The ledger is given only the counter.
type source struct {
	zone     *Zone
	sampler  string
	counter  Microjoules
	readAt   float64     // s
	read     bool        // there is a reading to count from
	reset    bool        // since that reading
	pending  Microjoules // used since that reading
	readable Microjoules // used in all deltas that are no gaps
}

func (s *source) use(energy Microjoules) {
	s.pending += energy
	s.counter += energy
	if s.zone.Range > 0 && s.counter >= s.zone.Range {
		s.counter -= s.zone.Range
	}
}

// breakCounter sets the counter to an implausible value.
func (s *source) breakCounter() {
	switch {
	case s.reset:
		return
	case s.zone.Range == 0:
		s.counter -= 1e12
	default:
		s.counter = (s.counter + s.zone.Range/2) % s.zone.Range
	}
	s.reset = true
}

// take returns a reading. The energy since the previous one is lost if the counter was reset, or
// was not read for the time in which it passes half of its range at full power.
func (s *source) take(now float64) Reading {
	tooLong := s.zone.Range > 0 && now-s.readAt > float64(s.zone.Range)/2/1e6/float64(s.zone.MaxPower)
	if s.read && !s.reset && !tooLong {
		s.readable += s.pending
	}
	s.read, s.reset, s.pending, s.readAt = true, false, 0, now
	return Reading{Zone: s.zone, At: at(now), Counter: s.counter}
}

// With any schedule of overlapping jobs, samples of several samplers, gaps and wraps, the parts
// add up to the energy read, to the microjoule.
func TestEnergyIsConserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewLedger()
		l.settleDelay = time.Duration(rapid.IntRange(1, 5000).Draw(t, "settle delay ms")) * time.Millisecond
		var sources []*source
		for i := range rapid.IntRange(1, 5).Draw(t, "zones") {
			counterRange := Microjoules(rapid.SampledFrom([]int64{0, 65536e6, 262144e6}).Draw(t, "range"))
			counter := counterRange - Microjoules(rapid.Int64Range(1, 100e6).Draw(t, "before the wrap"))
			if counterRange == 0 {
				counter = 1e15
			}
			sources = append(sources, &source{
				zone: &Zone{
					ID: fmt.Sprint("zone-", i), Name: fmt.Sprint("zone-", i), Source: Measured, Method: "test",
					Domain: rapid.SampledFrom([]Domain{DomainCPU, DomainDRAM, DomainGPU}).Draw(t, "domain"), Counted: true,
					Range: counterRange, MaxPower: 1000,
				},
				sampler: rapid.SampledFrom([]string{"rapl", "nvml"}).Draw(t, "sampler"),
				counter: counter,
			})
		}
		if rapid.Bool().Draw(t, "baselines known") {
			learned := map[string]Baseline{}
			for _, s := range sources {
				learned[s.zone.ID] = Baseline{Power: Watts(rapid.IntRange(0, 400).Draw(t, "idle watts")), Spread: 2, Seconds: 9, LearnedAt: at(0)}
			}
			l.RestoreBaselines(learned)
		}
		used := map[string]time.Duration{}
		var busy time.Duration
		var open []string
		var accounts []Account
		now, jobs := 0.0, 0

		takeSample := func() {
			for _, sampler := range rapid.SampledFrom([][]string{{"rapl"}, {"nvml"}, {"rapl", "nvml"}}).Draw(t, "samplers") {
				s := Sample{Sampler: sampler, At: at(now)}
				usage := &Usage{Method: sampler + " use", Jobs: map[string]time.Duration{}}
				for job, used := range used {
					if rapid.IntRange(0, 9).Draw(t, "known") > 0 {
						usage.Jobs[job] = used
					}
				}
				if rapid.IntRange(0, 9).Draw(t, "all known") > 0 {
					usage.Busy, usage.Capacity = busy, seconds(now*8)
				}
				for _, source := range sources {
					if source.sampler != sampler {
						continue
					}
					if rapid.IntRange(0, 19).Draw(t, "fault") == 0 {
						s.Faults = append(s.Faults, Fault{source.zone, at(now), "input/output error"})
						continue
					}
					r := source.take(now)
					r.Usage = usage
					if rapid.Bool().Draw(t, "cross-check") {
						r.CrossCheck = of(r.Counter + Microjoules(rapid.Int64Range(-1e6, 1e6).Draw(t, "difference")))
					}
					s.Readings = append(s.Readings, r)
				}
				l.Record(s)
			}
		}
		// A moment that is reported late.
		late := func() time.Time {
			return at(now - float64(rapid.SampledFrom([]int{0, 0, 3, 40, 700, 9000}).Draw(t, "late by ms"))/1000)
		}
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			wait := float64(rapid.SampledFrom([]int{1, 7, 100, 100, 1000}).Draw(t, "ms")) / 1000
			now += wait
			for _, s := range sources {
				s.use(Microjoules(rapid.Int64Range(0, int64(900e6*wait)).Draw(t, "µJ")))
				if rapid.IntRange(0, 39).Draw(t, "reset") == 0 {
					s.breakCounter()
				}
			}
			busy += time.Duration(rapid.Int64Range(0, int64(8e9*wait)).Draw(t, "other cpu ns"))
			for _, job := range open {
				ran := time.Duration(rapid.Int64Range(0, int64(8e9*wait)).Draw(t, "cpu ns"))
				used[job] += ran
				busy += ran
			}
			switch rapid.SampledFrom([]string{"sample", "sample", "sample", "sample", "open", "close", "forget"}).Draw(t, "event") {
			case "sample":
				takeSample()
			case "open":
				jobs++
				job := fmt.Sprint("job-", jobs)
				open = append(open, job)
				used[job] = 0
				l.Open(job, late())
			case "close":
				if len(open) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(open)-1).Draw(t, "job")
				accounts = append(accounts, l.Close(open[i], late()))
				checkCurve(t, l.Curve(open[i]))
				l.Forget(open[i])
				delete(used, open[i])
				open = slices.Delete(open, i, i+1)
			case "forget":
				l.Forget("stranger")
			}
			checkZones(t, l, sources)
		}
		for _, job := range open {
			accounts = append(accounts, l.Close(job, at(now)))
		}
		l.settle(stillOpen)
		checkZones(t, l, sources)
		checkAccounts(t, l, accounts)
	})
}

// checkZones checks, in any state, that the parts of each zone add up to the energy that could be
// read.
func checkZones(t *rapid.T, l *Ledger, sources []*source) {
	t.Helper()
	for _, z := range l.Snapshot().Zones {
		i := slices.IndexFunc(sources, func(s *source) bool { return s.zone.ID == z.ID })
		parts := []Microjoules{z.Jobs, z.Idle, z.Rest, z.Undivided, z.Unsettled}
		var sum Microjoules
		for _, part := range parts {
			sum += part
		}
		if z.Energy != sum || slices.Min(parts) < 0 {
			t.Fatalf("%s: got %d µJ in parts %d", z.ID, z.Energy, parts)
		}
		if z.Energy != sources[i].readable {
			t.Fatalf("%s: got %d µJ, want %d", z.ID, z.Energy, sources[i].readable)
		}
	}
}

// checkAccounts checks, at the end, that the jobs' totals add up to the energy attributed to
// windows, and that each account is consistent.
func checkAccounts(t *rapid.T, l *Ledger, accounts []Account) {
	t.Helper()
	var attributed, totals Microjoules
	for _, z := range l.zones {
		attributed += z.used.total()
	}
	for _, a := range accounts {
		if (a.Total.Energy == nil) != (a.Total.Source == Unavailable) {
			t.Fatalf("energy and source disagree: %+v", a.Total)
		}
		if a.Total.Energy == nil {
			continue
		}
		totals += a.Total.Energy.Microjoules()
		if *a.Total.Energy < 0 || *a.Total.Energy > *a.Machine.Energy || a.Total.CoveragePercent < 0 || a.Total.CoveragePercent > 100 || *a.Total.ErrorBound < 0 {
			t.Fatalf("got %+v of %+v", a.Total, a.Machine)
		}
		var domains Microjoules
		for _, d := range a.Domains {
			if d.Total.Energy != nil {
				domains += d.Total.Energy.Microjoules()
			}
			checkBreakdown(t, d)
		}
		checkBreakdown(t, a.Breakdown)
		if domains != a.Total.Energy.Microjoules() {
			t.Fatalf("domains add up to %d µJ, total is %v J", domains, *a.Total.Energy)
		}
	}
	if attributed != totals {
		t.Fatalf("%d µJ were attributed to windows, their totals are %d", attributed, totals)
	}
}

func checkBreakdown(t *rapid.T, b Breakdown) {
	t.Helper()
	if b.Net.Energy != nil && b.Idle.Energy.Microjoules()+b.Net.Energy.Microjoules() != b.Total.Energy.Microjoules() {
		t.Fatalf("idle %v + net %v, total %v", *b.Idle.Energy, *b.Net.Energy, *b.Total.Energy)
	}
	if b.Job.Energy != nil && b.Job.Energy.Microjoules()+b.Rest.Energy.Microjoules() != b.Net.Energy.Microjoules() {
		t.Fatalf("job %v + rest %v, net %v", *b.Job.Energy, *b.Rest.Energy, *b.Net.Energy)
	}
}

// checkCurve checks that a curve does not divide more energy than was read.
func checkCurve(t *rapid.T, c *Curve) {
	t.Helper()
	for _, p := range c.Points {
		var read Microjoules
		for i, energy := range p.Zones {
			if energy != nil && c.Zones[i].Counted {
				read += *energy
			}
		}
		if p.Job != nil && *p.Job+*p.Idle+*p.Rest > read {
			t.Fatalf("%d to %d ms: got %d + %d + %d µJ of %d", p.From, p.To, *p.Job, *p.Idle, *p.Rest, read)
		}
	}
}
