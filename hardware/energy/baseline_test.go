package energy

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// machine drives a ledger with one zone at 10 Hz: power and use as they are set.
type machine struct {
	ledger   *Ledger
	zone     *Zone
	now      float64 // s
	joules   float64
	jobs     map[string]time.Duration
	busy     time.Duration // of everybody
	threads  float64
	crossing float64 // J of the second opinion
	crossed  bool
	last     [10]float64 // W, of the last second
	averaged float64     // J of the last second's mean power
	late     bool        // the second opinion, or the counter where there is none, is by that
	blind    bool        // nobody tells who uses it
	part     *float64    // in use, as the readings say
}

func newMachine(zone *Zone) *machine {
	return &machine{ledger: NewLedger(), zone: zone, joules: 1000, jobs: map[string]time.Duration{}, threads: 4}
}

// run lets time pass: watts tells power, and use the threads that each job ("" is
// nobody's) keeps busy.
func (m *machine) run(length float64, watts func() float64, use map[string]float64) {
	for range int(length*10 + 0.5) {
		power := watts()
		m.joules += power / 10
		copy(m.last[:], m.last[1:])
		m.last[len(m.last)-1] = power
		for _, p := range m.last {
			m.averaged += p / 10 / float64(len(m.last))
		}
		for job, threads := range use {
			used := seconds(threads / 10)
			m.busy += used
			if job != "" {
				m.jobs[job] += used
			}
		}
		m.now += 0.1
		m.read()
	}
}

func (m *machine) read() {
	jobs := map[string]time.Duration{}
	for job, used := range m.jobs {
		jobs[job] = used
	}
	r := Reading{
		Zone: m.zone, At: at(m.now), Counter: Joules(m.joules).Microjoules(),
		Usage: &Usage{Method: "cpu time", Jobs: jobs, Busy: m.busy, Capacity: seconds(m.threads * m.now)},
	}
	r.Utilization = m.part
	if m.late && !m.crossed {
		r.Counter = Joules(m.averaged).Microjoules()
	}
	if m.blind {
		r.Usage = nil
	}
	if m.crossed {
		cross := Joules(m.crossing * m.joules).Microjoules()
		if m.late {
			cross = Joules(m.crossing * m.averaged).Microjoules()
		}
		r.CrossCheck = &cross
	}
	m.ledger.Record(Sample{Sampler: "rapl", At: at(m.now), Readings: []Reading{r}})
}

func (m *machine) open(job string) { m.jobs[job] = 0; m.ledger.Open(job, at(m.now)) }

func constant(watts float64) func() float64 { return func() float64 { return watts } }

func noisy(watts, swing float64) func() float64 {
	random := rand.New(rand.NewPCG(1, 2))
	return func() float64 { return watts + swing*(2*random.Float64()-1) }
}

func TestIdleBaselineIsLearnedAndTakenOffAJob(t *testing.T) {
	m := newMachine(pkg)
	m.run(30, noisy(20, 2), nil)
	m.open("job")
	m.run(10, constant(100), map[string]float64{"job": 3})
	a := m.ledger.Close("job", at(m.now))
	if a.Baseline == nil {
		t.Fatalf("no baseline: %+v", a.Idle)
	}
	near(t, "baseline", float64(a.Baseline.Power), 20, 0.5)
	near(t, "spread", float64(a.Baseline.Spread), 0.5, 0.4) // of means over a second
	near(t, "seconds", a.Baseline.Seconds, 27, 3)
	near(t, "total", joules(t, a.Total), 1000, 1e-3)
	near(t, "idle", joules(t, a.Idle), 200, 5)
	near(t, "net", joules(t, a.Net), 800, 5)
	near(t, "job", joules(t, a.Job), 800, 5)
	near(t, "rest", joules(t, a.Rest), 0, 1e-3)
	if *a.Net.ErrorBound < *a.Total.ErrorBound+Joules(a.Baseline.Spread)*9 {
		t.Errorf("the net's bound %v does not hold the baseline's spread", *a.Net.ErrorBound)
	}
}

// Who runs beside the job without being one gets its part by CPU time.
func TestWhatOthersUseIsNotTheJobs(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	m.open("job")
	m.run(10, constant(120), map[string]float64{"job": 3, "": 1})
	a := m.ledger.Close("job", at(m.now))
	near(t, "total", joules(t, a.Total), 1200, 1e-3)
	near(t, "idle", joules(t, a.Idle), 200, 1e-3)
	near(t, "job", joules(t, a.Job), 750, 1)
	near(t, "rest", joules(t, a.Rest), 250, 1)
}

// CPU time by cgroup is exact and that of the machine comes in ticks: what that
// makes up for in one reading it takes back in the next.
func TestTicksOfTheMachinesCPUTimeMakeNoRest(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	m.open("job")
	for i := range 100 {
		m.joules += 10
		m.jobs["job"] += seconds(0.4)
		m.busy += seconds(0.4 + 0.04*float64(1-2*(i%2)))
		m.now += 0.1
		m.read()
	}
	a := m.ledger.Close("job", at(m.now))
	near(t, "rest", joules(t, a.Rest)/joules(t, a.Net), 0, 0.002)
}

