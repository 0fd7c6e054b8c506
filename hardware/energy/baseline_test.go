package energy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBaselineIsSubtractedFromAJob(t *testing.T) {
	m := newMachine(pkg)
	m.run(30, noisy(20, 2), nil)
	m.open("job")
	m.run(10, constant(100), map[string]float64{"job": 3})
	a := m.close("job")
	if a.Baseline == nil {
		t.Fatalf("got no baseline: %+v", a.Idle)
	}
	near(t, "baseline", float64(a.Baseline.Power), 20, 0.5)
	near(t, "spread", float64(a.Baseline.Spread), 0.5, 0.4) // of means over a second
	near(t, "seconds", a.Baseline.Seconds, 27, 3)
	near(t, "total", joules(t, a.Total), 1000, 1e-3)
	near(t, "idle", joules(t, a.Idle), 200, 5)
	near(t, "net", joules(t, a.Net), 800, 5)
	near(t, "job", joules(t, a.Job), 800, 5)
	near(t, "rest", joules(t, a.Rest), 0, 1e-3)
	spread := a.Baseline.Spread
	near(t, "bound of idle", float64(*a.Idle.ErrorBound), float64(spread)*10, 1e-9)
	near(t, "bound of net", float64(*a.Net.ErrorBound-*a.Total.ErrorBound), float64(spread)*10, 1e-9)
	near(t, "bound of job", float64(*a.Job.ErrorBound), float64(*a.Net.ErrorBound), 1e-9)
}

func TestOtherProcessesAreNotChargedToTheJob(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	m.open("job")
	m.run(10, constant(120), map[string]float64{"job": 3, "": 1})
	a := m.close("job")
	near(t, "total", joules(t, a.Total), 1200, 1e-3)
	near(t, "idle", joules(t, a.Idle), 200, 1e-3)
	near(t, "job", joules(t, a.Job), 750, 1)
	near(t, "rest", joules(t, a.Rest), 250, 1)
}

// The CPU time of a cgroup is exact, but that of the machine advances in ticks: use attributed to
// other processes at one reading must be corrected at the next.
func TestCoarseCPUTicksCauseNoRest(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	m.open("job")
	for i := range 100 {
		m.joules += 10
		m.cpuTimes["job"] += seconds(0.4)
		m.busy += seconds(0.4 + 0.04*float64(1-2*(i%2)))
		m.now += 0.1
		m.read()
	}
	a := m.close("job")
	near(t, "rest", joules(t, a.Rest)/joules(t, a.Net), 0, 0.002)
}

func TestBaselineNoiseIsNotNetEnergy(t *testing.T) {
	m := newMachine(pkg)
	m.run(120, noisy(20, 5), nil)
	m.open("job")
	m.run(120, noisy(20, 5), map[string]float64{"job": 0.01})
	a := m.close("job")
	near(t, "net", joules(t, a.Net), 0, 0.015*120*20)
}

