package energy

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestGapsAreCountedAndLowerCoverage(t *testing.T) {
	l := NewLedger()
	steady(l, pkg, 50, 0, 2)
	l.Open("job", at(2))
	l.Open("other", at(2))
	steady(l, pkg, 50, 2.1, 4)
	// The driver is reloaded a second later: the counter restarts at 0.
	for i := range 51 {
		now := 5 + float64(i)/10
		record(l, now, reading(pkg, now, 5*float64(i)))
		if i == 2 {
			l.Close("other", at(4.5)) // cuts the gap in two, which still count as one
		}
	}
	a := l.Close("job", at(10))
	near(t, "coverage", a.Total.CoveragePercent, 100*7.0/8, 1e-6)
	if a.Total.Gaps != 1 {
		t.Errorf("got %d gaps, want 1", a.Total.Gaps)
	}
	// 2 s shared equally while both ran, then 5 s alone.
	near(t, "total", joules(t, a.Total), 50+250, 1e-4)
}

func TestZoneThatFailsIsAGapToTheEnd(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	for i := range 41 {
		now := float64(i) / 10
		s := Sample{Sampler: "rapl", At: at(now), Readings: []Reading{reading(pkg, now, 50*now)}}
		if now < 1.05 {
			s.Readings = append(s.Readings, reading(dram, now, 4*now))
		} else {
			s.Faults = []Fault{{dram, at(now), "no such device"}}
		}
		l.Record(s)
	}
	if z := l.Snapshot().Zones[1]; z.Healthy() || z.Fault != "no such device" || z.Faults != 30 {
		t.Errorf("got zone %+v, want 30 faults", z)
	}
	a := l.Close("job", at(4))
	near(t, "total", joules(t, a.Total), 204, 1e-6)
	near(t, "coverage", a.Total.CoveragePercent, 25, 1e-6)
	if d := a.Domains[DomainDRAM].Total; d.Gaps != 1 || a.Total.Gaps != 1 {
		t.Errorf("got %d gaps of dram and %d of the total, want 1", d.Gaps, a.Total.Gaps)
	}
	// The next job has no reading of dram.
	l.Open("next", at(4))
	record(l, 5, reading(pkg, 5, 250))
	next := l.Close("next", at(5))
	near(t, "next", joules(t, next.Total), 50, 1e-6)
	if next.Total.CoveragePercent != 0 || !strings.Contains(next.Total.Method, "without dram: no such device") || next.Total.Gaps != 0 {
		t.Errorf("next: got %+v", next.Total)
	}
	if d := next.Domains[DomainDRAM].Total; d.Source != Unavailable || d.Energy != nil {
		t.Errorf("dram of next: got %+v, want none", d)
	}
}

// A fault counts as a gap in the windows that were open at its time.
func TestFaultIsAGapOfItsWindowOnly(t *testing.T) {
	for _, test := range []struct {
		fault float64
		gaps  int
	}{{1, 0}, {1.5, 1}, {4, 1}, {4.1, 0}} {
		l := NewLedger()
		steady(l, pkg, 50, 0, 0.9)
		l.Open("job", at(1))
		l.Record(Sample{Sampler: "rapl", At: at(test.fault), Faults: []Fault{{pkg, at(test.fault), "no such device"}}})
		if a := l.Close("job", at(4)); a.Total.Gaps != test.gaps {
			t.Errorf("fault at %v s: got %d gaps, want %d", test.fault, a.Total.Gaps, test.gaps)
		}
	}
}

func TestFailedReadWithoutLossIsNotAGap(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	record(l, 0, reading(pkg, 0, 0))
	l.Record(Sample{Sampler: "rapl", At: at(1), Faults: []Fault{{pkg, at(1), "interrupted"}}})
	record(l, 2, reading(pkg, 2, 100))
	a := l.Close("job", at(2))
	near(t, "total", joules(t, a.Total), 100, 1e-6)
	if a.Total.Gaps != 0 || a.Total.CoveragePercent != 100 {
		t.Errorf("got %+v, want no gap", a.Total)
	}
}

func TestZoneThatWasNeverReadLowersCoverage(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	for i := range 11 {
		now := float64(i) / 10
		l.Record(Sample{At: at(now), Readings: []Reading{reading(pkg, now, 10*now)}, Faults: []Fault{{dram, at(now), "input/output error"}}})
	}
	a := l.Close("job", at(1))
	near(t, "total", joules(t, a.Total), 10, 1e-6)
	if a.Total.CoveragePercent != 0 || a.Total.Method != "rapl: package-0; without dram: input/output error" {
		t.Errorf("got %+v", a.Total)
	}
}

