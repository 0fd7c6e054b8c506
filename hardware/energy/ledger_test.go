package energy

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unsafe"
)

var (
	pkg  = &Zone{ID: "intel-rapl:0", Name: "package-0", Domain: DomainCPU, Counted: true, Source: Measured, Method: "rapl", Range: 262144e6, UpdateInterval: time.Millisecond}
	core = &Zone{ID: "intel-rapl:0:0", Name: "core", Domain: DomainCPU, Source: Measured, Method: "rapl", Range: 262144e6, UpdateInterval: time.Millisecond}
	dram = &Zone{ID: "intel-rapl:0:1", Name: "dram", Domain: DomainDRAM, Counted: true, Source: Measured, Method: "rapl", Range: 65536e6, UpdateInterval: time.Millisecond}
)

// sample of one sampler; counters in J by zone.
func sample(seconds float64, usage map[string]time.Duration, counters map[*Zone]float64) Sample {
	s := Sample{Sampler: "rapl", At: at(seconds)}
	for _, zone := range []*Zone{pkg, core, dram} {
		if joules, ok := counters[zone]; ok {
			s.Readings = append(s.Readings, Reading{Zone: zone, At: at(seconds), Counter: Joules(joules).Microjoules(), Usage: cpu(usage)})
		}
	}
	return s
}

// cpu is the CPU time that jobs have used, without what all others did.
func cpu(jobs map[string]time.Duration) *Usage {
	return &Usage{Method: "cpu time", Jobs: jobs}
}

// steady records a constant power of one zone, ten times a second.
func steady(l *Ledger, zone *Zone, watts, from, to float64) {
	for i := 0; ; i++ {
		now := from + float64(i)/10
		if now > to+1e-6 {
			return
		}
		l.Record(sample(now, nil, map[*Zone]float64{zone: 1000 + watts*now}))
	}
}

func joules(t *testing.T, f Figure) float64 {
	t.Helper()
	if f.Energy == nil {
		t.Fatalf("no energy: %+v", f)
	}
	return float64(*f.Energy)
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > tolerance {
		t.Errorf("%s: %v, want %v ± %v", what, got, want, tolerance)
	}
}

func TestJobAloneGetsTheMachinesEnergyOfItsWindow(t *testing.T) {
	l := NewLedger()
	for i := range 101 {
		now := float64(i) / 10
		l.Record(sample(now, nil, map[*Zone]float64{pkg: 50 * now, core: 40 * now, dram: 3 * now}))
		if i == 20 {
			l.Open("job", at(2))
		}
	}
	a := l.Close("job", at(8))
	near(t, "total", joules(t, a.Total), 6*53, 1e-6)
	near(t, "machine", joules(t, a.Machine), 6*53, 1e-6)
	near(t, "cpu", joules(t, a.Domains[DomainCPU].Total), 300, 1e-6)
	near(t, "dram", joules(t, a.Domains[DomainDRAM].Total), 18, 1e-6)
	near(t, "mean power", float64(*a.MeanPower), 53, 1e-6)
	if a.Total.Method != "rapl: package-0 + dram" || a.Total.Source != Measured || a.ShareMethod != "alone" {
		t.Errorf("provenance: %+v, %s", a.Total, a.ShareMethod)
	}
	if a.Total.CoveragePercent != 100 || a.Total.Gaps != 0 {
		t.Errorf("coverage %v, gaps %d", a.Total.CoveragePercent, a.Total.Gaps)
	}
	if len(a.Zones) != 3 || a.Zones[1].Name != "core" || a.Zones[1].Counted {
		t.Errorf("zones: %+v", a.Zones)
	}
	near(t, "core, reported and not added", joules(t, a.Zones[1].Figure), 240, 1e-6)
	if again := l.Close("job", at(9)); !again.End.Equal(a.End) {
		t.Errorf("closing again: %+v", again)
	}
	if _, ok := a.Domains[DomainPlatform]; ok || a.Duration() != 6*time.Second {
		t.Errorf("account: %+v", a)
	}
}

