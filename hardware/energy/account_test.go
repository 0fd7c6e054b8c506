package energy

import (
	"encoding/json"
	"maps"
	"math"
	"strings"
	"testing"
	"time"
)

func TestOverlapIsSharedByCPUTime(t *testing.T) {
	l := NewLedger()
	var a, b Account
	// a runs from 1 to 5 on 3 threads, b from 3 to 7 on 1; 40 W throughout.
	for i := range 81 {
		now := float64(i) / 10
		cpuTimes := map[string]time.Duration{}
		if now >= 1 && now <= 5 {
			cpuTimes["a"] = seconds(3 * (now - 1))
		}
		if now >= 3 && now <= 7 {
			cpuTimes["b"] = seconds(now - 3)
		}
		l.Record(sample(now, cpuTimes, map[*Zone]float64{pkg: 40 * now}))
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
		t.Errorf("got share methods %q and %q, want cpu time", a.ShareMethod, b.ShareMethod)
	}
}

func TestUnknownCPUTimesAreSharedEqually(t *testing.T) {
	second := time.Second
	for name, cpuTimes := range map[string][2]map[string]time.Duration{
		"none":          {nil, nil},
		"none used":     {{"a": second, "b": second}, {"a": second, "b": second}},
		"one unknown":   {{"a": second, "b": second}, {"a": 2 * second}},
		"one went back": {{"a": second, "b": second}, {"a": 2 * second, "b": 0}},
		"one too high":  {{"a": second, "b": second}, {"a": 2 * second, "b": math.MaxInt64}},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			l.Open("a", at(-1))
			l.Open("b", at(-1))
			l.Record(sample(0, cpuTimes[0], map[*Zone]float64{pkg: 0}))
			l.Record(sample(1, cpuTimes[1], map[*Zone]float64{pkg: 40}))
			a, b := l.Close("a", at(1)), l.Close("b", at(1))
			near(t, "a", joules(t, a.Total), 20, 1e-6)
			near(t, "b", joules(t, b.Total), 20, 1e-6)
			if a.ShareMethod != "equal" {
				t.Errorf("got share method %q, want equal", a.ShareMethod)
			}
			// Either job may have used all of it or nothing; the machine's total is certain.
			for what, f := range map[string]Figure{"total": a.Total, "cpu": a.Domains[DomainCPU].Total} {
				near(t, "error bound of "+what, float64(*f.ErrorBound), 20+40*2*0.001, 1e-6)
			}
			near(t, "error bound of machine", float64(*a.Machine.ErrorBound), 40*2*0.001, 1e-6)
		})
	}
}

func TestMixedShareMethodsHaveTheirParts(t *testing.T) {
	l := NewLedger()
	l.Open("a", at(0))
	l.Open("b", at(0))
	l.Record(sample(0, map[string]time.Duration{}, map[*Zone]float64{pkg: 0}))
	l.Record(sample(2, map[string]time.Duration{"a": 2 * time.Second, "b": time.Second}, map[*Zone]float64{pkg: 60}))
	l.Record(sample(3, map[string]time.Duration{"a": 4 * time.Second, "b": 2 * time.Second}, map[*Zone]float64{pkg: 90}))
	l.Record(sample(3.4, nil, map[*Zone]float64{pkg: 102}))
	l.Record(sample(4, nil, map[*Zone]float64{pkg: 120}))
	a := l.Close("a", at(4))
	near(t, "a", joules(t, a.Total), 60+15, 1e-4)
	if a.ShareMethod != "cpu time 75.0 %, equal 25.0 %" {
		t.Errorf("got share method %q", a.ShareMethod)
	}
}

func TestUnknownIsNeverZero(t *testing.T) {
	fail := func(l *Ledger, s float64) {
		l.Record(Sample{Sampler: "rapl", At: at(s), Faults: []Fault{{pkg, at(s), "input/output error"}}})
	}
	tests := []struct {
		name   string
		run    func(l *Ledger)
		reason string
	}{
		{"no sensor", func(l *Ledger) {}, "no sensor that counts"},
		{"one reading only", func(l *Ledger) { steady(l, pkg, 50, 2, 2) }, "no reading"},
		{"only before the window", func(l *Ledger) { steady(l, pkg, 50, 0, 1) }, "no reading"},
		{"only faults", func(l *Ledger) { fail(l, 1); fail(l, 3) }, "package-0: input/output error"},
		{"no counted zone", func(l *Ledger) { steady(l, core, 50, 0, 9) }, "no sensor that counts"},
		{"stuck counter", func(l *Ledger) { steady(l, pkg, 0, 0, 9) }, "does not move"},
		{"stuck counter, read twice", func(l *Ledger) { steady(l, pkg, 0, 2, 2.1) }, "does not move"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := NewLedger()
			l.Open("job", at(1))
			test.run(l)
			a := l.Close("job", at(4))
			if a.Total.Source != Unavailable || a.Total.Energy != nil || a.Total.ErrorBound != nil || a.MeanPower != nil || a.Total.CoveragePercent != 0 {
				t.Errorf("got total %+v, mean power %v, want none", a.Total, a.MeanPower)
			}
			if !strings.Contains(a.Total.Method, test.reason) || a.ShareMethod != "none" {
				t.Errorf("got method %q, share method %q; want %q and none", a.Total.Method, a.ShareMethod, test.reason)
			}
			text, err := json.Marshal(a)
			if err != nil || strings.Contains(string(text), `"joules":0`) {
				t.Errorf("as JSON: %s, %v", text, err)
			}
		})
	}
}