func TestBaselineIsUnknownUnlessIdle(t *testing.T) {
	restore := func(zone string, age time.Duration) func(*machine) {
		return func(m *machine) {
			m.ledger.RestoreBaselines(map[string]Baseline{zone: {Power: 20, LearnedAt: at(0).Add(-age)}})
		}
	}
	tests := map[string]func(m *machine){
		"no idle time":       func(*machine) {},
		"too few samples":    func(m *machine) { m.run(4.9, constant(20), nil) },
		"another zone's":     restore("x", 0),
		"expired":            restore(pkg.ID, 7*24*time.Hour+time.Second),
		"from the future":    restore(pkg.ID, -2*time.Hour),
		"other processes":    func(m *machine) { m.run(60, constant(90), map[string]float64{"": 2}) },
		"usage unknown":      func(m *machine) { m.hidesUsage = true; m.run(60, constant(90), nil) },
		"utilization is 0.4": func(m *machine) { m.hidesUsage, m.utilization = true, of(0.4); m.run(60, constant(90), nil) },
		"a job is tracked": func(m *machine) {
			m.ledger.Track("job", at(0))
			m.run(60, constant(70), map[string]float64{"": 0.1})
		},
		"the agent is busy": func(m *machine) {
			for range 60 {
				m.run(1, constant(70), map[string]float64{"": 0.1})
				m.ledger.MarkBusy(at(m.now))
			}
		},
		"never idle for long enough": func(m *machine) {
			for range 20 {
				m.run(0.8, constant(20), nil)
				m.run(0.1, constant(90), map[string]float64{"": 2})
			}
		},
	}
	for name, before := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(pkg)
			before(m)
			m.open("job")
			m.run(10, constant(100), map[string]float64{"job": 3})
			a := m.close("job")
			for part, f := range map[string]Figure{"idle": a.Idle, "net": a.Net, "job": a.Job, "rest": a.Rest} {
				if f.Source != Unavailable || f.Energy != nil || !strings.Contains(f.Method, "no idle baseline of package-0") {
					t.Errorf("%s: got %+v, want none", part, f)
				}
			}
			if a.Baseline != nil || a.Total.Energy == nil {
				t.Errorf("got baseline %+v and total %+v, want a total only", a.Baseline, a.Total)
			}
		})
	}
}

// For a card without a Usage, a low utilization is enough.
func TestBaselineFromUtilizationAlone(t *testing.T) {
	m := newMachine(pkg)
	m.hidesUsage, m.utilization = true, of(0.1)
	m.run(10, constant(20), nil)
	m.utilization = of(0.11)
	m.run(10, constant(90), nil)
	if b := m.ledger.Baselines()[pkg.ID]; b.Power != 20 {
		t.Errorf("got %+v, want 20 W", b)
	}
}

func TestBaselineSurvivesARestart(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	saved := m.ledger.Baselines()
	if b := saved[pkg.ID]; b.Power != 20 || b.LearnedAt.IsZero() {
		t.Fatalf("got %+v, want 20 W", saved)
	}
	m.ledger = NewLedger()
	m.ledger.RestoreBaselines(saved)
	m.open("job")
	m.run(10, constant(100), map[string]float64{"job": 3})
	a := m.close("job")
	near(t, "idle", joules(t, a.Idle), 200, 3) // the window's first reading is 0.1 s late
	if got := m.ledger.Snapshot().Baseline; got == nil || got.Power != 20 {
		t.Errorf("got %+v, want 20 W", got)
	}
}

func TestOnlyMissingValidBaselinesAreRestored(t *testing.T) {
	for name, test := range map[string]struct {
		saved Baseline
		learn bool
		want  Watts // 0: none
	}{
		"valid":               {Baseline{Power: 5, Spread: 1}, false, 5},
		"of an idle card":     {Baseline{Power: 0, Spread: 0}, false, 0},
		"negative power":      {Baseline{Power: -5, Spread: 1}, false, 0},
		"negative spread":     {Baseline{Power: 5, Spread: -1}, false, 0},
		"less than learned":   {Baseline{Power: 5, Spread: 1}, true, 20},
		"oldest valid":        {Baseline{Power: 5, LearnedAt: at(0.1).Add(-7 * 24 * time.Hour)}, false, 5},
		"farthest in advance": {Baseline{Power: 5, LearnedAt: at(0.1).Add(time.Hour)}, false, 5},
	} {
		m := newMachine(pkg)
		length := 0.1
		if test.learn {
			length = 10
		}
		m.run(length, constant(20), nil)
		if test.saved.LearnedAt.IsZero() {
			test.saved.LearnedAt = at(0)
		}
		m.ledger.RestoreBaselines(map[string]Baseline{pkg.ID: test.saved})
		got := m.ledger.Snapshot().Baseline
		if known := name == "of an idle card" || test.want > 0; (got != nil) != known || known && got.Power != test.want {
			t.Errorf("%s: got %+v, want %v W, known: %v", name, got, test.want, known)
		}
	}
}