// FFmpeg starts before its sensors are read and the words of it come later still.
func TestEdgesLieWhereTheJobSaysWhateverTheOrderOfTheMessages(t *testing.T) {
	power := func(now float64) float64 { // 10 W, and 100 W from 1.003 to 3.004
		return 10*now + 90*max(0, min(now, 3.004)-1.003)
	}
	moments := []float64{0, 0.5, 1.0, 1.004, 1.5, 2, 2.5, 3, 3.005, 3.5, 4}
	for _, late := range []int{0, 1, 3} {
		t.Run(fmt.Sprintf("%d samples late", late), func(t *testing.T) {
			l := NewLedger()
			record := func(i int) { l.Record(sample(moments[i], nil, map[*Zone]float64{pkg: power(moments[i])})) }
			next := 0
			until := func(n int) {
				for ; next < n && next < len(moments); next++ {
					record(next)
				}
			}
			until(4 + late)
			l.Open("job", at(1.003))
			until(9 + late)
			a := l.Close("job", at(3.004))
			near(t, "energy", joules(t, a.Total), 100*2.001, float64(*a.Total.ErrorBound))
			near(t, "error bound", float64(*a.Total.ErrorBound), 100*4*0.001, 0.05)
			if a.Total.CoveragePercent != 100 {
				t.Errorf("coverage %v", a.Total.CoveragePercent)
			}
		})
	}
}

func TestEndThatIsToldTooLateLiesWithinTheErrorBound(t *testing.T) {
	l := NewLedger()
	steady(l, pkg, 50, 0, 1)
	l.Open("job", at(1))
	steady(l, pkg, 50, 1.1, 8)
	a := l.Close("job", at(3))
	near(t, "total", joules(t, a.Total), 100, float64(*a.Total.ErrorBound))
	if a.Total.CoveragePercent > 100 {
		t.Errorf("coverage %v", a.Total.CoveragePercent)
	}
}

func TestOverlapIsSharedByCPUTime(t *testing.T) {
	l := NewLedger()
	ms := time.Millisecond
	var a, b Account
	// a runs from 1 to 5 on 3 threads, b from 3 to 7 on 1; 40 W throughout.
	for i := range 81 {
		now := float64(i) / 10
		usage := map[string]time.Duration{}
		if now >= 1 && now <= 5 {
			usage["a"] = time.Duration(3*(now*1000-1000)) * ms
		}
		if now >= 3 && now <= 7 {
			usage["b"] = time.Duration(now*1000-3000) * ms
		}
		l.Record(sample(now, usage, map[*Zone]float64{pkg: 40 * now}))
		switch i {
		case 10:
			l.Open("a", at(1))
		case 30:
			l.Open("b", at(3))
		case 51:
			a = l.Close("a", at(5))
		case 71:
			b = l.Close("b", at(7))
		}
	}
	near(t, "a", joules(t, a.Total), 2*40+2*30, 1e-4)
	near(t, "b", joules(t, b.Total), 2*10+2*40, 1e-4)
	near(t, "machine in a's window", joules(t, a.Machine), 160, 1e-6)
	if a.ShareMethod != "cpu time" || b.ShareMethod != "cpu time" {
		t.Errorf("share methods %q, %q", a.ShareMethod, b.ShareMethod)
	}
}

