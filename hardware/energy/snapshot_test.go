package energy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestSnapshotHasTheOpenJobSoFar(t *testing.T) {
	l := NewLedger()
	steady(l, pkg, 50, 0, 1)
	l.Open("job", at(1))
	if j, ok := l.Snapshot().Job("job"); !ok || j.Energy != nil || j.Power != nil || j.Source != Unavailable {
		t.Errorf("before the first reading: got %+v, want nothing known", j)
	}
	if _, ok := l.Snapshot().Job("stranger"); ok {
		t.Error("got a job that was never opened")
	}
	steady(l, pkg, 50, 1.1, 9)
	s := l.Snapshot()
	j, _ := s.Job("job")
	near(t, "energy so far", float64(*j.Energy), 400, 1e-6)
	near(t, "power of the job", float64(*j.Power), 50, 1e-6)
	near(t, "power of the zone", float64(*s.Zones[0].Power), 50, 1e-6)
	if z := s.Zones[0]; z.Energy != 450e6 || z.Energy != z.Undivided+z.Unsettled || !z.Healthy() || !z.LastReading.Equal(at(9)) {
		t.Errorf("got zone %+v", z)
	}
	if last := s.Samplers["rapl"].At; !last.Equal(at(9)) {
		t.Errorf("got last sample at %v, want %v", last, at(9))
	}
	record(l, 9.1, reading(pkg, 9.1, 0.001))
	if z := l.Snapshot().Zones[0]; z.Power != nil || z.Gaps != 1 {
		t.Errorf("after a reset: got power %v and %d gaps, want none and 1", z.Power, z.Gaps)
	}
	if s.Zones[0].Gaps != 0 {
		t.Error("an older snapshot has changed")
	}
	text, err := json.Marshal(s.Zones[0])
	if want := `{"id":"intel-rapl:0","name":"package-0","domain":"cpu","counted":true,"source":"measured","method":"rapl",`; err != nil || !strings.HasPrefix(string(text), want) {
		t.Errorf("as JSON: got %s, %v; want %s", text, err, want)
	}
}

// The power of an open job is that of its pending steps, or of all steps until these are long
// enough.
func TestPowerOfAnOpenJobIsRecent(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	steady(l, pkg, 50, 0, 5)
	record(l, 20, reading(pkg, 20, 1000+50*5+10*15)) // settles all before
	power := func() float64 { j, _ := l.Snapshot().Job("job"); return float64(*j.Power) }
	near(t, "of the pending step", power(), 10, 1e-6)
	l.Record(Sample{At: at(22)}) // settles that too
	near(t, "of all", power(), 400.0/20, 1e-6)
	record(l, 22, reading(pkg, 22, 1400+2*80))
	near(t, "of a new step", power(), 80, 1e-6)
}

// While jobs overlap, each has only its share.
func TestOpenJobsShareTheEnergy(t *testing.T) {
	m := newMachine(pkg)
	m.open("a")
	m.open("b")
	m.run(5, constant(100), map[string]float64{"a": 3, "b": 1})
	s := m.ledger.Snapshot()
	a, _ := s.Job("a")
	b, _ := s.Job("b")
	near(t, "a", float64(*a.Energy), 75*4.9, 0.01)
	near(t, "b", float64(*b.Energy), 25*4.9, 0.01)
	near(t, "power of a", float64(*a.Power), 75, 0.01)
	near(t, "power of b", float64(*b.Power), 25, 0.01)
}

// The power of a counter that has not moved yet is unknown, as is that of a stuck one: neither is
// 0 W, and the energy of a job is not 0 J.
func TestStuckCounterHasNoPower(t *testing.T) {
	l := NewLedger()
	l.Open("job", at(0))
	expect := func(when string, watts float64) {
		t.Helper()
		s := l.Snapshot()
		job, _ := s.Job("job")
		_, source, known := s.Power()
		if watts == 0 {
			if s.Zones[0].Power != nil || known || source != Unavailable {
				t.Errorf("%s: got power %v of the zone, total %s; want none", when, s.Zones[0].Power, source)
			}
			return
		}
		if s.Zones[0].Power == nil || job.Energy == nil {
			t.Fatalf("%s: got power %v of the zone and %+v of the job, want some", when, s.Zones[0].Power, job)
		}
		near(t, when, float64(*s.Zones[0].Power), watts, 1e-6)
	}
	read := func(s, joules float64) { record(l, s, reading(pkg, s, joules)) }
	read(0, 1000)
	read(0.1, 1000)
	expect("not updated yet", 0)
	if job, _ := l.Snapshot().Job("job"); job.Energy != nil || job.Power != nil || job.Source != Unavailable {
		t.Errorf("got %+v of the job, want nothing known", job)
	}
	read(0.2, 1010)
	expect("updated", 50)
	read(0.3, 1010)
	expect("not updated since", 50)
	for i := range 12 {
		read(0.4+float64(i)/10, 1010)
	}
	expect("stuck", 0)
}

func TestPowerNeedsAMinimumOfTime(t *testing.T) {
	var m powerMeter
	ms := time.Millisecond
	for i, test := range []struct {
		delta Delta
		watts Watts // 0: unknown
	}{
		{Delta{Elapsed: 30 * ms, Energy: 3e6}, 0},
		{Delta{}, 0},
		{Delta{Elapsed: 20 * ms, Energy: 3e6}, 120},
		{Delta{Elapsed: 50 * ms, Energy: 1e6}, 20},
		{Delta{Elapsed: 900 * ms}, 20},
		{Delta{Elapsed: 99 * ms}, 20},
		{Delta{Elapsed: 1 * ms}, 0},
		{Delta{Elapsed: 100 * ms, Energy: 1e6}, 10},
		{Delta{Elapsed: 100 * ms, Gap: true}, 0},
		{Delta{Elapsed: 25 * ms, Energy: 1e6}, 0},
	} {
		m.add(test.delta)
		if got := m.watts(); (got != nil) != (test.watts > 0) || got != nil && *got != test.watts {
			t.Errorf("after delta %d: got %v, want %v W", i, got, test.watts)
		}
	}
}
