package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// shareScenario is a machine whose power depends on the threads in use, with one or more jobs.
// Times are relative to the first job's start.
type shareScenario struct {
	name         string
	idle         fakehw.Curve // power without work, in W
	mean         float64      // of idle
	swing        float64      // amplitude of idle, in W
	otherThreads fakehw.Curve // threads used outside jobs; nil: none
	jobs         []work
	note         string
}

const (
	// idleLeadIn is the idle time before the jobs, enough to learn a baseline.
	idleLeadIn     = 14 * second
	wattsPerThread = 9 // of a busy thread
)

// shareScenarios have jobs of known CPU time.
func shareScenarios() []shareScenario {
	whole := func(threads fakehw.Curve) []work { return []work{{to: 8 * second, threads: threads}} }
	four := []work{
		{from: 0, to: 7 * second, threads: fakehw.Sine(4, 2, 2300*time.Millisecond)},
		{from: 1130 * time.Millisecond, to: 8210 * time.Millisecond, threads: fakehw.Ramp(1, 6, 8*second)},
		{from: 1990 * time.Millisecond, to: 6470 * time.Millisecond, threads: fakehw.Bursts(1, 5, 800*time.Millisecond, 1900*time.Millisecond)},
		{from: 3310 * time.Millisecond, to: 9020 * time.Millisecond, threads: fakehw.Constant(0.4)},
	}
	otherProcesses := fakehw.Sine(2, 1.5, 3100*time.Millisecond)
	noisy := fakehw.Sine(40, 2, 3300*time.Millisecond)
	return []shareScenario{
		{name: "alone", idle: fakehw.Constant(40), mean: 40, jobs: whole(fakehw.Sine(6, 3, 1900*time.Millisecond))},
		{name: "alone, noisy idle", idle: noisy, mean: 40, swing: 2, jobs: whole(fakehw.Sine(6, 3, 1900*time.Millisecond))},
		{name: "alone, with others", idle: fakehw.Constant(40), mean: 40, otherThreads: otherProcesses, jobs: whole(fakehw.Constant(6))},
		{name: "four jobs", idle: fakehw.Constant(40), mean: 40, jobs: four},
		{name: "four and others", idle: noisy, mean: 40, swing: 2, otherThreads: otherProcesses, jobs: four,
			note: "others: 0.5 to 3.5 threads outside jobs; idle power varies by ± 2 W"},
	}
}

// scenario returns the machine and its jobs for a start of the first job.
func (s *shareScenario) scenario(start time.Duration) (*scenario, []work) {
	jobs := make([]work, len(s.jobs))
	jobThreads := func(at time.Duration) float64 {
		all := 0.0
		for _, job := range jobs {
			if job.from <= at && at < job.to {
				all += job.threads(at)
			}
		}
		return all
	}
	for i, job := range s.jobs {
		jobs[i] = work{from: start + job.from, to: start + job.to, threads: job.threads}
	}
	machine := &scenario{name: s.name, counted: onePackage, idle: s.mean, idleSwing: s.swing}
	otherThreads := fakehw.Constant(0)
	if s.otherThreads != nil {
		otherThreads = func(at time.Duration) float64 {
			if at < start {
				return 0
			}
			return s.otherThreads(at)
		}
		machine.otherThreads = otherThreads
	}
	machine.zones = packageZone(func(at time.Duration) float64 { return s.idle(at) + wattsPerThread*(jobThreads(at)+otherThreads(at)) })
	return machine, jobs
}

// measureShares runs a scenario several times and returns the worst row of each job and part.
func measureShares(s shareScenario, o *options) ([]row, error) {
	var worst []*row
	windows := max(1, o.windows/4)
	for n := range windows {
		rnd := rand.New(rand.NewPCG(o.seed, uint64(n)))
		start := idleLeadIn + time.Duration(rnd.Int64N(int64(second))).Truncate(truthStep)
		scenario, jobs := s.scenario(start)
		r, err := simulate(scenario, jobs, rnd)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		for i, row := range r.shares() {
			if n == 0 {
				worst = append(worst, nil)
			}
			worst[i] = worse(worst[i], row)
		}
	}
	rows := make([]row, len(worst))
	for i, w := range worst {
		w.Windows = windows
		if i == len(worst)-1 && s.note != "" {
			w.Notes = append(w.Notes, s.note)
		}
		rows[i] = *w
	}
	return rows, nil
}

// shares compares each job's total and its parts, and the sum of all jobs.
func (r *run) shares() []*row {
	var rows []*row
	var sumTrue float64
	var sumMeasured number
	spans := make([][2]time.Duration, len(r.load.jobs))
	for i, job := range r.load.jobs {
		a, c := r.accounts[i], r.load.cost(i)
		name := r.scenario.name
		if len(r.load.jobs) > 1 {
			name += ": " + jobName(i)
		}
		for _, part := range []struct {
			what   string
			truth  float64
			figure energy.Figure
			always bool // compared for overlapping jobs, too
		}{
			{"", c.total, a.Total, true}, {", idle", c.idle, a.Idle, false}, {", net", c.own + c.rest, a.Net, false},
			{", own", c.own, a.Job, true}, {", rest", c.rest, a.Rest, true},
		} {
			if part.truth == 0 || len(r.load.jobs) > 1 && !part.always {
				continue
			}
			row := &row{Section: sectionShares, Scenario: name + part.what, True: part.truth, Measured: value(part.figure),
				Reported: bound(part.figure), Edge: r.edge(job), Relative: 0.01}
			if part.what != "" { // idle power varies about its baseline
				row.Edge += r.scenario.idleSwing / r.load.idle * c.idle
			}
			if len(r.load.jobs) > 1 && part.what == "" && a.ShareMethod != "cpu time" {
				row.Violations = append(row.Violations, "shared by "+a.ShareMethod)
			}
			row.check()
			rows = append(rows, row)
		}
		sumMeasured += value(a.Total)
		spans[i] = [2]time.Duration{job.from, job.to}
	}
	if len(r.load.jobs) == 1 {
		return rows
	}
	for _, s := range union(spans) {
		sumTrue += r.load.power.Joules(s[0], s[1])
	}
	all := &row{Section: sectionShares, Scenario: r.scenario.name + ": sum of all", True: sumTrue, Measured: sumMeasured,
		Edge: r.edge(work{from: spans[0][0], to: r.length}), Relative: 0.001}
	all.check()
	return append(rows, all)
}
