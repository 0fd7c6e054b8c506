package energy

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestEnergyIsAttributedByUse(t *testing.T) {
	for name, test := range map[string]struct {
		rates useRates
		idle  *Baseline
		want  attribution
	}{
		"no baseline":             {useRates{jobs: []int64{1}, jobsKnown: true, others: 1, othersKnown: true}, nil, attribution{undivided: 100}},
		"below the baseline":      {useRates{jobs: []int64{1}, jobsKnown: true, others: 1, othersKnown: true}, &Baseline{Power: 300e-6}, attribution{idle: 100}},
		"by use":                  {useRates{jobs: []int64{1, 2}, jobsKnown: true, others: 1, othersKnown: true}, &Baseline{Power: 20e-6}, attribution{idle: 20, job: 60, rest: 20}},
		"all by a job":            {useRates{jobs: []int64{3}, jobsKnown: true, othersKnown: true}, &Baseline{Power: 20e-6}, attribution{idle: 20, job: 80}},
		"all by others":           {useRates{jobs: []int64{0}, jobsKnown: true, others: 3, othersKnown: true}, &Baseline{Power: 20e-6}, attribution{idle: 20, rest: 80}},
		"as much by others":       {useRates{jobs: []int64{3}, jobsKnown: true, others: 3, othersKnown: true}, &Baseline{Power: 20e-6}, attribution{idle: 20, job: 40, rest: 40}},
		"one unit of use":         {useRates{jobs: []int64{1}, jobsKnown: true, othersKnown: true}, &Baseline{Power: 20e-6}, attribution{idle: 20, job: 80}},
		"by nobody":               {useRates{jobs: []int64{0}, jobsKnown: true, othersKnown: true}, &Baseline{Power: 20e-6}, attribution{idle: 20, ambiguous: 80}},
		"a job's use unknown":     {useRates{jobs: []int64{3}, others: 1, othersKnown: true}, &Baseline{Power: 20e-6}, attribution{idle: 20, ambiguous: 80}},
		"others' use unknown":     {useRates{jobs: []int64{3}, jobsKnown: true}, &Baseline{Power: 20e-6}, attribution{idle: 20, ambiguous: 80}},
		"no job, use unknown":     {useRates{}, &Baseline{Power: 20e-6}, attribution{idle: 20, rest: 80}},
		"no job, nothing is used": {useRates{jobsKnown: true, othersKnown: true}, &Baseline{Power: 20e-6}, attribution{idle: 20, rest: 80}},
	} {
		var idle idleAllocator
		idle.setBaseline(test.idle)
		if got := test.rates.attribute(100, time.Second, &idle); got != test.want {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

// The shares of a piece add up to its energy, and none exceeds its weight by more than rounding.
func TestSharesAddUpToThePiece(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStep(0, 1e9, Microjoules(rapid.Int64Range(0, 1e12).Draw(t, "energy")))
		s.usage = &usageDelta{to: 1e9, before: &Usage{Jobs: map[string]time.Duration{}}, after: &Usage{Method: "use", Jobs: map[string]time.Duration{}}}
		var open []*window
		var total time.Duration
		for i := range rapid.IntRange(0, 5).Draw(t, "windows") {
			job := string(rune('a' + i))
			used := time.Duration(rapid.Int64Range(0, 8e9).Draw(t, "used"))
			s.usage.after.Jobs[job] = used
			total += used
			open = append(open, newWindow(job, t0, 0))
		}
		open = append(open, newWindow("later", t0, 1e9))
		idle := &idleAllocator{power: Watts(rapid.IntRange(0, 1e6).Draw(t, "idle watts")), known: rapid.Bool().Draw(t, "baseline known")}
		a := s.allocate(open, idle)
		if len(a.shares) != len(open)-1 {
			t.Fatalf("got %d shares of %d windows", len(a.shares), len(open)-1)
		}
		sum := a.outside
		for i, share := range a.shares {
			sum = sum.plus(share.attribution)
			want := float64(s.energy) / float64(len(a.shares))
			if total > 0 {
				want = float64(s.energy) * float64(s.usage.after.Jobs[share.window.job]) / float64(total)
			}
			if got := float64(share.total()); share.window != open[i] || got < want-20 || got > want+20 {
				t.Fatalf("share %d: got %v µJ, want %v", i, got, want)
			}
		}
		if sum.total() != s.energy || len(a.shares) > 0 && a.outside != (attribution{}) {
			t.Fatalf("got %+v of %d µJ, outside %+v", sum, s.energy, a.outside)
		}
		want := map[bool]string{true: "use", false: shareEqual}[total > 0]
		if len(a.shares) == 1 {
			want = shareAlone
		}
		if len(a.shares) > 0 && a.method != want {
			t.Fatalf("got method %q of %d shares, want %q", a.method, len(a.shares), want)
		}
	})
}

func TestAttributionsAreSummedByPart(t *testing.T) {
	a, b := attribution{1, 20, 300, 4000, 50000}, attribution{1, 10, 100, 1000, 10000}
	if got, want := a.plus(b), (attribution{2, 30, 400, 5000, 60000}); got != want {
		t.Errorf("sum: got %+v, want %+v", got, want)
	}
	if got, want := a.minus(b), (attribution{0, 10, 200, 3000, 40000}); got != want {
		t.Errorf("difference: got %+v, want %+v", got, want)
	}
	if got, want := a.portion(1, 4), (attribution{0, 5, 75, 1000, 12500}); got != want {
		t.Errorf("quarter: got %+v, want %+v", got, want)
	}
	if a.total() != 54321 {
		t.Errorf("total: got %d, want 54321", a.total())
	}
}

// Idle energy carried over from the time before a job is not taken out of the job.
func TestIdleCarryIsNotChargedToAJob(t *testing.T) {
	l := NewLedger()
	l.RestoreBaselines(map[string]Baseline{pkg.ID: {Power: 20, LearnedAt: at(0)}})
	steady(l, pkg, 15, 0, 1)
	l.Open("job", at(1))
	for i := range 11 {
		now := 1 + float64(i)/10
		record(l, now, reading(pkg, now, 1015+100*(now-1)))
	}
	near(t, "idle", joules(t, l.Close("job", at(2)).Idle), 20, 1e-3)
}

func TestEnergyOutsideOfWindowsIsRest(t *testing.T) {
	l := NewLedger()
	l.RestoreBaselines(map[string]Baseline{pkg.ID: {Power: 20, LearnedAt: at(0)}})
	steady(l, pkg, 50, 0, 12)
	z := l.Snapshot().Zones[0]
	near(t, "idle", float64(z.Idle.Joules()), 200, 1e-3)
	near(t, "rest", float64(z.Rest.Joules()), 300, 1e-3)
	if z.Jobs != 0 || z.Undivided != 0 {
		t.Errorf("got %d µJ of jobs and %d undivided, want none", z.Jobs, z.Undivided)
	}
}
