package energy

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// instant is a moment on the ledger's own clock: the time since the first moment
// it heard of, on Go's monotonic clock, which no change of the wall clock moves.
type instant = time.Duration

// stillOpen is the end of a window that has none yet.
const stillOpen instant = math.MaxInt64

// span is the time between two readings of a zone, what was used in it and who
// used the zone meanwhile.
type span struct {
	from, to instant
	energy   Microjoules
	gap      bool         // what was used is not known
	usage    *period      // that the span lies in
	cross    *Microjoules // the second opinion on energy; nil: there is none
	doubt    Microjoules  // how far energy may be off by the sensor's own error
	busy     *float64     // the part in use at its end, where usage does not tell; nil: not known
	power    Watts        // the highest mean that it shows, see trail
}

// trail is the latest spans of a zone without a gap, as many as it takes for a mean power: over
// less than the sensor needs to renew its value, a step of the counter would look like a burst.
type trail []*span

const (
	shortestMean = 10 * time.Millisecond
	manyUpdates  = 10 // of the sensor's value, among which one more or less makes no burst
)

// add takes the next span and sets its power.
func (t *trail) add(s *span, update time.Duration) {
	if s.gap {
		*t = nil
		return
	}
	*t = append(*t, s)
	enough := max(update, shortestMean)
	for len(*t) > 1 && s.to-(*t)[1].from >= enough {
		*t = slices.Delete(*t, 0, 1)
	}
	var sum Microjoules
	for _, one := range *t {
		sum += one.energy
	}
	over := func(e Microjoules, length time.Duration) Watts { return Watts(float64(e.Joules()) / length.Seconds()) }
	s.power = max(over(sum, max(s.to-(*t)[0].from, enough)), over(s.energy, max(s.to-s.from, manyUpdates*update, shortestMean)))
}

// period is the time between two readings that told who uses the zone. It may hold
// several spans, and is open until the second one.
type period struct {
	from, to      instant
	before, after *Usage         // at its ends; nil: not known, or still open
	others        *time.Duration // use by whom no job is; nil: not known
	last          *period        // the one before; nil once closed
}

// lasting is how long after its end a period stands for one that is still open.
const lasting = 3 * time.Second

// known is the period itself or, while it is open, the one before: a job's end does not
// wait for the next word of use.
func (p *period) known(at instant) *period {
	if p != nil && p.after == nil && p.last != nil && at-p.last.to < lasting {
		return p.last
	}
	return p
}

// interval is a span or what is left of one after cuts.
type interval struct {
	*span
	from, to instant
	energy   Microjoules // 0 in a gap
}

// cut divides an interval at a moment inside it, in proportion to time.
func (iv interval) cut(at instant) (head, tail interval) {
	head, tail = iv, iv
	head.to, tail.from = at, at
	head.energy = portion(iv.energy, at-iv.from, iv.to-iv.from)
	tail.energy = iv.energy - head.energy
	return head, tail
}

// How a piece of energy came to one of the jobs; else by Usage.Method.
const (
	shareAlone = "alone" // nobody else ran
	shareEqual = "equal" // use not known, or nobody used any
)

// stretch is a part of an interval in which no window opens or closes, and whose
// it is. The parts add up: energy = Σ idle + own + rest + vague of its shares, or of
// loose where it has none.
type stretch struct {
	length time.Duration
	energy Microjoules
	method string
	shares []share // one for each window that is open in it
	loose  parts   // what is nobody's, in the time without a window
}

// share is what one window got of a stretch.
type share struct {
	owner *window
	parts
}

// parts are what energy was used for.
type parts struct {
	own       Microjoules // the jobs' own processes
	idle      Microjoules // the baseline
	rest      Microjoules // processes of no job
	vague     Microjoules // own or rest: who used what is not known
	undivided Microjoules // no baseline is known, so that nothing can be told
}

func (p parts) sum() Microjoules { return p.own + p.idle + p.rest + p.vague + p.undivided }

func (p *parts) add(q parts) {
	p.own += q.own
	p.idle += q.idle
	p.rest += q.rest
	p.vague += q.vague
	p.undivided += q.undivided
}

// portion of each part, by weight.
func (p parts) portion(weight, sum uint64) parts {
	of := func(e Microjoules) Microjoules { return portion(e, time.Duration(weight), time.Duration(sum)) }
	return parts{of(p.own), of(p.idle), of(p.rest), of(p.vague), of(p.undivided)}
}

func (p parts) minus(q parts) parts {
	return parts{p.own - q.own, p.idle - q.idle, p.rest - q.rest, p.vague - q.vague, p.undivided - q.undivided}
}

