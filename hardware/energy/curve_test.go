package energy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func sumOf(c *Curve, zone int) (sum Microjoules) {
	for _, p := range c.Points {
		if p.Zones[zone] != nil {
			sum += *p.Zones[zone]
		}
	}
	return sum
}

func TestCurveHasTheEnergyOverTime(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	begin := m.now
	m.ledger.Track("job", at(begin))
	m.run(2, constant(40), map[string]float64{"": 1}) // its input is generated
	m.open("job")
	m.run(4, constant(100), map[string]float64{"job": 3, "": 1})
	m.close("job")
	m.run(1, constant(30), nil) // its quality is measured
	c := m.ledger.Curve("job")
	if len(c.Points) != 70 || !c.Start.Equal(at(begin)) || len(c.Zones) != 1 || c.Zones[0].Name != "package-0" || !c.Zones[0].Counted {
		t.Fatalf("got %d points from %v of %+v, want 70 of package-0", len(c.Points), c.Start, c.Zones)
	}
	near(t, "energy", float64(sumOf(c, 0).Joules()), 80+400+30, 1e-3)
	for i, p := range c.Points {
		if p.From != int64(i)*100 || p.To != int64(i+1)*100 {
			t.Fatalf("point %d: got %d to %d ms", i, p.From, p.To)
		}
		if inside := i >= 20 && i < 60; (p.Job != nil) != inside {
			t.Errorf("point %d: got job %v, want one in the window only", i, p.Job)
		} else if inside {
			near(t, "job", float64(p.Job.Joules()), 6, 1e-2)
			near(t, "idle", float64(p.Idle.Joules()), 2, 1e-2)
			near(t, "rest", float64(p.Rest.Joules()), 2, 1e-2)
		}
	}
	m.ledger.Forget("job")
	if m.ledger.Curve("job") != nil {
		t.Error("got a curve of a forgotten job")
	}
}

// The points of two jobs have the same idle energy each, and each other's work as rest.
func TestCurvesOfOverlappingJobs(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	m.open("a")
	m.open("b")
	m.run(6, constant(120), map[string]float64{"a": 2, "b": 1, "": 1})
	m.close("a")
	m.close("b")
	for job, want := range map[string]float64{"a": 5, "b": 2.5} {
		points := m.ledger.Curve(job).Points
		for i, p := range points[1 : len(points)-1] {
			if p.Job == nil {
				t.Fatalf("%s: point %d has no job", job, i)
			}
			near(t, job, float64(p.Job.Joules()), want, 0.01)
			near(t, job+" idle", float64(p.Idle.Joules()), 2, 0.01)
			near(t, job+" rest", float64(p.Rest.Joules()), 10-want, 0.01)
		}
	}
}

// Merging points keeps every sum: of the energy read, and of its parts.
func TestCoarseCurveKeepsItsSums(t *testing.T) {
	for _, length := range []float64{30, 41, 100, 300} {
		m := newMachine(pkg)
		m.run(10, constant(20), nil)
		m.open("job")
		m.run(length, constant(120), map[string]float64{"job": 3, "": 1})
		m.close("job")
		c := m.ledger.Curve("job")
		var job, idle, rest Microjoules
		for i, p := range c.Points {
			if p.From != int64(i)*c.point().Milliseconds() || p.Job == nil {
				t.Fatalf("%v s: got point %d from %d ms with job %v", length, i, p.From, p.Job)
			}
			job, idle, rest = job+*p.Job, idle+*p.Idle, rest+*p.Rest
		}
		if len(c.Points) > MaxCurvePoints || len(c.Points) < MaxCurvePoints/2 && length > 40 {
			t.Errorf("%v s: got %d points", length, len(c.Points))
		}
		end := float64(c.Points[len(c.Points)-1].To) / 1000 // the last one goes on as it began
		near(t, "energy", float64(sumOf(c, 0).Joules()), 120*end, 1)
		near(t, "job", float64(job.Joules()), 75*end, 1)
		near(t, "idle", float64(idle.Joules()), 20*end, 1)
		near(t, "rest", float64(rest.Joules()), 25*end, 1)
	}
}

