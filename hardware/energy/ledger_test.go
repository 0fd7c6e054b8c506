package energy

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"
)

func TestWindowIsCutFromTheSteps(t *testing.T) {
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
		t.Errorf("got %+v, shared %q", a.Total, a.ShareMethod)
	}
	if a.Total.CoveragePercent != 100 || a.Total.Gaps != 0 {
		t.Errorf("got coverage %v %% and %d gaps, want 100 and 0", a.Total.CoveragePercent, a.Total.Gaps)
	}
	if len(a.Zones) != 3 || a.Zones[1].Name != "core" || a.Zones[1].Counted {
		t.Errorf("got zones %+v, want three with core not counted", a.Zones)
	}
	near(t, "core", joules(t, a.Zones[1].Figure), 240, 1e-6)
	if again := l.Close("job", at(9)); !again.End.Equal(a.End) {
		t.Errorf("closed again: got end %v, want %v", again.End, a.End)
	}
	if _, ok := a.Domains[DomainPlatform]; ok || a.Duration() != 6*time.Second {
		t.Errorf("got domains %v over %v, want cpu and dram over 6s", a.Domains, a.Duration())
	}
}

// FFmpeg starts before the sensors are read, and both are reported even later.
func TestOrderOfMessagesDoesNotMoveEdges(t *testing.T) {
	energy := func(now float64) float64 { // 10 W, and 100 W from 1.003 to 3.004
		return 10*now + 90*max(0, min(now, 3.004)-1.003)
	}
	moments := []float64{0, 0.5, 1.0, 1.004, 1.5, 2, 2.5, 3, 3.005, 3.5, 4}
	for _, late := range []int{0, 1, 3} {
		t.Run(fmt.Sprintf("%d samples late", late), func(t *testing.T) {
			l := NewLedger()
			next := 0
			recordUntil := func(n int) {
				for ; next < n && next < len(moments); next++ {
					record(l, moments[next], reading(pkg, moments[next], energy(moments[next])))
				}
			}
			recordUntil(4 + late)
			l.Open("job", at(1.003))
			recordUntil(9 + late)
			a := l.Close("job", at(3.004))
			near(t, "energy", joules(t, a.Total), 100*2.001, float64(*a.Total.ErrorBound))
			near(t, "error bound", float64(*a.Total.ErrorBound), 100*4*0.001, 0.05)
			if a.Total.CoveragePercent != 100 {
				t.Errorf("got coverage %v %%, want 100", a.Total.CoveragePercent)
			}
		})
	}
}

func TestLateCloseIsWithinTheErrorBound(t *testing.T) {
	l := NewLedger()
	steady(l, pkg, 50, 0, 1)
	l.Open("job", at(1))
	steady(l, pkg, 50, 1.1, 8)
	a := l.Close("job", at(3))
	if off := joules(t, a.Total) - 100; off < 100 || off > float64(*a.Total.ErrorBound) {
		t.Errorf("got %v J too much, bound %v; want what was settled by 6 s within the bound", off, *a.Total.ErrorBound)
	}
	if a.Total.CoveragePercent != 100 {
		t.Errorf("got coverage %v %%, want 100", a.Total.CoveragePercent)
	}
}

// A step is settled two seconds after its end, not before: a job may still begin in it.
func TestStepsStayPendingForTheSettleDelay(t *testing.T) {
	for _, test := range []struct{ opened, want float64 }{{2.9, 50}, {3, 50}, {3.1, 45}} {
		l := NewLedger()
		steady(l, pkg, 50, 0, test.opened)
		l.Open("job", at(1))
		steady(l, pkg, 50, test.opened+0.1, 4)
		near(t, fmt.Sprintf("opened at %v s", test.opened), joules(t, l.Close("job", at(2)).Total), test.want, 1e-4)
	}
}

func TestEmptyAndUnopenedWindowsAreUnknown(t *testing.T) {
	l := NewLedger()
	steady(l, pkg, 50, 0, 5)
	if a := l.Close("stranger", at(2)); a.Total.Source != Unavailable || !strings.Contains(a.Total.Method, "was not recorded") {
		t.Errorf("never opened: got %+v", a.Total)
	}
	l.Open("job", at(3))
	if a := l.Close("job", at(3)); a.Total.Source != Unavailable || !strings.Contains(a.Total.Method, "is empty") {
		t.Errorf("empty: got %+v", a.Total)
	}
	if jobs := l.Snapshot().Jobs; len(jobs) != 0 {
		t.Errorf("still open: %+v", jobs)
	}
}

