package report

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
)

// plot is a power curve prepared for drawing.
type plot struct {
	zones    []energy.CurveZone // bottom of the stack first; zones that are not counted last
	points   []point
	start    time.Time
	span     int64 // ms
	from, to int64 // energy window in ms since start; equal if unknown
	phases   []job.PhaseSpan
}

// point is an interval of the curve with its average powers in W.
type point struct {
	from, to          int64      // ms since the start of the curve
	zones             []*float64 // nil: not read
	total             float64    // of the counted zones that were read
	partial, complete bool       // some, all counted zones were read
	job, idle, rest   *float64   // nil: unknown
}

func (s *point) ms() int64 { return s.to - s.from }

func (s *point) completeTotal() (watts float64, ok bool) { return s.total, s.complete }

func (s *point) zone(i int) (watts float64, ok bool) {
	if s.zones[i] == nil {
		return 0, false
	}
	return *s.zones[i], true
}

// newPlot returns the plot of a curve, or nil if there is nothing to draw.
func newPlot(s *job.Samples, account *energy.Account) *plot {
	if s == nil {
		return nil
	}
	p := &plot{start: s.Curve.Start, phases: s.Phases}
	order := p.orderZones(s.Curve.Zones)
	for i := range s.Curve.Points {
		p.add(&s.Curve.Points[i], order)
	}
	if len(p.points) == 0 {
		return nil
	}
	p.span = p.points[len(p.points)-1].to
	end := p.span
	if account != nil {
		end = max(end, p.since(account.End))
	}
	for _, phase := range p.phases {
		end = max(end, p.since(phase.To))
	}
	if step := p.points[0].ms(); end-p.span > 2*step {
		p.span = end
	}
	if account != nil {
		p.from, p.to = p.clamp(p.since(account.Start)), p.clamp(p.since(account.End))
	}
	return p
}

// orderZones sets the zones in the order of the stack. It returns their indices in the curve.
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

// add adds a point of the curve, unless it is invalid, overlaps the previous one, or has no
// readings.
func (p *plot) add(cp *energy.CurvePoint, order []int) {
	if cp.From < 0 || cp.To <= cp.From || (len(p.points) > 0 && cp.From < p.points[len(p.points)-1].to) {
		return
	}
	s := point{from: cp.From, to: cp.To, complete: true}
	watts := func(e *energy.Microjoules) *float64 {
		if e == nil || *e < 0 {
			return nil
		}
		w := float64(*e) / 1e3 / float64(s.ms())
		return &w
	}
	read := false
	for i, column := range order {
		var w *float64
		if column < len(cp.Zones) {
			w = watts(cp.Zones[column])
		}
		s.zones = append(s.zones, w)
		read = read || w != nil
		switch {
		case !p.zones[i].Counted:
		case w == nil:
			s.complete = false
		default:
			s.partial = true
			s.total += *w
		}
	}
	s.complete = s.complete && s.partial
	if job, idle, rest := watts(cp.Job), watts(cp.Idle), watts(cp.Rest); job != nil && idle != nil && rest != nil {
		s.job, s.idle, s.rest = job, idle, rest
	}
	if read {
		p.points = append(p.points, s)
	}
}

// since returns the time in ms since the start of the curve, or 0 for the zero time.
func (p *plot) since(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Sub(p.start).Milliseconds()
}

func (p *plot) clamp(ms int64) int64 { return max(0, min(p.span, ms)) }

// x returns the horizontal coordinate of a time.
func (p *plot) x(ms int64) int { return int(float64(ms) / float64(p.span) * drawingWidth) }

func (p *plot) percent(ms int64) string { return percentOf(float64(ms), float64(p.span)) }

func (p *plot) band(from, to int64) band {
	return band{X: p.percent(from), Width: p.percent(to - from)}
}

// inWindow returns how much of a point is in the energy window, in ms. If the window is
// unknown, that is all of it.
func (p *plot) inWindow(s *point) int64 {
	if p.from == p.to {
		return s.ms()
	}
	return max(0, min(s.to, p.to)-max(s.from, p.from))
}

// mean returns the average of value over the points in the energy window that have one.
func (p *plot) mean(value func(*point) (float64, bool)) (watts float64, ok bool) {
	var sum float64
	var duration int64
	for i := range p.points {
		s := &p.points[i]
		if w, ok := value(s); ok {
			sum += w * float64(p.inWindow(s))
			duration += p.inWindow(s)
		}
	}
	return sum / float64(max(1, duration)), duration > 0
}

// peak returns the point with the highest power in the energy window, or nil.
func (p *plot) peak() *point {
	var highest *point
	for i := range p.points {
		s := &p.points[i]
		if s.complete && 2*p.inWindow(s) >= s.ms() && (highest == nil || s.total > highest.total) {
			highest = s
		}
	}
	return highest
}

// gap is an interval without readings of some counted zones.
type gap struct {
	from, to int64
	zones    string
}

// gaps returns the intervals in which not all counted zones were read. It tolerates that the
// recording starts a little late.
func (p *plot) gaps() []gap {
	var gaps []gap
	add := func(from, to int64, zones string) {
		if n := len(gaps); n > 0 && gaps[n-1].to == from && gaps[n-1].zones == zones {
			gaps[n-1].to = to
			return
		}
		gaps = append(gaps, gap{from, to, zones})
	}
	const all = "any sensor"
	end := int64(0)
	if first := &p.points[0]; first.from <= 2*first.ms() {
		end = first.from
	}
	for i := range p.points {
		s := &p.points[i]
		if s.from > end {
			add(end, s.from, all)
		}
		if !s.complete {
			add(s.from, s.to, p.missing(s))
		}
		end = s.to
	}
	if p.span > end {
		add(end, p.span, all)
	}
	return gaps
}

// missing returns the names of the counted zones that were not read.
func (p *plot) missing(s *point) string {
	var names []string
	for i, z := range p.zones {
		if z.Counted && s.zones[i] == nil {
			names = append(names, zoneName(z.Name, z.ID))
		}
	}
	return cmp.Or(strings.Join(names, ", "), "any counted zone")
}

// domainOrder is the order of domains from the bottom of the stack to its top.
var domainOrder = []energy.Domain{energy.DomainCPU, energy.DomainDRAM, energy.DomainGPU, energy.DomainPlatform}

func domainRank(d energy.Domain) int {
	if i := slices.Index(domainOrder, d); i >= 0 {
		return i
	}
	return len(domainOrder)
}