// A job that hardly works is not charged with the noise around the baseline.
func TestNoiseAroundTheBaselineIsNoWork(t *testing.T) {
	m := newMachine(pkg)
	m.run(120, noisy(20, 5), nil)
	m.open("job")
	m.run(120, noisy(20, 5), map[string]float64{"job": 0.01})
	a := m.ledger.Close("job", at(m.now))
	near(t, "net", joules(t, a.Net), 0, 0.015*120*20)
}

func TestBaselineIsUnknownRatherThanWrong(t *testing.T) {
	tests := map[string]func(m *machine){
		"a job from the start": func(*machine) {},
		"too little idleness":  func(m *machine) { m.run(4, constant(20), nil) },
		"a job being prepared": func(m *machine) {
			m.ledger.Track("job", at(0))
			m.run(60, constant(70), map[string]float64{"": 0.1})
		},
		"the agent itself at work": func(m *machine) {
			for range 60 {
				m.run(1, constant(70), map[string]float64{"": 0.1})
				m.ledger.MarkBusy(at(m.now))
			}
		},
		"others at work":              func(m *machine) { m.run(60, constant(90), map[string]float64{"": 2}) },
		"nobody knows who is at work": func(m *machine) { m.blind = true; m.run(60, constant(90), nil) },
		"others at work by the card's own word": func(m *machine) {
			busy := 0.4
			m.blind, m.part = true, &busy
			m.run(60, constant(90), nil)
		},
		"expired": func(m *machine) {
			m.ledger.RestoreBaselines(map[string]Baseline{pkg.ID: {Power: 20, LearnedAt: at(0).Add(-baselineMaxAge - time.Second)}})
		},
		"of the future": func(m *machine) {
			m.ledger.RestoreBaselines(map[string]Baseline{pkg.ID: {Power: 20, LearnedAt: at(0).Add(2 * time.Hour)}})
		},
		"of another zone": func(m *machine) {
			m.ledger.RestoreBaselines(map[string]Baseline{"x": {Power: 20, LearnedAt: at(0)}})
		},
	}
	for name, before := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(pkg)
			before(m)
			m.open("job")
			m.run(10, constant(100), map[string]float64{"job": 3})
			a := m.ledger.Close("job", at(m.now))
			for part, f := range map[string]Figure{"idle": a.Idle, "net": a.Net, "job": a.Job, "rest": a.Rest} {
				if f.Source != Unavailable || f.Energy != nil || !strings.Contains(f.Method, "no idle baseline of package-0") {
					t.Errorf("%s: %+v", part, f)
				}
			}
			if a.Baseline != nil || a.Total.Energy == nil {
				t.Errorf("%+v, total %+v", a.Baseline, a.Total)
			}
		})
	}
}

// Where nobody tells who uses a card, the card's own word that nobody does is enough.
func TestBaselineOfACardThatSaysItIsIdle(t *testing.T) {
	m := newMachine(pkg)
	idle, busy := 0.05, 0.7
	m.blind, m.part = true, &idle
	m.run(10, constant(20), nil)
	m.part = &busy
	m.run(10, constant(90), nil)
	if b := m.ledger.Baselines()[pkg.ID]; b.Power != 20 {
		t.Errorf("%+v", b)
	}
}

func TestBaselineSurvivesARestart(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	saved := m.ledger.Baselines()
	if b := saved[pkg.ID]; b.Power != 20 || b.LearnedAt.IsZero() {
		t.Fatalf("%+v", saved)
	}
	m.ledger = NewLedger()
	m.ledger.RestoreBaselines(saved)
	m.open("job")
	m.run(10, constant(100), map[string]float64{"job": 3})
	a := m.ledger.Close("job", at(m.now))
	near(t, "idle", joules(t, a.Idle), 200, 3) // the window's first reading is 0.1 s late
	if got := m.ledger.Snapshot().Baseline; got == nil || got.Power != 20 {
		t.Errorf("%+v", got)
	}
}

// The next run's model may have other figures.
func TestBaselineOfAnEstimateIsOfThisRunOnly(t *testing.T) {
	guess := &Zone{ID: "estimate:cpu", Name: "cpu", Domain: DomainCPU, Counted: true, Source: Estimated, Method: "estimate"}
	m := newMachine(guess)
	m.run(10, constant(20), nil)
	if b := m.ledger.Snapshot().Baseline; b == nil || b.Power != 20 {
		t.Fatalf("%+v", b)
	}
	if saved := m.ledger.Baselines(); len(saved) != 0 {
		t.Errorf("kept: %+v", saved)
	}
	m.ledger = NewLedger()
	m.read()
	m.ledger.RestoreBaselines(map[string]Baseline{guess.ID: {Power: 20, LearnedAt: at(m.now)}})
	if b := m.ledger.Snapshot().Baseline; b != nil {
		t.Errorf("restored: %+v", b)
	}
}