// Up to a tenth of the net by an unknown process goes to the job and its bound; with more, job
// and rest are unknown.
func TestAmbiguousUseBoundsTheJob(t *testing.T) {
	for _, test := range []struct {
		hidden float64 // s in which the usage is unknown, of 10
		known  bool
	}{{0, true}, {1, true}, {1.2, false}} {
		m := newMachine(pkg)
		m.run(10, constant(20), nil)
		m.open("job")
		m.run(10-test.hidden, constant(120), map[string]float64{"job": 3, "": 1})
		m.hidesUsage = true
		m.ledger.zones[0].usage = nil // no earlier delta stands in
		m.run(test.hidden, constant(120), nil)
		a := m.close("job")
		near(t, "net", joules(t, a.Net), 1000, 1e-3)
		if (a.Job.Energy != nil) != test.known || (a.Rest.Energy != nil) != test.known {
			t.Errorf("unknown for %v s: got job %+v and rest %+v, want known: %v", test.hidden, a.Job, a.Rest, test.known)
		}
		if test.known {
			ambiguous := 100 * test.hidden
			near(t, "job", joules(t, a.Job), (1000-ambiguous)*0.75+ambiguous, 0.1)
			near(t, "rest", joules(t, a.Rest), (1000-ambiguous)*0.25, 0.1)
			near(t, "bound of job", float64(*a.Job.ErrorBound-*a.Net.ErrorBound), ambiguous, 1e-3)
			near(t, "bound of rest", float64(*a.Rest.ErrorBound-*a.Net.ErrorBound), ambiguous, 1e-3)
		} else if a.Job.Method != "the use by process is unknown" || a.Rest.Method != a.Job.Method {
			t.Errorf("got methods %q and %q", a.Job.Method, a.Rest.Method)
		}
	}
}

// A card reports its use once a second and is read ten times as often: a Usage covers the whole
// second, and is also used for the time between it and the end of a job.
func TestRareUsageCoversAllOfItsTime(t *testing.T) {
	l := NewLedger()
	l.RestoreBaselines(map[string]Baseline{card.ID: {Power: 20, LearnedAt: at(0)}})
	for i := range 95 {
		now := float64(i) / 10
		r := reading(card, now, 100*now)
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
		t.Errorf("got share method %q, want gpu use", a.ShareMethod)
	}
}

func TestDomainsHaveTheirOwnBreakdown(t *testing.T) {
	l := NewLedger()
	l.RestoreBaselines(map[string]Baseline{pkg.ID: {Power: 20, Spread: 1, LearnedAt: at(0)}})
	l.Open("job", at(0))
	cpuTimes := map[string]time.Duration{}
	for i := range 41 {
		now := float64(i) / 10
		cpuTimes["job"] = seconds(3 * now)
		usage := &Usage{Method: "cpu time", Jobs: maps.Clone(cpuTimes), Busy: seconds(4 * now), Capacity: seconds(8 * now)}
		p, d := reading(pkg, now, 100*now), reading(dram, now, 5*now)
		p.Usage, d.Usage = usage, usage
		record(l, now, p, d)
	}
	a := l.Close("job", at(4))
	cpu, memory := a.Domains[DomainCPU], a.Domains[DomainDRAM]
	near(t, "cpu job", joules(t, cpu.Job), 240, 1e-3)
	near(t, "cpu rest", joules(t, cpu.Rest), 80, 1e-3)
	near(t, "cpu idle", joules(t, cpu.Idle), 80, 1e-3)
	near(t, "cpu idle bound", float64(*cpu.Idle.ErrorBound), 4, 1e-9)
	if memory.Idle.Energy != nil || memory.Idle.Method != "no idle baseline of dram: the machine has not been idle for long enough" {
		t.Errorf("dram idle: got %+v, want none", memory.Idle)
	}
	if a.Idle.Method != memory.Idle.Method || a.Baseline != nil {
		t.Errorf("idle: got %+v and baseline %+v, want none for want of dram's", a.Idle, a.Baseline)
	}
	near(t, "total", joules(t, a.Total), 420, 1e-3)
}