// If the split of one counted zone is unknown, that of all is: the use of the processor says
// nothing about that of a card.
func TestCurveSplitIsUnknownWithAnyZone(t *testing.T) {
	both := map[string]Baseline{pkg.ID: {Power: 20, LearnedAt: at(0)}, card.ID: {Power: 10, LearnedAt: at(0)}}
	for name, test := range map[string]struct {
		learned map[string]Baseline
		usage   bool    // of the card
		removed float64 // when the card is read no more
	}{
		"card without a baseline": {map[string]Baseline{pkg.ID: both[pkg.ID]}, true, 9},
		"card without usage":      {both, false, 9},
		"card removed":            {both, false, 2},
		"all known":               {both, true, 9},
	} {
		l := NewLedger()
		l.RestoreBaselines(test.learned)
		l.Open("job", at(0))
		for i := range 41 {
			now := float64(i) / 10
			usage := &Usage{Method: "use", Jobs: map[string]time.Duration{"job": seconds(3 * now)}, Busy: seconds(4 * now), Capacity: seconds(8 * now)}
			cpu := reading(pkg, now, 100*now)
			cpu.Usage = usage
			readings := []Reading{cpu}
			if now < test.removed {
				r := reading(card, now, 70*now)
				if test.usage {
					r.Usage = usage
				}
				readings = append(readings, r)
			}
			record(l, now, readings...)
		}
		l.Close("job", at(4))
		for i, p := range l.Curve("job").Points {
			known, energy := p.Zones[1] == nil || name == "all known", *p.Zones[0]
			if p.Zones[1] != nil {
				energy += *p.Zones[1]
			}
			if (p.Job != nil) != known {
				t.Fatalf("%s: point %d: got job %v, want known: %v", name, i, p.Job, known)
			}
			if known {
				near(t, name, float64((*p.Job + *p.Idle + *p.Rest).Joules()), float64(energy.Joules()), 1e-5)
			}
		}
	}
}

func TestCurveLeavesGapsOut(t *testing.T) {
	l := NewLedger()
	l.Track("job", at(0))
	steady(l, pkg, 50, 0, 2)
	record(l, 2.1, reading(pkg, 2.1, 50)) // a reset
	record(l, 5, reading(pkg, 5, 1e-6))   // and another
	c := l.Curve("job")
	if last := c.Points[len(c.Points)-1]; last.To != 2000 {
		t.Errorf("got a last point to %d ms, want 2000", last.To)
	}
	near(t, "energy", float64(sumOf(c, 0).Joules()), 100, 1e-3)
}

func TestCurvePointNeedsHalfOfItsLength(t *testing.T) {
	ms := time.Millisecond
	for name, test := range map[string]struct {
		cell     curveCell
		counted  bool
		energy   Microjoules // -1: unknown
		job      Microjoules // -1: unknown
		idle, re Microjoules
	}{
		"all of it":            {curveCell{1000, 100 * ms, 500, 300, 200, 100 * ms}, true, 1000, 500, 300, 200},
		"half read":            {curveCell{1000, 50 * ms, 500, 300, 200, 50 * ms}, true, 2000, 1000, 600, 400},
		"less than half read":  {curveCell{1000, 49 * ms, 500, 300, 200, 50 * ms}, true, -1, -1, 0, 0},
		"half attributed":      {curveCell{1000, 100 * ms, 250, 150, 100, 50 * ms}, true, 1000, 500, 300, 200},
		"less attributed":      {curveCell{1000, 100 * ms, 250, 150, 100, 49 * ms}, true, 1000, -1, 0, 0},
		"nothing used":         {curveCell{0, 100 * ms, 0, 0, 0, 100 * ms}, true, 0, 0, 0, 0},
		"1 µJ used by nothing": {curveCell{1, 100 * ms, 0, 0, 0, 100 * ms}, true, 1, -1, 0, 0},
		"used by nothing":      {curveCell{5, 100 * ms, 0, 0, 0, 100 * ms}, true, 5, -1, 0, 0},
		"not counted":          {curveCell{1000, 100 * ms, 500, 300, 200, 100 * ms}, false, 1000, -1, 0, 0},
		"rounded down":         {curveCell{10, 100 * ms, 1, 1, 1, 100 * ms}, true, 10, 3, 3, 3},
		"nothing at all of it": {curveCell{}, true, -1, -1, 0, 0},
	} {
		zone := *pkg
		zone.Counted = test.counted
		r := &curveRecorder{point: 100 * ms, columns: []*curveColumn{{&zone, []curveCell{{}, test.cell}}}}
		p, known := r.curvePoint(1)
		if known != (test.energy >= 0) || known && *p.Zones[0] != test.energy || p.From != 100 || p.To != 200 {
			t.Errorf("%s: got %+v, known: %v; want %d µJ", name, p, known, test.energy)
		}
		if (p.Job != nil) != (test.job >= 0) || p.Job != nil && (*p.Job != test.job || *p.Idle != test.idle || *p.Rest != test.re) {
			t.Errorf("%s: got job %v, idle %v, rest %v; want %d, %d, %d", name, p.Job, p.Idle, p.Rest, test.job, test.idle, test.re)
		}
		if _, known := r.curvePoint(0); known {
			t.Errorf("%s: the cell before is known", name)
		}
		if p, known := r.curvePoint(2); known || len(p.Zones) != 1 || p.Zones[0] != nil {
			t.Errorf("%s: the cell after is %+v, known: %v", name, p, known)
		}
	}
}