func TestBaselineSaysHowLongItWasLearned(t *testing.T) {
	var c calm
	for i := range calmMost + 10 {
		c.add(Joules(100).Microjoules(), 5*time.Second, at(float64(5*i)))
	}
	near(t, "power", float64(c.learned.Power), 20, 1e-9)
	near(t, "seconds", c.learned.Seconds, 5*calmMost, 1e-9)
}

// A second opinion that is the mean of the last second comes late where the power changes.
func TestSecondOpinionThatIsLateContradictsNothing(t *testing.T) {
	for _, test := range []struct {
		crossing, length float64
		flagged          bool
	}{{1, 2.5, false}, {2, 10, true}} {
		m := newMachine(pkg)
		m.crossing, m.crossed, m.late = test.crossing, true, true
		m.run(5, constant(20), nil)
		m.open("job")
		m.run(test.length, constant(200), nil) // of which the second opinion misses 90 J
		if a := m.ledger.Close("job", at(m.now)); (len(a.Notes) == 1) != test.flagged {
			t.Errorf("×%v: notes %q", test.crossing, a.Notes)
		}
	}
}

// A card without a counter tells the mean of the last second, whose integral misses a part of
// what a job begins with.
func TestAveragedPowerIsBoundedByItsChanges(t *testing.T) {
	card := &Zone{ID: "gpu0", Name: "gpu0", Domain: DomainGPU, Counted: true, Source: Measured, UpdateInterval: 100 * time.Millisecond, AveragedOver: time.Second}
	m := newMachine(card)
	m.late = true
	m.run(5, constant(20), nil)
	m.open("job")
	m.run(2, constant(200), nil)
	a := m.ledger.Close("job", at(m.now))
	off, bound := 400-joules(t, a.Total), float64(*a.Total.ErrorBound)
	if off < 50 || off > bound || bound > 250 {
		t.Errorf("off by %.1f J, and the bound is %.1f J", off, bound)
	}
	m = newMachine(card)
	m.run(5, constant(200), nil)
	m.open("job")
	m.run(2, constant(200), nil)
	near(t, "bound of a steady power", float64(*m.ledger.Close("job", at(m.now)).Total.ErrorBound), 200*2*0.1, 0.1)
}

// A counter that is renewed each 100 ms and read as often shows nothing at one look and twice the
// energy at the next: at each edge up to 100 ms may be missing.
func TestTheEdgesOfASlowCounterAreBounded(t *testing.T) {
	l, card := NewLedger(), &Zone{ID: "gpu0", Counted: true, Source: Measured, UpdateInterval: 100 * time.Millisecond}
	counter := func(seconds float64) Microjoules { return Joules(120 * math.Floor(seconds*10) / 10).Microjoules() }
	for i := range 100 {
		now := 0.07 + float64(i)*0.1 + 0.06*float64(i%2)
		if i == 30 {
			l.Open("job", at(now))
		}
		l.Record(Sample{Sampler: "nvml", At: at(now), Readings: []Reading{{Zone: card, At: at(now), Counter: counter(now)}}})
		if i == 50 {
			a := l.Close("job", at(now))
			if bound := float64(*a.Total.ErrorBound); bound < 24 || bound > 60 {
				t.Errorf("the bound is %.1f J, and 12 J may be missing at each edge", bound)
			}
			return
		}
	}
}

// Overlapping jobs share the baseline and what was used above it; together they get
// all of it once.
func TestOverlappingJobsShareTheBaseline(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	m.open("a")
	m.open("b")
	m.run(10, constant(120), map[string]float64{"a": 3, "b": 1})
	a, b := m.ledger.Close("a", at(m.now)), m.ledger.Close("b", at(m.now))
	near(t, "idle", joules(t, a.Idle)+joules(t, b.Idle), 200, 1e-3)
	near(t, "a", joules(t, a.Job), 750, 1)
	near(t, "b", joules(t, b.Job), 250, 1)
	near(t, "all", joules(t, a.Total)+joules(t, b.Total), 1200, 1e-3)
}

func TestSecondOpinionThatContradictsIsSaidAndBounded(t *testing.T) {
	for _, test := range []struct {
		crossing float64
		flagged  bool
	}{{1, false}, {1.05, false}, {0.7, true}, {1.3, true}} {
		m := newMachine(pkg)
		m.crossing, m.crossed = test.crossing, true
		m.run(1, constant(50), nil)
		m.open("job")
		m.run(10, constant(50), nil)
		a := m.ledger.Close("job", at(m.now))
		if flagged := len(a.Notes) == 1; flagged != test.flagged {
			t.Errorf("×%v: notes %q", test.crossing, a.Notes)
		}
		holds := float64(*a.Total.ErrorBound) >= 500*0.3
		if holds != test.flagged {
			t.Errorf("×%v: bound %v", test.crossing, *a.Total.ErrorBound)
		}
	}
}