// Energy attributed to an open window that turns out to be empty is moved outside windows.
func TestEmptyWindowReturnsItsEnergy(t *testing.T) {
	for _, known := range []bool{false, true} {
		m := newMachine(pkg)
		if known {
			m.run(10, constant(20), nil)
		}
		start := m.now
		m.open("job")
		m.run(10, constant(100), map[string]float64{"job": 2, "": 1})
		before := m.ledger.Snapshot().Zones[0]
		m.ledger.Close("job", at(start))
		z := m.ledger.Snapshot().Zones[0]
		if z.Jobs != 0 || z.Rest != before.Jobs+before.Rest || z.Idle != before.Idle || z.Undivided != before.Undivided {
			t.Errorf("baseline known: %v: got %+v after %+v", known, z, before)
		}
		if known && before.Jobs == 0 || !known && before.Undivided == 0 {
			t.Errorf("baseline known: %v: nothing was attributed: %+v", known, before)
		}
		if used := m.ledger.zones[0].used; used != (attribution{}) {
			t.Errorf("baseline known: %v: windows still have %+v", known, used)
		}
	}
}

func TestOpenIsIdempotentAndForgetDropsTheJob(t *testing.T) {
	l := NewLedger()
	steady(l, pkg, 50, 0, 1)
	l.Open("job", at(1))
	steady(l, pkg, 50, 1.1, 2)
	l.Open("job", at(2))
	a := l.Close("job", at(2))
	near(t, "total", joules(t, a.Total), 50, 1e-6)
	l.Forget("job")
	if again := l.Close("job", at(2)); again.Total.Source != Unavailable {
		t.Errorf("after Forget: got %+v", again)
	}
	l.Open("job", at(2))
	l.Forget("job")
	if jobs := l.Snapshot().Jobs; len(jobs) != 0 {
		t.Errorf("forgotten and still open: %+v", jobs)
	}
}

func TestWindowCanBeReopened(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	steady(l, pkg, 50, 0, 2)
	near(t, "first", joules(t, l.Close("job", at(1)).Total), 50, 1e-6)
	l.Open("job", at(1))
	near(t, "second", joules(t, l.Close("job", at(2)).Total), 50, 1e-6)
}

func TestRemovedZonesLeaveLaterFigures(t *testing.T) {
	l := NewLedger()
	l.SetZones("rapl", []*Zone{pkg})
	steady(l, pkg, 50, 0, 5)
	l.Record(Sample{Sampler: "rapl", At: at(5.1), Faults: []Fault{{Zone: pkg, At: at(5.1), Err: "no such file"}}})
	l.SetZones("nvml", nil)
	l.SetZones("rapl", []*Zone{dram, pkg})
	if zones := l.Snapshot().Zones; len(zones) != 1 {
		t.Errorf("it is still there: got %d zones, want 1", len(zones))
	}
	l.SetZones("rapl", []*Zone{guess})
	l.Open("job", at(6))
	for i := 60; i <= 100; i++ {
		now := float64(i) / 10
		record(l, now, reading(guess, now, 10*now))
	}
	a := l.Close("job", at(9))
	near(t, "total", joules(t, a.Total), 30, 1e-3)
	if a.Total.CoveragePercent != 100 || a.Total.Method != "estimate (P = 2 + 8u W): cpu" || len(a.Zones) != 1 {
		t.Errorf("got %+v, zones %+v", a.Total, a.Zones)
	}
	if zones := l.Snapshot().Zones; len(zones) != 1 || zones[0].ID != guess.ID {
		t.Errorf("got %d zones, want %s", len(zones), guess.ID)
	}
	steady(l, pkg, 50, 10, 11)
	if zones := l.Snapshot().Zones; len(zones) != 2 {
		t.Errorf("got %d zones after the old one was read again, want 2", len(zones))
	}
}

// A zone that was removed during a job stays in its account.
func TestZoneRemovedDuringAJobIsInItsAccount(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	steady(l, pkg, 50, 0, 4)
	l.SetZones("rapl", nil)
	near(t, "total", joules(t, l.Close("job", at(4)).Total), 200, 1e-3)
}