func TestOverlapWithUnknownCPUTimesIsSharedEqually(t *testing.T) {
	second := time.Second
	for name, usages := range map[string][2]map[string]time.Duration{
		"no usage at all":        {nil, nil},
		"nobody used any":        {{"a": second, "b": second}, {"a": second, "b": second}},
		"one is not known":       {{"a": second, "b": second}, {"a": 2 * second}},
		"one went back":          {{"a": second, "b": second}, {"a": 2 * second, "b": 0}},
		"one is beyond anything": {{"a": second, "b": second}, {"a": 2 * second, "b": math.MaxInt64}},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			l.Open("a", at(-1))
			l.Open("b", at(-1))
			l.Record(sample(0, usages[0], map[*Zone]float64{pkg: 0}))
			l.Record(sample(1, usages[1], map[*Zone]float64{pkg: 40}))
			a, b := l.Close("a", at(1)), l.Close("b", at(1))
			near(t, "a", joules(t, a.Total), 20, 1e-6)
			near(t, "b", joules(t, b.Total), 20, 1e-6)
			if a.ShareMethod != "equal" {
				t.Errorf("share method %q", a.ShareMethod)
			}
			// Either may have used all of it or nothing; of the machine that leaves nothing open.
			for what, f := range map[string]Figure{"total": a.Total, "cpu": a.Domains[DomainCPU].Total} {
				if *f.ErrorBound < 20 || *f.ErrorBound > 21 {
					t.Errorf("error bound of the %s %v J", what, *f.ErrorBound)
				}
			}
			if *a.Machine.ErrorBound > 1 {
				t.Errorf("error bound of the machine %v J", *a.Machine.ErrorBound)
			}
		})
	}
}

func TestMixedSharesSayTheirParts(t *testing.T) {
	l := NewLedger()
	l.Open("a", at(0))
	l.Open("b", at(0))
	l.Record(sample(0, map[string]time.Duration{}, map[*Zone]float64{pkg: 0}))
	l.Record(sample(3, map[string]time.Duration{"a": 2 * time.Second, "b": time.Second}, map[*Zone]float64{pkg: 90}))
	l.Record(sample(4, nil, map[*Zone]float64{pkg: 120}))
	a := l.Close("a", at(4))
	near(t, "a", joules(t, a.Total), 60+15, 1e-4)
	if a.ShareMethod != "cpu time 75.0 %, equal 25.0 %" {
		t.Errorf("share method %q", a.ShareMethod)
	}
}

func TestUnknownIsNeverZero(t *testing.T) {
	gone := func(l *Ledger, seconds float64) {
		l.Record(Sample{Sampler: "rapl", At: at(seconds), Faults: []Fault{{pkg, at(seconds), "input/output error"}}})
	}
	tests := []struct {
		name string
		run  func(l *Ledger)
		why  string
	}{
		{"no sensor", func(l *Ledger) {}, "no sensor"},
		{"one reading only", func(l *Ledger) { steady(l, pkg, 50, 2, 2) }, "no reading"},
		{"only before the window", func(l *Ledger) { steady(l, pkg, 50, 0, 1) }, "no reading"},
		{"only faults", func(l *Ledger) { gone(l, 1); gone(l, 3) }, "package-0: input/output error"},
		{"nothing that counts", func(l *Ledger) { steady(l, core, 50, 0, 9) }, "no sensor that counts"},
		{"a counter that does not move", func(l *Ledger) { steady(l, pkg, 0, 0, 9) }, "does not move"},
		{"a counter that does not move, read twice", func(l *Ledger) { steady(l, pkg, 0, 2, 2.1) }, "does not move"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := NewLedger()
			l.Open("job", at(1))
			test.run(l)
			a := l.Close("job", at(4))
			if a.Total.Source != Unavailable || a.Total.Energy != nil || a.Total.ErrorBound != nil || a.MeanPower != nil || a.Total.CoveragePercent != 0 {
				t.Errorf("total %+v, mean power %v", a.Total, a.MeanPower)
			}
			if !strings.Contains(a.Total.Method, test.why) || a.ShareMethod != "none" {
				t.Errorf("method %q, want %q in it; share method %q", a.Total.Method, test.why, a.ShareMethod)
			}
			text, err := json.Marshal(a)
			if err != nil || strings.Contains(string(text), `"joules":`+`0`) {
				t.Errorf("as JSON: %s, %v", text, err)
			}
		})
	}
}