func TestWindowShorterThanTheUpdateInterval(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	for i := range 4 {
		now := float64(i) / 10
		record(l, now, reading(pkg, now, 50*now), reading(dram, now, 7))
	}
	a := l.Close("job", at(0.3))
	near(t, "total", joules(t, a.Total), 15, 1e-6)
	if a.Total.CoveragePercent != 0 || !strings.Contains(a.Total.Method, "without dram: the counter does not move") {
		t.Errorf("got %+v", a.Total)
	}
}

func TestEstimateMakesTheTotalAnEstimate(t *testing.T) {
	uncertain := *guess
	uncertain.Uncertainty = 0.5
	for _, order := range [][]*Zone{{&uncertain, card}, {card, &uncertain}} {
		l := NewLedger()
		l.Open("job", at(0))
		for _, now := range []float64{0, 1, 2} {
			for _, zone := range order {
				watts := map[*Zone]float64{&uncertain: 10, card: 30}[zone]
				record(l, now, reading(zone, now, watts*now))
			}
		}
		power, source, ok := l.Snapshot().Power()
		if !ok || source != Estimated || power != 40 {
			t.Errorf("got power %v W, %s, known: %v; want 40 W, estimated", power, source, ok)
		}
		if job, _ := l.Snapshot().Job("job"); job.Source != Estimated {
			t.Errorf("got source %s of the open job, want estimated", job.Source)
		}
		a := l.Close("job", at(2))
		if a.Total.Source != Estimated || a.Domains[DomainGPU].Total.Source != Measured {
			t.Errorf("got sources %s and %s of gpu, want estimated and measured", a.Total.Source, a.Domains[DomainGPU].Total.Source)
		}
		for _, method := range []string{"estimate (P = 2 + 8u W): cpu", "nvml: gpu0"} {
			if !strings.Contains(a.Total.Method, method) {
				t.Errorf("got method %q, want %q in it", a.Total.Method, method)
			}
		}
		near(t, "bound", float64(*a.Total.ErrorBound), 10, 1e-6)
	}
}

// An ErrorBound of the readings replaces the zone's Uncertainty, and is shared like the energy.
func TestErrorBoundOfReadings(t *testing.T) {
	zone := *pkg
	zone.Uncertainty = 1
	l := NewLedger()
	for i := range 101 {
		now := float64(i) / 10
		r := reading(&zone, now, 50*now)
		r.ErrorBound = of(Joules(5 * now).Microjoules())
		r.Usage = &Usage{Method: "cpu time", Jobs: map[string]time.Duration{"a": seconds(now), "b": seconds(now)}}
		record(l, now, r)
		if i == 20 {
			l.Open("a", at(2))
			l.Open("b", at(2))
		}
	}
	a := l.Close("a", at(8))
	edges := 50 * 4 * 0.001
	near(t, "machine", float64(*a.Machine.ErrorBound), 30+edges, 0.3)
	near(t, "share", float64(*a.Total.ErrorBound), 15+edges, 0.3)
}

// Unless two readings have an ErrorBound that does not decrease, the zone's Uncertainty applies.
func TestErrorBoundNeedsTwoReadings(t *testing.T) {
	zone := *pkg
	zone.Uncertainty = 0.5
	for name, test := range map[string]struct {
		bounds [2]*Microjoules
		want   float64
	}{
		"both":      {[2]*Microjoules{of(Microjoules(1e6)), of(Microjoules(3e6))}, 2},
		"equal":     {[2]*Microjoules{of(Microjoules(1e6)), of(Microjoules(1e6))}, 0},
		"none":      {[2]*Microjoules{}, 5},
		"first":     {[2]*Microjoules{of(Microjoules(1e6)), nil}, 5},
		"second":    {[2]*Microjoules{nil, of(Microjoules(1e6))}, 5},
		"went back": {[2]*Microjoules{of(Microjoules(3e6)), of(Microjoules(1e6))}, 5},
	} {
		l := NewLedger()
		l.Open("job", at(0))
		for i, bound := range test.bounds {
			r := reading(&zone, float64(i), 10*float64(i))
			r.ErrorBound = bound
			record(l, float64(i), r)
		}
		near(t, name, float64(*l.Close("job", at(1)).Total.ErrorBound), test.want+10*2*0.001, 1e-6)
	}
}

// The error at edges without a close reading is bounded by the power around them.
func TestErrorBoundCoversCutSteps(t *testing.T) {
	for _, test := range []struct {
		from, to, bound float64
	}{{2, 4, 0}, {2.4, 4, 0.4}, {2, 3.7, 0.3}, {2.4, 3.7, 0.7}, {1.6, 4.4, 0.8}, {-0.5, 4, 0}, {2, 6.5, 0}} {
		zone := *pkg
		zone.UpdateInterval = 0
		l := NewLedger()
		l.Open("job", at(test.from))
		for i := range 7 { // nothing is read before 0 and after 6
			record(l, float64(i), reading(&zone, float64(i), 50*float64(i)))
		}
		a := l.Close("job", at(test.to))
		near(t, fmt.Sprintf("from %v to %v", test.from, test.to), float64(*a.Total.ErrorBound), 50*test.bound, 1e-6)
	}
}

