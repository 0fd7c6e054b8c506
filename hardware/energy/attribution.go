package energy

import "time"

// attribution is an amount of energy, divided by its use.
type attribution struct {
	job       Microjoules // processes of jobs
	idle      Microjoules // the baseline
	rest      Microjoules // processes of no job
	ambiguous Microjoules // job or rest: the use by process is unknown
	undivided Microjoules // unknown, without a baseline
}

func (a attribution) total() Microjoules { return a.job + a.idle + a.rest + a.ambiguous + a.undivided }

func (a attribution) plus(b attribution) attribution {
	return attribution{a.job + b.job, a.idle + b.idle, a.rest + b.rest, a.ambiguous + b.ambiguous, a.undivided + b.undivided}
}

func (a attribution) minus(b attribution) attribution {
	return attribution{a.job - b.job, a.idle - b.idle, a.rest - b.rest, a.ambiguous - b.ambiguous, a.undivided - b.undivided}
}

// portion returns the same portion of each part.
func (a attribution) portion(part, whole int64) attribution {
	return attribution{
		portion(a.job, part, whole), portion(a.idle, part, whole), portion(a.rest, part, whole),
		portion(a.ambiguous, part, whole), portion(a.undivided, part, whole),
	}
}

// Methods of sharing other than a Usage.Method.
const (
	shareAlone = "alone" // no other window was open
	shareEqual = "equal" // the use is unknown, or there was none
)

// allocation divides the energy of a piece among the windows that are open in it. The shares, or
// outside if there are none, add up to the piece's energy.
type allocation struct {
	method  string
	shares  []share
	outside attribution
}

// share is the part of one window.
type share struct {
	window *window
	attribution
}

// allocate divides a piece among the windows that began before it or with it, in proportion to
// their jobs' use per second. No window may begin inside the piece, and none of the open ones may
// end before it.
func (s *step) allocate(open []*window, idle *idleAllocator) allocation {
	var begun []*window
	for _, w := range open {
		if w.from <= s.from {
			begun = append(begun, w)
		}
	}
	rates := newUseRates(s.usage.orPrevious(s.from), begun)
	left := rates.attribute(s.energy, s.length(), idle)
	if len(begun) == 0 {
		return allocation{outside: left}
	}
	weights, method := rates.weights()
	if len(begun) == 1 {
		method = shareAlone
	}
	var sum int64
	for _, weight := range weights {
		sum += weight
	}
	a := allocation{method: method}
	for i, w := range begun {
		one := left.portion(weights[i], sum)
		left = left.minus(one)
		sum -= weights[i]
		a.shares = append(a.shares, share{w, one})
	}
	return a
}

// attribute divides energy into the idle baseline and, by use, the jobs' processes and the rest.
func (r useRates) attribute(energy Microjoules, length time.Duration, idle *idleAllocator) attribution {
	base, known := idle.allocate(energy, length, len(r.jobs) > 0)
	if !known {
		return attribution{undivided: energy}
	}
	a := attribution{idle: base}
	net := energy - base
	var jobs int64
	for _, rate := range r.jobs {
		jobs += rate
	}
	switch {
	case len(r.jobs) == 0:
		a.rest = net
	case !r.jobsKnown || !r.othersKnown || jobs+r.others == 0:
		a.ambiguous = net
	default:
		a.job = portion(net, jobs, jobs+r.others)
		a.rest = net - a.job
	}
	return a
}
