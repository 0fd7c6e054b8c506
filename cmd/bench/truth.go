package main

import (
	"slices"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

// This file computes the true energy from the curves. It must not use the meter's code:
// TestTruthDoesNotImportMeter.

// truthStep is the step of the integrals. Edges and steps of power are at multiples of it.
const truthStep = 100 * time.Microsecond

// work is a job's true CPU use.
type work struct {
	from, to time.Duration
	threads  fakehw.Curve // in use by the job
}

// load is a machine's power and its use.
type load struct {
	power        fakehw.Curve // of the counted zones, in W
	idle         float64      // power without work, in W
	otherThreads fakehw.Curve // threads in use outside jobs; nil: none
	jobs         []work
}

// cost is the true energy of one job, in J. total = idle + own + rest.
type cost struct{ total, idle, own, rest float64 }

// cost returns job i's share of the energy while it ran: ∫ power · threads_i / Σ threads of
// running jobs. Above idle power, jobs and other processes split it by threads in use.
func (l *load) cost(i int) cost {
	var c cost
	for at := l.jobs[i].from; at < l.jobs[i].to; at += truthStep {
		middle := at + truthStep/2
		mine, jobs := 0.0, 0.0
		for k, job := range l.jobs {
			if job.from <= middle && middle < job.to {
				used := job.threads(middle)
				jobs += used
				if k == i {
					mine = used
				}
			}
		}
		otherThreads := 0.0
		if l.otherThreads != nil {
			otherThreads = l.otherThreads(middle)
		}
		share := mine / jobs
		energy := l.power(middle) * truthStep.Seconds()
		idle := l.idle * truthStep.Seconds()
		c.total += share * energy
		c.idle += share * idle
		c.own += share * (energy - idle) * jobs / (jobs + otherThreads)
		c.rest += share * (energy - idle) * otherThreads / (jobs + otherThreads)
	}
	return c
}

// peak returns the highest power in a period.
func peak(power fakehw.Curve, from, to time.Duration) float64 {
	highest := 0.0
	for at := max(0, from); at <= to; at += time.Millisecond / 2 {
		highest = max(highest, power(at))
	}
	return highest
}

// sum adds curves.
func sum(curves ...fakehw.Curve) fakehw.Curve {
	return func(at time.Duration) float64 {
		all := 0.0
		for _, c := range curves {
			all += c(at)
		}
		return all
	}
}

// union returns the periods covered by at least one span, in order.
func union(spans [][2]time.Duration) [][2]time.Duration {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b [2]time.Duration) int { return int(a[0] - b[0]) })
	var joined [][2]time.Duration
	for _, s := range spans {
		if last := len(joined) - 1; last >= 0 && s[0] <= joined[last][1] {
			joined[last][1] = max(joined[last][1], s[1])
		} else {
			joined = append(joined, s)
		}
	}
	return joined
}