// A card without a counter reports the mean power of the last second, whose integral misses part
// of the energy at the beginning of a job.
func TestErrorBoundCoversAveraging(t *testing.T) {
	averaged := *card
	averaged.UpdateInterval, averaged.AveragedOver = 100*time.Millisecond, time.Second
	m := newMachine(&averaged)
	m.averages = true
	m.run(5, constant(20), nil)
	m.open("job")
	m.run(2, constant(200), nil)
	a := m.close("job")
	off, bound := 400-joules(t, a.Total), float64(*a.Total.ErrorBound)
	if off < 50 || off > bound || bound > 250 {
		t.Errorf("got %.1f J too little, bound %.1f; want 50 or more within the bound", off, bound)
	}
	m = newMachine(&averaged)
	m.run(5, constant(200), nil)
	m.open("job")
	m.run(2, constant(200), nil)
	near(t, "bound of a steady power", float64(*m.close("job").Total.ErrorBound), 200*2*0.1, 0.1)
}

// A counter that is updated every 100 ms and read as often shows nothing in one step and twice
// the energy in the next: at each edge up to 100 ms may be missing.
func TestErrorBoundCoversSlowCounterEdges(t *testing.T) {
	slow := *card
	slow.UpdateInterval = 100 * time.Millisecond
	l := NewLedger()
	for i := range 51 {
		now := 0.07 + float64(i)*0.1 + 0.06*float64(i%2)
		if i == 30 {
			l.Open("job", at(now))
		}
		record(l, now, reading(&slow, now, 120*math.Floor(now*10)/10))
	}
	a := l.Close("job", at(0.07+5))
	if bound := float64(*a.Total.ErrorBound); bound < 24 || bound > 60 {
		t.Errorf("got bound %.1f J, want at least 24 for the 12 J that may be missing at each edge", bound)
	}
}

func TestCrossCheckContradictionIsNoted(t *testing.T) {
	for _, test := range []struct {
		factor, length float64
		noted          bool
	}{{1, 10, false}, {1.05, 10, false}, {0.7, 10, true}, {1.3, 10, true}, {1.3, 2, true}, {1.3, 1.9, false}} {
		m := newMachine(pkg)
		m.crossChecks = test.factor
		m.run(1, constant(50), nil)
		m.open("job")
		m.run(test.length, constant(50), nil)
		a := m.close("job")
		bound, energy := float64(*a.Total.ErrorBound), 50*test.length
		if !test.noted {
			if len(a.Notes) != 0 || bound > 1 {
				t.Errorf("×%v over %v s: got notes %q, bound %v, want none", test.factor, test.length, a.Notes, bound)
			}
			continue
		}
		want := fmt.Sprintf("package-0: energy counter %.4g J, integrated power %.4g J; the error bound covers both", energy, energy*test.factor)
		if len(a.Notes) != 1 || a.Notes[0] != want {
			t.Errorf("×%v over %v s: got notes %q, want %q", test.factor, test.length, a.Notes, want)
		}
		near(t, "bound", bound, energy*0.3, 0.5)
	}
}

// A cross-check from the mean power of the last second lags behind changes of the power.
func TestAveragedCrossCheckMayLag(t *testing.T) {
	for _, test := range []struct {
		factor, length float64
		noted          bool
	}{{1, 2.5, false}, {2, 10, true}} {
		m := newMachine(pkg)
		m.crossChecks, m.averages = test.factor, true
		m.run(5, constant(20), nil)
		m.open("job")
		m.run(test.length, constant(200), nil) // of which the cross-check misses 90 J
		if a := m.close("job"); (len(a.Notes) == 1) != test.noted {
			t.Errorf("×%v: got notes %q, want some: %v", test.factor, a.Notes, test.noted)
		}
	}
}

func TestStuckCounterAgainstItsCrossCheck(t *testing.T) {
	for _, test := range []struct {
		watts, percent float64
		reason         string
	}{
		{0, 100, "without gpu0: the counter does not move"},
		{70, 0, "without gpu0: the counter does not move, but integrated power is 280 J"},
	} {
		l := NewLedger()
		l.Open("job", at(0))
		for i := range 41 {
			now := float64(i) / 10
			r := reading(card, now, 0.012345)
			r.CrossCheck = of(Joules(test.watts * now).Microjoules())
			record(l, now, reading(pkg, now, 50*now), r)
		}
		a := l.Close("job", at(4))
		near(t, "total", joules(t, a.Total), 200, 1e-6)
		if a.Total.CoveragePercent != test.percent || !strings.HasSuffix(a.Total.Method, test.reason) {
			t.Errorf("%v W: got %+v, want %v %% and %q", test.watts, a.Total, test.percent, test.reason)
		}
	}
}