// A counter that has not moved has no power yet, and one that never does has none; neither
// is 0 W, nor has a job used 0 J by it.
func TestPowerOfACounterThatDoesNotMove(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	expect := func(when string, watts float64) {
		t.Helper()
		s := l.Snapshot()
		job, _ := s.Job("job")
		_, source, known := s.Power()
		if watts == 0 {
			if s.Zones[0].Power != nil || known || source != Unavailable {
				t.Errorf("%s: zone %v, total by %s", when, s.Zones[0].Power, source)
			}
			return
		}
		if s.Zones[0].Power == nil || job.Energy == nil {
			t.Fatalf("%s: zone %v, job %+v", when, s.Zones[0].Power, job)
		}
		near(t, when, float64(*s.Zones[0].Power), watts, 1e-6)
	}
	read := func(seconds, joules float64) { l.Record(sample(seconds, nil, map[*Zone]float64{pkg: joules})) }
	read(0, 1000)
	read(0.1, 1000)
	expect("not renewed yet", 0)
	if job, _ := l.Snapshot().Job("job"); job.Energy != nil || job.Power != nil || job.Source != Unavailable {
		t.Errorf("the job used %+v", job)
	}
	read(0.2, 1010)
	expect("renewed", 50)
	read(0.3, 1010)
	expect("still from before", 50)
	for i := range 12 {
		read(0.4+float64(i)/10, 1010)
	}
	expect("stuck", 0)
}

// A window too short for a sensor to be renewed in it says that it does not know.
func TestWindowShorterThanTheSensorsUpdate(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	for i := range 4 {
		l.Record(sample(float64(i)/10, nil, map[*Zone]float64{pkg: 5 * float64(i), dram: 7}))
	}
	a := l.Close("job", at(0.3))
	near(t, "total", joules(t, a.Total), 15, 1e-6)
	if a.Total.CoveragePercent != 0 || !strings.Contains(a.Total.Method, "without dram: the counter does not move") {
		t.Errorf("%+v", a.Total)
	}
}

func TestWindowsThatWereNeverOpenedOrHaveNoLength(t *testing.T) {
	l := NewLedger()
	steady(l, pkg, 50, 0, 5)
	if a := l.Close("stranger", at(2)); a.Total.Source != Unavailable || !strings.Contains(a.Total.Method, "no start") {
		t.Errorf("never opened: %+v", a.Total)
	}
	l.Open("job", at(3))
	if a := l.Close("job", at(3)); a.Total.Source != Unavailable || !strings.Contains(a.Total.Method, "no length") {
		t.Errorf("no length: %+v", a.Total)
	}
	if jobs := l.Snapshot().Jobs; len(jobs) != 0 {
		t.Errorf("still open: %+v", jobs)
	}
}

func TestOpenIsIdempotentAndForgetForgets(t *testing.T) {
	l := NewLedger()
	steady(l, pkg, 50, 0, 1)
	l.Open("job", at(1))
	steady(l, pkg, 50, 1.1, 2)
	l.Open("job", at(2))
	a := l.Close("job", at(2))
	near(t, "total", joules(t, a.Total), 50, 1e-6)
	l.Forget("job")
	if again := l.Close("job", at(2)); again.Total.Source != Unavailable {
		t.Errorf("after Forget: %+v", again)
	}
	l.Open("job", at(2))
	l.Forget("job")
	if jobs := l.Snapshot().Jobs; len(jobs) != 0 {
		t.Errorf("forgotten and still open: %+v", jobs)
	}
}

func TestGapsAreCountedAndLowerTheCoverage(t *testing.T) {
	l := NewLedger()
	steady(l, pkg, 50, 0, 2)
	l.Open("job", at(2))
	l.Open("other", at(2))
	steady(l, pkg, 50, 2.1, 4)
	// The driver is loaded again a second later: the counter starts anew.
	for i := range 51 {
		now := 5 + float64(i)/10
		l.Record(sample(now, nil, map[*Zone]float64{pkg: 5 * float64(i)}))
		if i == 2 {
			l.Close("other", at(4.5)) // cuts the gap in two, which is still one
		}
	}
	a := l.Close("job", at(10))
	near(t, "coverage", a.Total.CoveragePercent, 100*7.0/8, 1e-6)
	if a.Total.Gaps != 1 {
		t.Errorf("%d gaps", a.Total.Gaps)
	}
	// 2 s shared equally while both ran, then 5 s alone.
	near(t, "total", joules(t, a.Total), 50+250, 1e-4)
}