// The energy of a zone while it was not counted stays out of the totals when it is counted again.
func TestZoneCountedAgainStartsOver(t *testing.T) {
	retired := *guess
	retired.Counted = false
	l := NewLedger()
	l.Open("job", at(0))
	estimate := func(zone *Zone, from, to float64) {
		for now := from; now <= to; now++ {
			record(l, now, reading(zone, now, 10*(now-from)))
		}
	}
	steady(l, pkg, 50, 0, 10)
	estimate(guess, 11, 19)
	l.Record(Sample{At: at(20), Faults: []Fault{{Zone: &retired, At: at(20), Err: "rapl is back"}}})
	steady(l, pkg, 50, 20, 30) // the counter went on: it has all of those 30 s
	estimate(guess, 31, 40)
	c := l.Curve("job")
	a := l.Close("job", at(40))
	near(t, "total", joules(t, a.Total), 30*50+9*10, 1e-3)
	for i, z := range c.Zones {
		if z.ID == guess.ID {
			near(t, "curve", float64(sumOf(c, i).Joules()), 9*10, 1e-3)
		}
	}
}

func TestFaultsBeforeTheLastReadingAreOver(t *testing.T) {
	l := NewLedger()
	fail := func(s float64, reason string) {
		l.Record(Sample{Sampler: "rapl", At: at(s), Faults: []Fault{{}, {Zone: pkg, At: at(s), Err: reason}}})
	}
	expect := func(want string, faults int) {
		t.Helper()
		if z := l.Snapshot().Zones[0]; z.Fault != want || z.Faults != faults || z.Healthy() != (want == "") {
			t.Errorf("got fault %q of %d, healthy: %v; want %q of %d", z.Fault, z.Faults, z.Healthy(), want, faults)
		}
	}
	fail(1, "first")
	expect("first", 1)
	fail(2, "second")
	expect("first", 2)
	record(l, 3, Reading{}, reading(pkg, 3, 5))
	expect("", 2)
	fail(3, "with the reading")
	expect("", 3)
	fail(4, "later")
	expect("later", 4)
	for _, old := range []float64{3, 2} { // no news
		l.Record(Sample{At: at(4), Readings: []Reading{reading(pkg, old, 5)}})
		expect("later", 4)
	}
	if s := l.Snapshot().Samplers["rapl"]; s.Samples != 5 || s.Faults != 8 || !s.At.Equal(at(4)) {
		t.Errorf("got %+v, want 5 samples with 8 faults until 4 s", s)
	}
	l.Record(Sample{Sampler: "rapl", At: at(2)})
	if s := l.Snapshot().Samplers["rapl"]; s.Samples != 6 || !s.At.Equal(at(4)) {
		t.Errorf("got %+v after an older sample, want 6 samples until 4 s", s)
	}
}

// Energy attributed to windows before a zone was counted is moved outside windows.
func TestNewlyCountedZoneIsConserved(t *testing.T) {
	m := newMachine(core)
	m.run(10, constant(20), nil)
	m.open("job")
	m.run(10, constant(100), map[string]float64{"job": 2, "": 1})
	counted := *core
	counted.Counted = true
	m.zone = &counted
	m.run(5, constant(100), map[string]float64{"job": 2, "": 1})
	z := m.ledger.Snapshot().Zones[0]
	if sum := z.Jobs + z.Idle + z.Rest + z.Undivided + z.Unsettled; sum != z.Energy {
		t.Errorf("got %d µJ in parts, want %d", sum, z.Energy)
	}
	near(t, "jobs", float64(z.Jobs.Joules()), 3*80*2.0/3, 1) // of the 3 s since that are settled
	a := m.close("job")
	near(t, "job", joules(t, a.Job), 5*80*2.0/3, 1)
	z = m.ledger.Snapshot().Zones[0]
	near(t, "jobs in the end", float64(z.Jobs.Joules()), 5*80*2.0/3, 1)
}