// The model may have other parameters in the next run.
func TestEstimatedBaselineIsNotSaved(t *testing.T) {
	m := newMachine(guess)
	m.run(10, constant(20), nil)
	if b := m.ledger.Snapshot().Baseline; b == nil || b.Power != 20 {
		t.Fatalf("got %+v, want 20 W", b)
	}
	if saved := m.ledger.Baselines(); len(saved) != 0 {
		t.Errorf("saved %+v, want none", saved)
	}
	m.ledger = NewLedger()
	m.read()
	m.ledger.RestoreBaselines(map[string]Baseline{guess.ID: {Power: 20, LearnedAt: at(m.now)}})
	if b := m.ledger.Snapshot().Baseline; b != nil {
		t.Errorf("restored %+v, want none", b)
	}
}

func TestBaselineOfManySamples(t *testing.T) {
	var l baselineLearner
	for i := range 131 {
		power := Watts(20)
		if i < 11 { // dropped
			power = 500
		}
		l.add(Joules(5*power).Microjoules(), 5*time.Second, at(float64(5*i)))
		if known := l.learned != nil; known != (i >= 4) || len(l.samples) != min(i+1, 120) {
			t.Fatalf("after %d samples: got %d, known: %v", i+1, len(l.samples), known)
		}
	}
	want := Baseline{Power: 20, LearnedAt: at(5 * 130), Seconds: 5 * 120}
	if *l.learned != want {
		t.Errorf("got %+v, want %+v", *l.learned, want)
	}
}