func TestZoneThatVanishesInAJobIsAGapToTheEnd(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	for i := range 41 {
		now := float64(i) / 10
		s := sample(now, nil, map[*Zone]float64{pkg: 50 * now})
		if now < 1.05 {
			s.Readings = append(s.Readings, Reading{Zone: dram, At: at(now), Counter: Joules(4 * now).Microjoules()})
		} else {
			s.Faults = []Fault{{dram, at(now), "no such device"}}
		}
		l.Record(s)
	}
	if z := l.Snapshot().Zones[1]; z.Healthy() || z.Fault != "no such device" || z.Faults != 30 {
		t.Errorf("zone: %+v", z)
	}
	a := l.Close("job", at(4))
	near(t, "total", joules(t, a.Total), 204, 1e-6)
	near(t, "coverage", a.Total.CoveragePercent, 25, 1e-6)
	if d := a.Domains[DomainDRAM].Total; d.Gaps != 1 || a.Total.Gaps != 1 {
		t.Errorf("dram %+v, gaps of the total %d", d, a.Total.Gaps)
	}
	// The next job has none of dram, and says so.
	l.Open("next", at(4))
	l.Record(sample(5, nil, map[*Zone]float64{pkg: 250}))
	next := l.Close("next", at(5))
	near(t, "next", joules(t, next.Total), 50, 1e-6)
	if next.Total.CoveragePercent != 0 || !strings.Contains(next.Total.Method, "without dram: no such device") {
		t.Errorf("next: %+v", next.Total)
	}
	if d := next.Domains[DomainDRAM].Total; d.Source != Unavailable || d.Energy != nil {
		t.Errorf("dram of next: %+v", d)
	}
}

func TestMissedReadThatIsMadeUpForIsNoGap(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	l.Record(sample(0, nil, map[*Zone]float64{pkg: 0}))
	l.Record(Sample{Sampler: "rapl", At: at(1), Faults: []Fault{{pkg, at(1), "interrupted"}}})
	l.Record(sample(2, nil, map[*Zone]float64{pkg: 100}))
	a := l.Close("job", at(2))
	near(t, "total", joules(t, a.Total), 100, 1e-6)
	if a.Total.Gaps != 0 || a.Total.CoveragePercent != 100 {
		t.Errorf("%+v", a.Total)
	}
}

func TestEstimatesStayEstimates(t *testing.T) {
	guess := &Zone{ID: "estimate:cpu", Name: "cpu", Domain: DomainCPU, Counted: true, Source: Estimated, Method: "estimate", Model: "P = 2 + 8u W", Uncertainty: 0.5}
	card := &Zone{ID: "GPU-1", Name: "card", Domain: DomainGPU, Counted: true, Source: Measured, Method: "nvml"}
	l := NewLedger()
	l.Open("job", at(0))
	for _, now := range []float64{0, 1, 2} {
		l.Record(Sample{Sampler: "estimate", At: at(now), Readings: []Reading{{Zone: guess, At: at(now), Counter: Microjoules(now * 10e6)}}})
		l.Record(Sample{Sampler: "nvml", At: at(now), Readings: []Reading{{Zone: card, At: at(now), Counter: Microjoules(now * 30e6)}}})
	}
	power, source, ok := l.Snapshot().Power()
	if !ok || source != Estimated || power != 40 {
		t.Errorf("power now %v %v %v", power, source, ok)
	}
	a := l.Close("job", at(2))
	if a.Total.Source != Estimated || a.Domains[DomainGPU].Total.Source != Measured {
		t.Errorf("sources: %+v", a)
	}
	if a.Total.Method != "estimate (P = 2 + 8u W): cpu; nvml: card" {
		t.Errorf("method %q", a.Total.Method)
	}
	near(t, "bound", float64(*a.Total.ErrorBound), 10, 1e-6)
}

