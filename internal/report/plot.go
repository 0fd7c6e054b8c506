package report

import (
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/messages/job"

	"ffmpeg-agent/hardware/energy"
)

// slot is one point of the curve in W.
type slot struct {
	from, to        int64      // ms since the curve's start
	zones           []*float64 // nil: not read
	total           float64    // of the counted zones that were read
	some, whole     bool       // some, all of the counted zones were read
	job, idle, rest *float64   // nil: not known
}

func (s *slot) ms() int64 { return s.to - s.from }

// plot is what the chart is drawn from.
type plot struct {
	zones    []energy.CurveZone // those counted first, by domain: the lowest of the stack first
	slots    []slot
	start    time.Time
	span     int64 // ms
	from, to int64 // the energy window, ms; from = to: not known
	phases   []job.PhaseSpan
}

// newPlot takes what can be drawn of a curve; nil where there is nothing.
func newPlot(s *job.Samples, account *energy.Account) *plot {
	if s == nil {
		return nil
	}
	p := &plot{start: s.Curve.Start, phases: s.Phases}
	order := p.orderZones(s.Curve.Zones)
	for i := range s.Curve.Points {
		p.add(&s.Curve.Points[i], order)
	}
	if len(p.slots) == 0 {
		return nil
	}
	p.span = p.slots[len(p.slots)-1].to
	last := p.span
	if account != nil {
		last = max(last, p.since(account.End))
	}
	for _, phase := range p.phases {
		last = max(last, p.since(phase.To))
	}
	if step := p.slots[0].ms(); last-p.span > 2*step {
		p.span = last
	}
	if account != nil {
		p.from, p.to = p.inside(p.since(account.Start)), p.inside(p.since(account.End))
	}
	return p
}

// orderZones puts the curve's columns into the order of the stack, and tells where
// each was.
func (p *plot) orderZones(zones []energy.CurveZone) []int {
	order := make([]int, len(zones))
	for i := range order {
		order[i] = i
	}
	rank := func(i int) int {
		z := &zones[i]
		if !z.Counted {
			return len(domainOrder) + 1
		}
		return domainRank(z.Domain)
	}
	slices.SortStableFunc(order, func(a, b int) int { return rank(a) - rank(b) })
	for _, i := range order {
		p.zones = append(p.zones, zones[i])
	}
	return order
}

// add takes a point that lies behind those before it.
func (p *plot) add(point *energy.CurvePoint, order []int) {
	if point.From < 0 || point.To <= point.From || (len(p.slots) > 0 && point.From < p.slots[len(p.slots)-1].to) {
		return
	}
	s := slot{from: point.From, to: point.To}
	watts := func(e *energy.Microjoules) *float64 {
		if e == nil || *e < 0 {
			return nil
		}
		w := float64(*e) / 1e3 / float64(s.ms())
		return &w
	}
	s.whole = true
	read := false
	for i, column := range order {
		var w *float64
		if column < len(point.Zones) {
			w = watts(point.Zones[column])
		}
		s.zones = append(s.zones, w)
		read = read || w != nil
		switch {
		case !p.zones[i].Counted:
		case w == nil:
			s.whole = false
		default:
			s.some = true
			s.total += *w
		}
	}
	s.whole = s.whole && s.some
	if job, idle, rest := watts(point.Job), watts(point.Idle), watts(point.Rest); job != nil && idle != nil && rest != nil {
		s.job, s.idle, s.rest = job, idle, rest
	}
	if read {
		p.slots = append(p.slots, s)
	}
}

func (p *plot) since(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Sub(p.start).Milliseconds()
}

func (p *plot) inside(ms int64) int64 { return max(0, min(p.span, ms)) }

func (p *plot) x(ms int64) int { return int(float64(ms) / float64(p.span) * across) }

func (p *plot) percent(ms int64) string { return percentOf(float64(ms), float64(p.span)) }

func (p *plot) band(from, to int64) band {
	return band{X: p.percent(from), Wide: p.percent(to - from)}
}

// within is how much of a point lies in the energy window, in ms; all of it where no
// window is known.
func (p *plot) within(s *slot) int64 {
	if p.from == p.to {
		return s.ms()
	}
	return max(0, min(s.to, p.to)-max(s.from, p.from))
}

// mean is the mean in the energy window of what value gives; false where it gives
// nothing.
func (p *plot) mean(value func(*slot) (float64, bool)) (float64, bool) {
	var sum float64
	var length int64
	for i := range p.slots {
		s := &p.slots[i]
		if w, ok := value(s); ok {
			sum += w * float64(p.within(s))
			length += p.within(s)
		}
	}
	return sum / float64(max(1, length)), length > 0
}

// peak is the point of the highest power in the energy window; nil without one.
func (p *plot) peak() *slot {
	var highest *slot
	for i := range p.slots {
		s := &p.slots[i]
		if s.whole && 2*p.within(s) >= s.ms() && (highest == nil || s.total > highest.total) {
			highest = s
		}
	}
	return highest
}

func (s *slot) wholeTotal() (float64, bool) { return s.total, s.whole }

func (s *slot) zone(i int) (float64, bool) {
	if s.zones[i] == nil {
		return 0, false
	}
	return *s.zones[i], true
}

// silence is a length of time in which not all that counts was read.
type silence struct {
	from, to int64
	what     string
}

// silences are the lengths of time in which not all that counts was read. The ends of
// a recording are not read to the last moment.
func (p *plot) silences() []silence {
	var found []silence
	put := func(from, to int64, what string) {
		if n := len(found); n > 0 && found[n-1].to == from && found[n-1].what == what {
			found[n-1].to = to
			return
		}
		found = append(found, silence{from, to, what})
	}
	const nothing = "no sensor"
	at := int64(0)
	if first := &p.slots[0]; first.from <= 2*first.ms() {
		at = first.from
	}
	for i := range p.slots {
		s := &p.slots[i]
		if s.from > at {
			put(at, s.from, nothing)
		}
		if !s.whole {
			put(s.from, s.to, p.missing(s))
		}
		at = s.to
	}
	if p.span > at {
		put(at, p.span, nothing)
	}
	return found
}

// missing names the counted zones that were not read in a point.
func (p *plot) missing(s *slot) string {
	var names []string
	for i, z := range p.zones {
		if z.Counted && s.zones[i] == nil {
			names = append(names, nameOf(z.Name, z.ID))
		}
	}
	return or(strings.Join(names, ", "), "no sensor that counts")
}

// domainOrder is from the bottom of the stack to its top.
var domainOrder = []energy.Domain{energy.DomainCPU, energy.DomainDRAM, energy.DomainGPU, energy.DomainPlatform}

func domainRank(d energy.Domain) int {
	if i := slices.Index(domainOrder, d); i >= 0 {
		return i
	}
	return len(domainOrder)
}
