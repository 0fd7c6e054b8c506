package main

import (
	"slices"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

// This file is the other side of the comparison: it knows the curves and nothing of the
// meter that is measured.

// truthStep is the step of its integrals. Edges and jumps lie on multiples of it.
const truthStep = 100 * time.Microsecond

// work is a job as it truly was.
type work struct {
	from, to time.Duration
	threads  fakehw.Curve // in use by it, while it ran
}

// load is a machine's power and who used it.
type load struct {
	power  fakehw.Curve // W of all that counts
	idle   float64      // W of it without any work
	others fakehw.Curve // threads in use by no job; nil: none
	jobs   []work
}

// cost is what one job truly cost, in J. total = idle + own + rest.
type cost struct{ total, idle, own, rest float64 }

// cost of a job: ∫ power · threads_i / Σ threads of the jobs that ran, over its time. What
// lies above the idle machine is the jobs' own by their part of all threads in use.
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
		others := 0.0
		if l.others != nil {
			others = l.others(middle)
		}
		share := mine / jobs
		energy := l.power(middle) * truthStep.Seconds()
		idle := l.idle * truthStep.Seconds()
		c.total += share * energy
		c.idle += share * idle
		c.own += share * (energy - idle) * jobs / (jobs + others)
		c.rest += share * (energy - idle) * others / (jobs + others)
	}
	return c
}

// peak is the highest power within a length of time.
func peak(power fakehw.Curve, from, to time.Duration) float64 {
	highest := 0.0
	for at := max(0, from); at <= to; at += time.Millisecond / 2 {
		highest = max(highest, power(at))
	}
	return highest
}

// sum of curves.
func sum(curves ...fakehw.Curve) fakehw.Curve {
	return func(at time.Duration) float64 {
		all := 0.0
		for _, c := range curves {
			all += c(at)
		}
		return all
	}
}

// stretches of time that are covered by at least one of others, which may overlap, in
// order.
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