func TestSnapshotTellsWhatJobsUsedSoFar(t *testing.T) {
	l := NewLedger()
	steady(l, pkg, 50, 0, 1)
	l.Open("job", at(1))
	if j, ok := l.Snapshot().Job("job"); !ok || j.Energy != nil || j.Power != nil || j.Source != Unavailable {
		t.Errorf("before the first reading: %+v", j)
	}
	steady(l, pkg, 50, 1.1, 9)
	s := l.Snapshot()
	j, _ := s.Job("job")
	near(t, "energy so far", float64(*j.Energy), 400, 1e-6)
	near(t, "watts", float64(*j.Power), 50, 1e-6)
	near(t, "power of the zone", float64(*s.Zones[0].Power), 50, 1e-6)
	if z := s.Zones[0]; z.Energy != 450e6 || z.Energy != z.Undivided+z.Unsettled || !z.Healthy() || !z.LastReading.Equal(at(9)) {
		t.Errorf("zone %+v", z)
	}
	if last := s.Samplers["rapl"].At; !last.Equal(at(9)) {
		t.Errorf("the sampler's last sample is of %v", last)
	}
	l.Record(sample(9.1, nil, map[*Zone]float64{pkg: 0.001}))
	if z := l.Snapshot().Zones[0]; z.Power != nil || z.Gaps != 1 {
		t.Errorf("after a reset: %+v", z)
	}
	if s.Zones[0].Gaps != 0 {
		t.Error("an older snapshot changed")
	}
	text, err := json.Marshal(s.Zones[0])
	if want := `{"id":"intel-rapl:0","name":"package-0","domain":"cpu","counted":true,"source":"measured","method":"rapl",`; err != nil || !strings.HasPrefix(string(text), want) {
		t.Errorf("as JSON: %s, %v", text, err)
	}
}

// setClock is a time as it would have been taken had somebody set the wall clock
// forward just before: the monotonic clock in it goes on as it was. Seconds of
// the wall clock lie from bit 30 of a Time's first word.
func setClock(t *testing.T, moment time.Time, forward time.Duration) time.Time {
	t.Helper()
	set := moment
	*(*uint64)(unsafe.Pointer(&set)) += uint64(forward/time.Second) << 30
	if set.Sub(moment) != 0 || set.Round(0).Sub(moment.Round(0)) != forward {
		t.Fatalf("%v is not %v with another wall clock", set, moment)
	}
	return set
}