// Steps before the start of a curve and across the edges of its cells are cut in proportion.
func TestCurveCutsStepsAtItsCells(t *testing.T) {
	ms := time.Millisecond
	r := newCurveRecorder(at(1), 1000*ms)
	r.addStep(pkg, newStep(500*ms, 900*ms, 4000))   // before the curve
	r.addStep(pkg, newStep(900*ms, 1150*ms, 2500))  // from before into the second cell
	r.addStep(pkg, newStep(1150*ms, 1300*ms, 1500)) // into the third
	want := []curveCell{{energy: 1000, covered: 100 * ms}, {energy: 1000, covered: 100 * ms}, {energy: 1000, covered: 100 * ms}}
	got := r.columns[0].cells
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("got cells %+v, want %+v", got, want)
		}
	}
}

func TestCoarsenMergesPairs(t *testing.T) {
	r := &curveRecorder{point: 100, columns: []*curveColumn{
		{pkg, []curveCell{{1, 2, 3, 4, 5, 6}, {10, 20, 30, 40, 50, 60}, {100, 200, 300, 400, 500, 600}}}, {dram, nil},
	}}
	r.coarsen()
	got := r.columns[0].cells
	if want := (curveCell{11, 22, 33, 44, 55, 66}); r.point != 200 || len(got) != 2 || cap(got) != 2 || got[0] != want || got[1].energy != 100 || got[1].attributed != 600 {
		t.Errorf("got %+v with points of %v, want %+v and the third", got, r.point, want)
	}
}

// A curve of MaxCurvePoints is full, and coarsened by the first step beyond.
func TestCurveIsCoarsenedWhenFull(t *testing.T) {
	full := MaxCurvePoints * minCurvePoint
	for _, test := range []struct {
		end, point time.Duration
	}{{full, minCurvePoint}, {full + 1, 2 * minCurvePoint}, {2*full + 1, 4 * minCurvePoint}} {
		const start = time.Hour
		r := newCurveRecorder(t0, start)
		r.addStep(pkg, newStep(start+test.end-minCurvePoint, start+test.end, 1000))
		if r.point != test.point || len(r.columns[0].cells) > MaxCurvePoints {
			t.Errorf("to %v: got %d points of %v, want them of %v", test.end, len(r.columns[0].cells), r.point, test.point)
		}
	}
}

func TestCurveOfAZoneNoLongerRead(t *testing.T) {
	ms := time.Millisecond
	r := newCurveRecorder(t0, 0)
	r.addStep(core, newStep(0, 300*ms, 30)) // is not counted
	r.addStep(pkg, newStep(0, 100*ms, 10))
	r.addStep(dram, newStep(0, 200*ms, 20))
	r.addShare(pkg, newStep(0, 100*ms, 10), allocation{}, attribution{job: 10})
	want := [][]bool{{true, true, true}, {true, false, true}, {true, false, false}}
	points := r.curve().Points
	if len(points) != len(want) {
		t.Fatalf("got %d points, want %d", len(points), len(want))
	}
	for i, p := range points {
		for j, energy := range p.Zones {
			if (energy != nil) != want[i][j] || energy != nil && *energy != 10 {
				t.Errorf("point %d, zone %d: got %v, want 10 µJ: %v", i, j, energy, want[i][j])
			}
		}
		if p.Job != nil {
			t.Errorf("point %d: got job %d µJ, want none without dram's", i, *p.Job)
		}
	}
}