func TestCrossCheckNeedsTwoReadings(t *testing.T) {
	before, same, after := of(Microjoules(3)), of(Microjoules(3)), of(Microjoules(7))
	for name, test := range map[string]struct{ before, after, want *Microjoules }{
		"both":      {before, after, of(Microjoules(4))},
		"equal":     {before, same, of(Microjoules(0))},
		"went back": {after, before, nil},
		"first":     {before, nil, nil},
		"second":    {nil, after, nil},
		"none":      {nil, nil, nil},
	} {
		z := &zoneLedger{zone: pkg, crossCheck: test.before}
		got := z.step(0, Reading{Zone: pkg, CrossCheck: test.after}, 1e9, Delta{Elapsed: 1e9, Energy: 5}).crossCheck
		if (got == nil) != (test.want == nil) || got != nil && *got != *test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// The readings advance the ledger's clock: they are later than the start of their sample.
func TestReadingsAdvanceTheClock(t *testing.T) {
	l := NewLedger()
	l.Record(Sample{At: t0, Readings: []Reading{{Zone: pkg, At: t0, Counter: 5}}})
	l.Record(Sample{At: t0, Readings: []Reading{{Zone: pkg, At: t0.Add(1), Counter: 8}}})
	if z := l.Snapshot().Zones[0]; z.Energy != 3 || z.Unsettled != 3 {
		t.Errorf("got %d µJ, %d unsettled, want 3", z.Energy, z.Unsettled)
	}
	l.Record(Sample{At: t0, Readings: []Reading{{Zone: pkg, At: at(2.1), Counter: 9}}})
	if z := l.Snapshot().Zones[0]; z.Energy != 4 || z.Unsettled != 1 {
		t.Errorf("got %d µJ, %d unsettled, want 4 and 1", z.Energy, z.Unsettled)
	}
}

func TestIdleTimeBeginsAfterForget(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	m.ledger.Track("job", at(m.now))
	m.run(10, constant(90), nil)
	m.ledger.Forget("job")
	m.ledger.Forget("stranger") // has no effect
	m.run(2.8, constant(90), nil)
	if b := m.ledger.Baselines()[pkg.ID]; b.Power != 20 || b.LearnedAt.After(at(8)) {
		t.Errorf("got %+v, want 20 W of the time before the job", b)
	}
	m.run(10, constant(30), nil)
	if b := m.ledger.Baselines()[pkg.ID]; b.LearnedAt.Before(at(30)) {
		t.Errorf("got %+v, want one of the time after the job", b)
	}
}

// setClock returns t as if the wall clock had been set forward just before: the monotonic reading
// is unchanged. The seconds of the wall clock start at bit 30 of a Time's first word.
func setClock(t *testing.T, moment time.Time, forward time.Duration) time.Time {
	t.Helper()
	set := moment
	*(*uint64)(unsafe.Pointer(&set)) += uint64(forward/time.Second) << 30
	if set.Sub(moment) != 0 || set.Round(0).Sub(moment.Round(0)) != forward {
		t.Fatalf("%v is not %v with another wall clock", set, moment)
	}
	return set
}

func TestSettingTheWallClockChangesNothing(t *testing.T) {
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
		t.Errorf("got %+v over %v", a.Total, a.Duration())
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, jobs := range []int{0, 1, 4} {
		b.Run(fmt.Sprintf("6 zones, %d jobs", jobs), func(b *testing.B) {
			l := NewLedger()
			cpuTimes := map[string]time.Duration{}
			for j := range jobs {
				l.Open(fmt.Sprint(j), t0)
				cpuTimes[fmt.Sprint(j)] = 0
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
				usage := &Usage{Method: "cpu time", Jobs: cpuTimes, Busy: time.Duration(i), Capacity: time.Duration(2 * i)}
				for _, zone := range zones {
					s.Readings = append(s.Readings, Reading{Zone: zone, At: now, Counter: Microjoules(int64(i) * 5e6 % 262144e6), Usage: usage})
				}
				l.Record(s)
				l.Snapshot()
			}
		})
	}
}

// The sensors disappear and reappear; their counter has advanced in the meantime.
func TestEstimateAndCounterDoNotCountTheSameTime(t *testing.T) {
	guess := &Zone{ID: "estimate", Name: "cpu", Domain: DomainCPU, Counted: true, Source: Estimated}
	l := NewLedger()
	l.SetZones("rapl", []*Zone{pkg})
	steady(l, pkg, 50, 0, 1)
	l.Open("job", at(0.5))
	l.SetZones("rapl", []*Zone{guess})
	steady(l, guess, 20, 1, 2)
	l.SetZones("rapl", []*Zone{pkg})
	steady(l, pkg, 50, 2, 3)
	a := l.Close("job", at(3))
	near(t, "total", joules(t, a.Total), 25+20+50, 1e-6)
}