func TestBaselineIsMedianAndPercentiles(t *testing.T) {
	for _, test := range []struct {
		powers        []Watts
		power, spread Watts
	}{
		{[]Watts{5, 1, 4, 2, 3}, 3, 2},
		{[]Watts{6, 5, 1, 4, 2, 30}, 4.5, 14.5},
		{[]Watts{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 5, 4},
		{[]Watts{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 4.5, 4.5},
	} {
		var samples []idleSample
		for _, p := range test.powers {
			samples = append(samples, idleSample{p, time.Second})
		}
		want := &Baseline{Power: test.power, Spread: test.spread, LearnedAt: t0, Seconds: float64(len(samples))}
		if diff := cmp.Diff(want, newBaseline(samples, t0)); diff != "" {
			t.Errorf("%v W: %s", test.powers, diff)
		}
	}
}

// An interruption drops only the idle time that is not a sample yet.
func TestInterruptedIdleTimeIsNotASample(t *testing.T) {
	var l baselineLearner
	for i := range 5 {
		l.add(90e6, 450*time.Millisecond, t0)
		l.interrupt()
		if len(l.samples) != i {
			t.Fatalf("got %d samples after an interruption, want %d", len(l.samples), i)
		}
		l.add(10e6, 450*time.Millisecond, t0)
		l.add(8e6, 450*time.Millisecond, t0)
	}
	near(t, "power", float64(l.learned.Power), 20, 1e-9)
}

// A gap in idle time is not a sample of 0 W.
func TestGapIsNotIdlePower(t *testing.T) {
	zone := *card
	zone.Range = 0
	l := NewLedger()
	for i := range 40 { // every second reading is of a counter that was reset
		r := reading(&zone, float64(i), float64(i%2)*20)
		r.Utilization = of(0.0)
		record(l, float64(i), r)
	}
	near(t, "baseline", float64(l.Baselines()[zone.ID].Power), 20, 1e-6)
}

func TestIdleTimeBeginsWhenNoLongerBusy(t *testing.T) {
	l := NewLedger()
	l.MarkBusy(at(0))
	l.MarkBusy(at(-5)) // an earlier moment has no effect
	for i := -1; i <= 7; i++ {
		r := reading(pkg, float64(i), 100+20*float64(i))
		r.Utilization = of(0.0)
		record(l, float64(i), r)
		if _, known := l.Baselines()[pkg.ID]; known != (i == 7) { // five seconds from 0, two pending
			t.Errorf("at %d s: got a baseline: %v", i, known)
		}
	}
}

func TestMachineBaselineSumsItsZones(t *testing.T) {
	l := NewLedger()
	l.RestoreBaselines(map[string]Baseline{
		dram.ID: {Power: 3, Spread: 0.5, LearnedAt: at(-20), Seconds: 60},
		pkg.ID:  {Power: 20, Spread: 1, LearnedAt: at(-30), Seconds: 50},
		"psys":  {Power: 100, Spread: 4, LearnedAt: at(-10), Seconds: 70},
	})
	record(l, 0, reading(dram, 0, 0), reading(pkg, 0, 0), reading(&Zone{ID: "psys", Counted: true, Source: Measured}, 0, 0))
	want := &Baseline{Power: 123, Spread: 5.5, LearnedAt: at(-30), Seconds: 50}
	if diff := cmp.Diff(want, l.Snapshot().Baseline); diff != "" {
		t.Error(diff)
	}
	record(l, 0, reading(card, 0, 0))
	if b := l.Snapshot().Baseline; b != nil {
		t.Errorf("got %+v with a zone that has none, want none", b)
	}
}

func TestOverlappingJobsShareBaseline(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	m.open("a")
	m.open("b")
	m.run(10, constant(120), map[string]float64{"a": 3, "b": 1})
	a, b := m.close("a"), m.close("b")
	near(t, "idle", joules(t, a.Idle)+joules(t, b.Idle), 200, 1e-3)
	near(t, "a", joules(t, a.Job), 750, 1)
	near(t, "b", joules(t, b.Job), 250, 1)
	near(t, "total", joules(t, a.Total)+joules(t, b.Total), 1200, 1e-3)
}

func TestIdleDeficitIsCarriedOver(t *testing.T) {
	type use struct {
		energy   Microjoules
		length   time.Duration
		inWindow bool
		want     Microjoules
	}
	for name, uses := range map[string][]use{
		"at the baseline":          {{20e6, time.Second, true, 20e6}, {2e6, time.Second / 10, true, 2e6}},
		"below, then above":        {{15e6, time.Second, true, 15e6}, {30e6, time.Second, true, 25e6}, {30e6, time.Second, true, 20e6}},
		"one second's worth":       {{0, 3 * time.Second, true, 0}, {90e6, time.Second, true, 40e6}},
		"debts are separate":       {{15e6, time.Second, true, 15e6}, {12e6, time.Second, false, 12e6}, {30e6, time.Second, false, 28e6}},
		"a window's carry is lost": {{15e6, time.Second, true, 15e6}, {30e6, time.Second, false, 20e6}, {30e6, time.Second, true, 20e6}},
		"carry outside is kept":    {{15e6, time.Second, false, 15e6}, {30e6, time.Second, true, 20e6}, {30e6, time.Second, false, 25e6}},
		"of less than all is paid": {{0, time.Second / 2, true, 0}, {15e6, time.Second / 2, true, 15e6}, {90e6, time.Second, true, 25e6}},
	} {
		var i idleAllocator
		if _, known := i.allocate(5, time.Second, true); known {
			t.Errorf("%s: known without a baseline", name)
		}
		i.setBaseline(&Baseline{Power: 20})
		for n, u := range uses {
			if got, known := i.allocate(u.energy, u.length, u.inWindow); got != u.want || !known {
				t.Errorf("%s: step %d: got %d µJ, known: %v, want %d", name, n, got, known, u.want)
			}
		}
		i.setBaseline(nil)
		if _, known := i.allocate(5, time.Second, true); known {
			t.Errorf("%s: known without a baseline any more", name)
		}
	}
}