func TestStepOfTheWallClockDoesNotMatter(t *testing.T) {
	base := time.Now()
	l := NewLedger()
	l.Open("job", base)
	for i := range 41 {
		now := base.Add(time.Duration(i) * 100 * time.Millisecond)
		if i > 20 {
			now = setClock(t, now, time.Hour)
		}
		l.Record(Sample{At: now, Readings: []Reading{{Zone: pkg, At: now, Counter: Microjoules(i) * 5e6}}})
	}
	a := l.Close("job", setClock(t, base.Add(4*time.Second), time.Hour))
	near(t, "total", joules(t, a.Total), 200, 1e-6)
	if a.Total.Gaps != 0 || a.Total.CoveragePercent != 100 || a.Duration() != 4*time.Second {
		t.Errorf("%+v over %v", a.Total, a.Duration())
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, jobs := range []int{0, 1, 4} {
		b.Run(fmt.Sprintf("6 zones, %d jobs", jobs), func(b *testing.B) {
			l := NewLedger()
			usage := map[string]time.Duration{}
			for j := range jobs {
				l.Open(fmt.Sprint(j), t0)
				usage[fmt.Sprint(j)] = 0
			}
			zones := make([]*Zone, 6)
			for i := range zones {
				zone := *pkg
				zone.ID = fmt.Sprint(i)
				zones[i] = &zone
			}
			b.ReportAllocs()
			for i := range b.N {
				now := t0.Add(time.Duration(i) * 100 * time.Millisecond)
				s := Sample{Sampler: "rapl", At: now}
				who := &Usage{Method: "cpu time", Jobs: usage, Busy: time.Duration(i), Capacity: time.Duration(2 * i)}
				for _, zone := range zones {
					s.Readings = append(s.Readings, Reading{Zone: zone, At: now, Counter: Microjoules(int64(i) * 5e6 % 262144e6), Usage: who})
				}
				l.Record(s)
				l.Snapshot()
			}
		})
	}
}

// A reading's own doubt takes the place of the zone's, and is shared as the energy is.
func TestDoubtOfTheReadingsIsTheBound(t *testing.T) {
	zone := *pkg
	zone.Uncertainty = 1
	l := NewLedger()
	for i := range 101 {
		now := float64(i) / 10
		doubt := Joules(5 * now).Microjoules()
		used := cpu(map[string]time.Duration{"a": seconds(now), "b": seconds(now)})
		l.Record(Sample{At: at(now), Readings: []Reading{{Zone: &zone, At: at(now), Counter: Joules(50 * now).Microjoules(), ErrorBound: &doubt, Usage: used}}})
		if i == 20 {
			l.Open("a", at(2))
			l.Open("b", at(2))
		}
	}
	a := l.Close("a", at(8))
	edge := 50 * 4 * 0.001
	near(t, "machine", float64(*a.Machine.ErrorBound), 30+edge, 0.3)
	near(t, "share", float64(*a.Total.ErrorBound), 15+edge, 0.3)
}

// Sensors that took the place of others leave nothing of them in later figures.
func TestSensorsThatWereReplacedCountNoMore(t *testing.T) {
	guess := &Zone{ID: "estimate:cpu", Name: "cpu", Domain: DomainCPU, Counted: true, Source: Estimated, Method: "estimate"}
	l := NewLedger()
	l.SetZones("rapl", []*Zone{pkg})
	steady(l, pkg, 50, 0, 5)
	l.Record(Sample{Sampler: "rapl", At: at(5.1), Faults: []Fault{{Zone: pkg, At: at(5.1), Err: "no such file"}}})
	l.SetZones("rapl", []*Zone{guess})
	l.Open("job", at(6))
	for i := 60; i <= 100; i++ {
		now := float64(i) / 10
		l.Record(Sample{Sampler: "rapl", At: at(now), Readings: []Reading{{Zone: guess, At: at(now), Counter: Joules(10 * now).Microjoules()}}})
	}
	a := l.Close("job", at(9))
	near(t, "total", joules(t, a.Total), 30, 1e-3)
	if a.Total.CoveragePercent != 100 || a.Total.Method != "estimate: cpu" || len(a.Zones) != 1 {
		t.Errorf("%+v, zones %+v", a.Total, a.Zones)
	}
	if zones := l.Snapshot().Zones; len(zones) != 1 || zones[0].ID != guess.ID {
		t.Errorf("snapshot of %d zones", len(zones))
	}
	steady(l, pkg, 50, 10, 11)
	if zones := l.Snapshot().Zones; len(zones) != 2 {
		t.Errorf("%d zones with the old ones back", len(zones))
	}
}

// What a zone read while it did not count stays out of the totals when it counts again.
func TestZoneThatCountsAgainBringsNothingOfBefore(t *testing.T) {
	guess := &Zone{ID: "estimate:cpu", Name: "cpu", Domain: DomainCPU, Counted: true, Source: Estimated, Method: "estimate"}
	retired := *guess
	retired.Counted = false
	l := NewLedger()
	l.Open("job", at(0))
	estimated := func(zone *Zone, from, to float64) {
		for now := from; now <= to; now++ {
			l.Record(Sample{At: at(now), Readings: []Reading{{Zone: zone, At: at(now), Counter: Joules(10 * (now - from)).Microjoules()}}})
		}
	}
	steady(l, pkg, 50, 0, 10)
	estimated(guess, 11, 19)
	l.Record(Sample{At: at(20), Faults: []Fault{{Zone: &retired, At: at(20), Err: "rapl has come"}}})
	steady(l, pkg, 50, 20, 30) // the counter went on: it has all of those 30 s
	estimated(guess, 31, 40)
	c := l.Curve("job")
	a := l.Close("job", at(40))
	near(t, "total", joules(t, a.Total), 30*50+9*10, 1e-3)
	for i, z := range c.Zones {
		if z.ID == guess.ID {
			near(t, "drawn", float64(sumOf(c, i).Joules()), 9*10, 1e-3)
		}
	}
}

// A counter that stands still while its card's power is told is broken, and no sensor that
// never counts.
func TestCounterThatStandsStillAgainstItsSecondOpinion(t *testing.T) {
	card := &Zone{ID: "GPU-1", Name: "gpu0", Domain: DomainGPU, Counted: true, Source: Measured, Method: "nvml"}
	for _, watts := range []float64{0, 70} {
		l := NewLedger()
		l.Open("job", at(0))
		for i := range 41 {
			now := float64(i) / 10
			cross := Joules(watts * now).Microjoules()
			l.Record(sample(now, nil, map[*Zone]float64{pkg: 50 * now}))
			l.Record(Sample{Sampler: "nvml", At: at(now), Readings: []Reading{{Zone: card, At: at(now), Counter: 12345, CrossCheck: &cross}}})
		}
		a := l.Close("job", at(4))
		near(t, "total", joules(t, a.Total), 200, 1e-6)
		percent, why := 100.0, "without gpu0: the counter does not move"
		if watts > 0 {
			percent, why = 0, why+", and its power, integrated, is 280 J"
		}
		if a.Total.CoveragePercent != percent || !strings.HasSuffix(a.Total.Method, why) {
			t.Errorf("%v W: %+v", watts, a.Total)
		}
	}
}

// A zone that never gave a reading is missing from the total as one that has failed is.
func TestZoneThatWasNeverReadLowersTheCoverage(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	for i := range 11 {
		s := sample(float64(i)/10, nil, map[*Zone]float64{pkg: float64(i)})
		s.Faults = []Fault{{dram, s.At, "input/output error"}}
		l.Record(s)
	}
	a := l.Close("job", at(1))
	near(t, "total", joules(t, a.Total), 10, 1e-6)
	if a.Total.CoveragePercent != 0 || !strings.Contains(a.Total.Method, "without dram: input/output error") {
		t.Errorf("%+v", a.Total)
	}
}

// A card tells who uses it once a second, and is read ten times as often: what is told
// holds for all of the second, and for the moment after it that a job ends in.
func TestUseThatIsToldSeldomHoldsForAllOfItsTime(t *testing.T) {
	card := &Zone{ID: "GPU-1", Name: "gpu0", Domain: DomainGPU, Counted: true, Source: Measured, Method: "nvml"}
	l := NewLedger()
	l.RestoreBaselines(map[string]Baseline{card.ID: {Power: 20, LearnedAt: at(0)}})
	for i := range 95 {
		now := float64(i) / 10
		r := Reading{Zone: card, At: at(now), Counter: Joules(100 * now).Microjoules()}
		if i%10 == 0 {
			r.Usage = &Usage{Method: "gpu use", Jobs: map[string]time.Duration{}, Busy: seconds(max(0, now-1) * 0.8), Capacity: seconds(now)}
			if now >= 1 {
				r.Usage.Jobs["a"], r.Usage.Jobs["b"] = seconds((now-1)*0.6), seconds((now-1)*0.1)
			}
		}
		l.Record(Sample{Sampler: "nvml", At: at(now), Readings: []Reading{r}})
		if i == 10 {
			l.Open("a", at(1))
			l.Open("b", at(1))
		}
	}
	a, b := l.Close("a", at(9.4)), l.Close("b", at(9.4))
	near(t, "a", joules(t, a.Job), 8.4*80*0.6/0.8, 1)
	near(t, "b", joules(t, b.Job), 8.4*80*0.1/0.8, 1)
	near(t, "rest", joules(t, a.Rest)+joules(t, b.Rest), 8.4*80*0.1/0.8, 1)
	if a.ShareMethod != "gpu use" {
		t.Errorf("share method %q", a.ShareMethod)
	}
}
