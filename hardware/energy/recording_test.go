package energy

import (
	"fmt"
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

func TestCurveTellsWhereTheEnergyWentAndWhen(t *testing.T) {
	m := newMachine(pkg)
	m.run(10, constant(20), nil)
	begin := m.now
	m.ledger.Track("job", at(begin))
	m.run(2, constant(40), map[string]float64{"": 1}) // its input is made
	m.open("job")
	m.run(4, constant(100), map[string]float64{"job": 3, "": 1})
	m.ledger.Close("job", at(m.now))
	m.run(1, constant(30), nil) // its quality is measured
	c := m.ledger.Curve("job")
	if len(c.Points) != 70 || !c.Start.Equal(at(begin)) || len(c.Zones) != 1 || c.Zones[0].Name != "package-0" || !c.Zones[0].Counted {
		t.Fatalf("%d points from %v: %+v", len(c.Points), c.Start, c.Zones)
	}
	near(t, "all", float64(sumOf(c, 0).Joules()), 80+400+30, 1e-3)
	for i, p := range c.Points {
		if p.From != int64(i)*100 || p.To != int64(i+1)*100 {
			t.Fatalf("point %d from %d to %d ms", i, p.From, p.To)
		}
		if inside := i >= 20 && i < 60; (p.Job != nil) != inside {
			t.Errorf("point %d: job %v", i, p.Job)
		} else if inside {
			near(t, "job", float64(p.Job.Joules()), 6, 1e-2)
			near(t, "idle", float64(p.Idle.Joules()), 2, 1e-2)
			near(t, "rest", float64(p.Rest.Joules()), 2, 1e-2)
		}
	}
	m.ledger.Forget("job")
	if m.ledger.Curve("job") != nil {
		t.Error("forgotten and still there")
	}
}

// What a card used for nobody knows whom is no use of the processor's, however long.
func TestCurveByUseIsNeverMoreThanWasRead(t *testing.T) {
	card := &Zone{ID: "GPU-1", Name: "gpu0", Domain: DomainGPU, Counted: true, Source: Measured, Method: "nvml"}
	for name, test := range map[string]struct {
		learned map[string]Baseline
		known   bool
		vanish  float64 // when the card is read no more
	}{
		"card without a baseline":    {map[string]Baseline{pkg.ID: {Power: 20, LearnedAt: at(0)}}, true, 9},
		"users of the card not told": {map[string]Baseline{pkg.ID: {Power: 20, LearnedAt: at(0)}, card.ID: {Power: 10, LearnedAt: at(0)}}, false, 9},
		"card that is gone":          {map[string]Baseline{pkg.ID: {Power: 20, LearnedAt: at(0)}, card.ID: {Power: 10, LearnedAt: at(0)}}, false, 2},
		"all is known":               {map[string]Baseline{pkg.ID: {Power: 20, LearnedAt: at(0)}, card.ID: {Power: 10, LearnedAt: at(0)}}, true, 9},
	} {
		l := NewLedger()
		l.RestoreBaselines(test.learned)
		l.Open("job", at(0))
		for i := range 41 {
			now := float64(i) / 10
			use := &Usage{Method: "use", Jobs: map[string]time.Duration{"job": seconds(3 * now)}, Busy: seconds(4 * now), Capacity: seconds(8 * now)}
			s := Sample{At: at(now), Readings: []Reading{{Zone: pkg, At: at(now), Counter: Joules(100 * now).Microjoules(), Usage: use}}}
			if now < test.vanish {
				r := Reading{Zone: card, At: at(now), Counter: Joules(70 * now).Microjoules()}
				if test.known {
					r.Usage = use
				}
				s.Readings = append(s.Readings, r)
			}
			l.Record(s)
		}
		l.Close("job", at(4))
		for i, p := range l.Curve("job").Points {
			divided, all := p.Zones[1] == nil || name == "all is known", *p.Zones[0]
			if p.Zones[1] != nil {
				all += *p.Zones[1]
			}
			if (p.Job != nil) != divided {
				t.Fatalf("%s: point %d divided: %v", name, i, p.Job != nil)
			}
			if divided {
				near(t, name, float64((*p.Job + *p.Idle + *p.Rest).Joules()), float64(all.Joules()), 1e-5)
			}
		}
	}
}

// A gap is no zero.
func TestCurveLeavesGapsOut(t *testing.T) {
	l := NewLedger()
	l.Track("job", at(0))
	steady(l, pkg, 50, 0, 2)
	l.Record(Sample{At: at(2.05), Readings: []Reading{{Zone: pkg, At: at(2.05), Counter: 300e9}}}) // a reset
	l.Record(Sample{At: at(5), Readings: []Reading{{Zone: pkg, At: at(5), Counter: 1}}})           // and one more
	c := l.Curve("job")
	if last := c.Points[len(c.Points)-1]; last.To != 2000 {
		t.Errorf("a point to %d ms", last.To)
	}
	near(t, "energy", float64(sumOf(c, 0).Joules()), 100, 1e-3)
}

// However long a job, its curve keeps within its bound and adds up.
func TestCurveAddsUpHoweverLongTheJob(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewLedger()
		zones := []*Zone{pkg, dram}
		counters := make([]Microjoules, len(zones))
		l.Track("job", at(0))
		now, used := time.Duration(0), make([]Microjoules, len(zones))
		l.Record(Sample{At: t0, Readings: []Reading{{Zone: pkg, At: t0}, {Zone: dram, At: t0}}})
		steps := rapid.SampledFrom([]time.Duration{time.Millisecond, 100 * time.Millisecond, 3 * time.Second}).Draw(t, "step")
		for range rapid.IntRange(1, 1500).Draw(t, "readings") {
			now += steps
			s := Sample{At: t0.Add(now)}
			for i, zone := range zones {
				moved := Microjoules(steps.Seconds() * float64(rapid.IntRange(0, 300e6).Draw(t, fmt.Sprint("µW ", i))))
				used[i] += moved
				counters[i] = (counters[i] + moved) % zone.Range
				s.Readings = append(s.Readings, Reading{Zone: zone, At: t0.Add(now), Counter: counters[i]})
			}
			l.Record(s)
		}
		c := l.Curve("job")
		if len(c.Points) > MaxCurvePoints {
			t.Fatalf("%d points", len(c.Points))
		}
		for i := range zones {
			// Of the last point less or more than half may have been read.
			missing, point := used[i]-sumOf(c, i), c.step()
			if max(missing, -missing) > Microjoules(300e6*point.Seconds())+Microjoules(2*len(c.Points)+3000) {
				t.Fatalf("zone %d: %d of %d µJ missing with points of %v", i, missing, used[i], point)
			}
		}
	})
}

func (c *Curve) step() time.Duration {
	if len(c.Points) == 0 {
		return finest
	}
	return time.Duration(c.Points[0].To-c.Points[0].From) * time.Millisecond
}
