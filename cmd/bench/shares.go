package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// shared is a machine whose power follows who uses it, and jobs that overlap on it.
type shared struct {
	name   string
	idle   fakehw.Curve  // W without any work
	mean   float64       // of idle
	swing  float64       // of idle, W: no baseline can tell it better
	others *fakehw.Curve // threads used by no job, since the first job's start; nil: none
	jobs   []work        // since the first one's start
	note   string
}

const (
	// restful is how long the machine is idle at first, so that its baseline is known.
	restful = 14 * second
	// perThread is what one busy thread uses, in W.
	perThread = 9
)

// overlaps are machines with several jobs of known CPU time.
func overlaps() []shared {
	whole := func(threads fakehw.Curve) []work { return []work{{to: 8 * second, threads: threads}} }
	four := []work{
		{from: 0, to: 7 * second, threads: fakehw.Sine(4, 2, 2300*time.Millisecond)},
		{from: 1130 * time.Millisecond, to: 8210 * time.Millisecond, threads: fakehw.Ramp(1, 6, 8*second)},
		{from: 1990 * time.Millisecond, to: 6470 * time.Millisecond, threads: fakehw.Bursts(1, 5, 800*time.Millisecond, 1900*time.Millisecond)},
		{from: 3310 * time.Millisecond, to: 9020 * time.Millisecond, threads: fakehw.Constant(0.4)},
	}
	strangers := fakehw.Sine(2, 1.5, 3100*time.Millisecond)
	noisy := fakehw.Sine(40, 2, 3300*time.Millisecond)
	return []shared{
		{name: "alone", idle: fakehw.Constant(40), mean: 40, jobs: whole(fakehw.Sine(6, 3, 1900*time.Millisecond))},
		{name: "alone, noisy idle", idle: noisy, mean: 40, swing: 2, jobs: whole(fakehw.Sine(6, 3, 1900*time.Millisecond))},
		{name: "alone beside others", idle: fakehw.Constant(40), mean: 40, others: &strangers, jobs: whole(fakehw.Constant(6))},
		{name: "four jobs", idle: fakehw.Constant(40), mean: 40, jobs: four},
		{name: "four and others", idle: noisy, mean: 40, swing: 2, others: &strangers, jobs: four,
			note: "others: 0.5 to 3.5 threads of no job; idle swings by ± 2 W"},
	}
}

// scenario of a shared machine.
func (s *shared) scenario(start time.Duration) (*scenario, []work) {
	jobs := make([]work, len(s.jobs))
	use := func(at time.Duration) float64 {
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
	made := &scenario{name: s.name, adds: onePackage, idle: s.mean, restless: s.swing}
	others := fakehw.Constant(0)
	if s.others != nil {
		others = func(at time.Duration) float64 {
			if at < start {
				return 0
			}
			return (*s.others)(at)
		}
		made.others = others
	}
	made.zones = pkg(func(at time.Duration) float64 { return s.idle(at) + perThread*(use(at)+others(at)) })
	return made, jobs
}

// measureShares plays a shared machine many times and gives, of each job and of each part
// of it, the worst.
func measureShares(s shared, o *options) ([]row, error) {
	var worst []*row
	windows := max(1, o.windows/4)
	for n := range windows {
		rnd := rand.New(rand.NewPCG(o.seed, uint64(n)))
		start := restful + time.Duration(rnd.Int64N(int64(second))).Truncate(truthStep)
		scenario, jobs := s.scenario(start)
		r, err := perform(scenario, jobs, rnd)
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

// shares compares each job's share, its parts, and the sum of all.
func (r *run) shares() []*row {
	var rows []*row
	var sumTrue float64
	var sumOurs number
	spans := make([][2]time.Duration, len(r.load.jobs))
	for i, job := range r.load.jobs {
		a, c := r.accounts[i], r.load.cost(i)
		name := r.scenario.name
		if len(r.load.jobs) > 1 {
			name += ": " + jobName(i)
		}
		for _, part := range []struct {
			what   string
			truly  float64
			figure energy.Figure
			always bool // also of jobs that overlap
		}{
			{"", c.total, a.Total, true}, {", idle", c.idle, a.Idle, false}, {", net", c.own + c.rest, a.Net, false},
			{", own", c.own, a.Job, true}, {", rest", c.rest, a.Rest, true},
		} {
			if part.truly == 0 || len(r.load.jobs) > 1 && !part.always {
				continue
			}
			row := &row{Section: sectionShares, Scenario: name + part.what, True: part.truly, Ours: value(part.figure),
				Promised: bound(part.figure), Edge: r.edge(job), Relative: 0.01}
			if part.what != "" { // by the idle machine's own swing
				row.Edge += r.scenario.restless / r.load.idle * c.idle
			}
			if len(r.load.jobs) > 1 && part.what == "" && a.ShareMethod != "cpu time" {
				row.Faults = append(row.Faults, "shared by "+a.ShareMethod)
			}
			row.judge()
			rows = append(rows, row)
		}
		sumOurs += value(a.Total)
		spans[i] = [2]time.Duration{job.from, job.to}
	}
	if len(r.load.jobs) == 1 {
		return rows
	}
	for _, s := range union(spans) {
		sumTrue += r.load.power.Joules(s[0], s[1])
	}
	all := &row{Section: sectionShares, Scenario: r.scenario.name + ": sum of all", True: sumTrue, Ours: sumOurs,
		Edge: r.edge(work{from: spans[0][0], to: r.length}), Relative: 0.001}
	all.judge()
	return append(rows, all)
}