func TestCurveTakesKnownSharesOnly(t *testing.T) {
	ms := time.Millisecond
	gap := newStep(0, 100*ms, 0)
	gap.gap = true
	allocated := func(shares ...attribution) (a allocation) {
		for _, s := range shares {
			a.shares = append(a.shares, share{attribution: s})
		}
		return a
	}
	mine, other := attribution{job: 30, idle: 10, rest: 5}, attribution{job: 20, idle: 30, rest: 5}
	known := curveCell{job: 30, idle: 40, rest: 30, attributed: 100 * ms}
	for name, test := range map[string]struct {
		zone *Zone
		step *step
		a    allocation
		mine attribution
		want []curveCell
	}{
		"known":                {pkg, newStep(0, 100*ms, 100), allocated(mine, other), mine, []curveCell{known}},
		"not counted":          {core, newStep(0, 100*ms, 100), allocated(mine, other), mine, nil},
		"a gap":                {pkg, gap, allocated(attribution{}), attribution{}, nil},
		"ambiguous":            {pkg, newStep(0, 100*ms, 100), allocated(attribution{ambiguous: 1}), attribution{ambiguous: 1}, nil},
		"without baseline":     {pkg, newStep(0, 100*ms, 100), allocated(mine, attribution{undivided: 1}), mine, nil},
		"ambiguous for others": {pkg, newStep(0, 100*ms, 100), allocated(mine, attribution{idle: 30, ambiguous: 25}), mine, []curveCell{known}},
	} {
		r := newCurveRecorder(t0, 0)
		r.addShare(test.zone, test.step, test.a, test.mine)
		var got []curveCell
		if len(r.columns) > 0 {
			got = r.columns[0].cells
		}
		if !slices.Equal(got, test.want) || (len(r.columns) > 0) != (test.want != nil) {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

// A curve of any length stays within its limit and adds up.
func TestCurveAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewLedger()
		zones := []*Zone{pkg, dram}
		counters := make([]Microjoules, len(zones))
		l.Track("job", at(0))
		now, used := time.Duration(0), make([]Microjoules, len(zones))
		l.Record(Sample{At: t0, Readings: []Reading{{Zone: pkg, At: t0}, {Zone: dram, At: t0}}})
		interval := rapid.SampledFrom([]time.Duration{time.Millisecond, 100 * time.Millisecond, 3 * time.Second}).Draw(t, "interval")
		for range rapid.IntRange(1, 1500).Draw(t, "readings") {
			now += interval
			s := Sample{At: t0.Add(now)}
			for i, zone := range zones {
				moved := Microjoules(interval.Seconds() * float64(rapid.IntRange(0, 300e6).Draw(t, fmt.Sprint("µW ", i))))
				used[i] += moved
				counters[i] = (counters[i] + moved) % zone.Range
				s.Readings = append(s.Readings, Reading{Zone: zone, At: t0.Add(now), Counter: counters[i]})
			}
			l.Record(s)
		}
		c := l.Curve("job")
		if len(c.Points) > MaxCurvePoints {
			t.Fatalf("got %d points", len(c.Points))
		}
		for i := range zones {
			// Of the last point less or more than half may have been read.
			missing, point := used[i]-sumOf(c, i), c.point()
			if max(missing, -missing) > Microjoules(300e6*point.Seconds())+Microjoules(2*len(c.Points)+3000) {
				t.Fatalf("zone %d: %d of %d µJ missing with points of %v", i, missing, used[i], point)
			}
		}
	})
}

func (c *Curve) point() time.Duration {
	if len(c.Points) == 0 {
		return minCurvePoint
	}
	return time.Duration(c.Points[0].To-c.Points[0].From) * time.Millisecond
}