// split divides an interval among the windows that overlap it. It is cut at
// their edges in proportion to time; where several overlap, by what each used per
// second in the span. The stretches' parts add up to the interval's energy.
func split(iv interval, windows []*window, idle *idleBudget) []stretch {
	var stretches []stretch
	for _, edge := range edges(iv, windows) {
		var head interval
		head, iv = iv.cut(edge)
		stretches = append(stretches, deal(head, windows, idle))
	}
	return append(stretches, deal(iv, windows, idle))
}

// edges are the moments inside an interval at which a window opens or closes.
func edges(iv interval, windows []*window) []instant {
	var at []instant
	for _, w := range windows {
		for _, edge := range [2]instant{w.from, w.to} {
			if iv.from < edge && edge < iv.to {
				at = append(at, edge)
			}
		}
	}
	slices.Sort(at)
	return slices.Compact(at)
}

// deal divides an interval in which no window opens or closes.
func deal(iv interval, windows []*window, idle *idleBudget) stretch {
	var owners []*window
	for _, w := range windows {
		if w.from <= iv.from && iv.to <= w.to {
			owners = append(owners, w)
		}
	}
	s := stretch{length: iv.to - iv.from, energy: iv.energy, method: shareAlone}
	period := iv.usage.known(iv.from)
	used := use(period, owners)
	whole := used.divide(iv.energy, s.length, idle)
	if len(owners) == 0 {
		s.loose = whole
		return s
	}
	weights := []uint64{1}
	if len(owners) > 1 {
		weights, s.method = used.weigh(period)
	}
	var sum uint64
	for _, weight := range weights {
		sum += weight
	}
	left := whole
	for i, owner := range owners {
		one := left.portion(weights[i], sum)
		left = left.minus(one)
		sum -= weights[i]
		s.shares = append(s.shares, share{owner, one})
	}
	return s
}

// uses are what owners used per second in a period, in billionths of a unit (of a
// thread, of a card), and what all others did.
type uses struct {
	rates       []uint64
	known       bool // each owner's
	others      uint64
	othersKnown bool
}

func use(p *period, owners []*window) uses {
	u := uses{rates: make([]uint64, len(owners)), known: p != nil && p.after != nil}
	if !u.known {
		return u
	}
	for i, owner := range owners {
		rate, known := useRate(p, owner)
		u.rates[i], u.known = rate, u.known && known
	}
	if p.others != nil {
		u.others, u.othersKnown = uint64(portion(Microjoules(*p.others), 1e9, p.to-p.from)), true
	}
	return u
}

// divide tells what energy was used for: first the baseline, then, by use, the jobs'
// own processes and the rest.
func (u uses) divide(energy Microjoules, length time.Duration, idle *idleBudget) parts {
	base, known := idle.take(energy, length, len(u.rates) > 0)
	if !known {
		return parts{undivided: energy}
	}
	p := parts{idle: base}
	net := energy - base
	var own uint64
	for _, rate := range u.rates {
		own += rate
	}
	switch {
	case len(u.rates) == 0:
		p.rest = net
	case !u.known || !u.othersKnown || own+u.others == 0:
		p.vague = net
	default:
		p.own = portion(net, time.Duration(own), time.Duration(own+u.others))
		p.rest = net - p.own
	}
	return p
}

// weigh gives each owner its use, or all the same where that is not known of each
// or nobody used any.
func (u uses) weigh(p *period) ([]uint64, string) {
	if u.known && slices.ContainsFunc(u.rates, func(rate uint64) bool { return rate > 0 }) {
		return u.rates, p.after.Method
	}
	weights := make([]uint64, len(u.rates))
	for i := range weights {
		weights[i] = 1
	}
	return weights, shareEqual
}

// mostThreads bounds what is believed of a use per time; products of it stay in 64
// bits.
const mostThreads = 1 << 20

// useRate is what a job used per second in a period: its use by the time it ran in
// it. A job that began in it began at 0.
func useRate(p *period, w *window) (rate uint64, known bool) {
	var before time.Duration
	known = w.from >= p.from
	if p.before != nil {
		if used, ok := p.before.Jobs[w.job]; ok {
			before, known = used, true
		}
	}
	after, ok := p.after.Jobs[w.job]
	ran := min(w.to, p.to) - max(w.from, p.from)
	if !known || !ok || after < before || ran <= 0 || (after-before)/mostThreads > ran {
		return 0, false
	}
	return uint64(portion(Microjoules(after-before), 1e9, ran)), true
}

// portion is amount × part / whole, rounded down, with 128 bits between. whole 0
// gives the amount: what is left goes to the last.
func portion(amount Microjoules, part, whole time.Duration) Microjoules {
	if whole <= 0 {
		return amount
	}
	high, low := bits.Mul64(uint64(amount), uint64(part))
	quotient, _ := bits.Div64(high, low, uint64(whole))
	return Microjoules(quotient)
}
