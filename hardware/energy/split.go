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

// span is the time between two readings of a zone, what was used in it and the
// CPU times of the jobs at its two ends.
type span struct {
	from, to      instant
	energy        Microjoules
	gap           bool // what was used is not known
	before, after map[string]time.Duration
}

// power is the mean over a span, or over ten of the sensor's updates if that is
// longer: two readings shortly after each other would look like a burst.
func (s *span) power(update time.Duration) Watts {
	return Watts(float64(s.energy) / 1e6 / max(s.to-s.from, 10*update).Seconds())
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

// shareMethod is how a piece of energy came to one of the jobs.
type shareMethod int

const (
	alone   shareMethod = iota // nobody else ran
	cpuTime                    // by CPU time used
	equal                      // CPU times not known, or nobody used any
)

// piece is a part of an interval and whose it is.
type piece struct {
	owner   *window // nil: nobody's, the rest of the machine
	length  time.Duration
	share   Microjoules // the owner's
	machine Microjoules // of all owners in this length of time
	method  shareMethod
}

// split divides an interval among the windows that overlap it. It is cut at
// their edges in proportion to time; where several overlap, by the CPU each used
// per second in the span. The pieces' shares add up to the interval's energy.
func split(iv interval, windows []*window) []piece {
	var pieces []piece
	for _, edge := range edges(iv, windows) {
		var part interval
		part, iv = iv.cut(edge)
		pieces = deal(pieces, part, windows)
	}
	return deal(pieces, iv, windows)
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

// deal appends the pieces of an interval in which no window opens or closes.
func deal(pieces []piece, iv interval, windows []*window) []piece {
	var owners []*window
	for _, w := range windows {
		if w.from <= iv.from && iv.to <= w.to {
			owners = append(owners, w)
		}
	}
	whole := piece{length: iv.to - iv.from, share: iv.energy, machine: iv.energy}
	switch len(owners) {
	case 0:
		return append(pieces, whole)
	case 1:
		whole.owner = owners[0]
		return append(pieces, whole)
	}
	weights, method := weigh(iv.span, owners)
	var sum uint64
	for _, weight := range weights {
		sum += weight
	}
	left := iv.energy
	for i, owner := range owners {
		one := whole
		one.owner, one.method = owner, method
		one.share = portion(left, time.Duration(weights[i]), time.Duration(sum))
		left -= one.share
		sum -= weights[i]
		pieces = append(pieces, one)
	}
	return pieces
}

// weigh gives each owner its CPU use in the span, or all the same where that is
// not known of each or nobody used any.
func weigh(s *span, owners []*window) ([]uint64, shareMethod) {
	weights := make([]uint64, len(owners))
	method, used := cpuTime, false
	for i, owner := range owners {
		rate, known := cpuRate(s, owner)
		if !known {
			method = equal
		}
		weights[i] = rate
		used = used || rate > 0
	}
	if method == cpuTime && used {
		return weights, cpuTime
	}
	for i := range weights {
		weights[i] = 1
	}
	return weights, equal
}

// cpuRate is the CPU a job used in a span, in billionths of a thread: its CPU
// time by the time it ran in the span. A job that began in it began at 0.
func cpuRate(s *span, w *window) (rate uint64, known bool) {
	before, ok := s.before[w.job]
	if !ok && w.from < s.from {
		return 0, false
	}
	after, ok := s.after[w.job]
	ran := min(w.to, s.to) - max(w.from, s.from)
	const mostThreads = 1 << 20 // more is nonsense, and the product below stays in 64 bits
	if !ok || after < before || ran <= 0 || (after-before)/mostThreads > ran {
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
