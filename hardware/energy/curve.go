package energy

import (
	"slices"
	"time"
)

// Curve is the power of the machine over time while a job runs. It consists of energies, so that
// the coarser curve of a long job still adds up. It has at most MaxCurvePoints.
type Curve struct {
	// Start is when the first work for the job began, before FFmpeg's start.
	Start time.Time   `json:"start"`
	Zones []CurveZone `json:"zones"`
	// Points are in the order of time. The sensors were not read between the end of one and the
	// start of the next.
	Points []CurvePoint `json:"points"`
}

// CurveZone is one column of a Curve.
type CurveZone struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Domain  Domain `json:"domain"`
	Counted bool   `json:"counted"` // part of the machine's total
	Source  Source `json:"source"`
	Method  string `json:"method"`
}

// CurvePoint is the energy used in one interval.
type CurvePoint struct {
	From int64 `json:"from_ms"` // since the curve's start
	To   int64 `json:"to_ms"`
	// Zones are the energies of the zones in µJ, in the order of Curve.Zones; nil: the zone was
	// not read.
	Zones []*Microjoules `json:"zones_uj"`
	// Job, Idle and Rest, in µJ, divide the energy of the counted zones into that of the job's
	// own processes, the idle baseline, and the rest, which includes other jobs. Their sum never
	// exceeds the energy of these zones. nil: unknown for a counted zone that was read, such as
	// before FFmpeg's start, without a baseline, or if the use by process is unknown.
	Job  *Microjoules `json:"job_uj,omitempty"`
	Idle *Microjoules `json:"idle_uj,omitempty"`
	Rest *Microjoules `json:"rest_uj,omitempty"`
}

// MaxCurvePoints is the maximum number of points of a Curve. When it is exceeded, pairs of points
// are merged.
const MaxCurvePoints = 400

// minCurvePoint is the length of a point in a short curve: the usual interval between readings
// while a job runs.
const minCurvePoint = 100 * time.Millisecond

// curveRecorder records a job's Curve on a time grid that becomes coarser in the course of the
// job.
type curveRecorder struct {
	start   time.Time
	from    instant
	point   time.Duration // length of a cell
	columns []*curveColumn
}

// curveColumn is one zone.
type curveColumn struct {
	zone  *Zone
	cells []curveCell
}

// curveCell is the energy of a zone in one cell of the grid.
type curveCell struct {
	energy  Microjoules
	covered time.Duration // part of the cell in which the zone was read
	// The attribution of the energy, and the part of the cell for which it is known.
	job, idle, rest Microjoules
	attributed      time.Duration
}

func (c *curveCell) add(d curveCell) {
	c.energy += d.energy
	c.covered += d.covered
	c.job += d.job
	c.idle += d.idle
	c.rest += d.rest
	c.attributed += d.attributed
}

// portion returns each amount in proportion to part of whole.
func (c curveCell) portion(part, whole time.Duration) curveCell {
	return curveCell{
		energy: portion(c.energy, part, whole), covered: portion(c.covered, part, whole),
		job: portion(c.job, part, whole), idle: portion(c.idle, part, whole), rest: portion(c.rest, part, whole),
		attributed: portion(c.attributed, part, whole),
	}
}

func newCurveRecorder(start time.Time, from instant) *curveRecorder {
	return &curveRecorder{start: start, from: from, point: minCurvePoint}
}

// addStep adds the energy of a zone in a step.
func (r *curveRecorder) addStep(zone *Zone, s *step) {
	if !s.gap {
		r.spread(zone, s, curveCell{energy: s.energy, covered: s.length()})
	}
}

// addShare adds the attribution of a piece in the job's window, unless any of it is unknown.
func (r *curveRecorder) addShare(zone *Zone, piece *step, a allocation, mine attribution) {
	var all attribution
	for _, share := range a.shares {
		all = all.plus(share.attribution)
	}
	if zone.Counted && !piece.gap && mine.ambiguous == 0 && all.undivided == 0 {
		rest := piece.energy - all.idle - mine.job
		r.spread(zone, piece, curveCell{job: mine.job, idle: all.idle, rest: rest, attributed: piece.length()})
	}
}

// spread distributes amounts over the cells of a step, in proportion to time. The part before the
// start of the curve is dropped.
func (r *curveRecorder) spread(zone *Zone, s *step, amounts curveCell) {
	for s.to-r.from > MaxCurvePoints*r.point {
		r.coarsen()
	}
	c := r.column(zone)
	for from := max(s.from, r.from); from < s.to; {
		i := int((from - r.from) / r.point)
		to := min(s.to, r.from+time.Duration(i+1)*r.point)
		for len(c.cells) <= i {
			c.cells = append(c.cells, curveCell{})
		}
		c.cells[i].add(amounts.portion(to-from, s.length()))
		from = to
	}
}

// coarsen merges pairs of cells.
func (r *curveRecorder) coarsen() {
	r.point *= 2
	for _, c := range r.columns {
		for i, cell := range c.cells {
			if i%2 == 0 {
				c.cells[i/2] = cell
			} else {
				c.cells[i/2].add(cell)
			}
		}
		c.cells = slices.Clip(c.cells[:(len(c.cells)+1)/2])
	}
}

// column returns the column of a zone and updates its zone, which may no longer be counted.
func (r *curveRecorder) column(zone *Zone) *curveColumn {
	i := slices.IndexFunc(r.columns, func(c *curveColumn) bool { return c.zone.ID == zone.ID })
	if i < 0 {
		i = len(r.columns)
		r.columns = append(r.columns, &curveColumn{})
	}
	r.columns[i].zone = zone
	return r.columns[i]
}

// drop removes the column of a zone.
func (r *curveRecorder) drop(zoneID string) {
	r.columns = slices.DeleteFunc(r.columns, func(c *curveColumn) bool { return c.zone.ID == zoneID })
}

// curve returns the curve so far. A cell that was read for less than half of its length is
// unknown; otherwise its energy is extrapolated to the whole cell, so that power does not seem
// to drop next to a gap.
func (r *curveRecorder) curve() *Curve {
	curve := &Curve{Start: r.start.Round(0)}
	cells := 0
	for _, c := range r.columns {
		z := c.zone
		curve.Zones = append(curve.Zones, CurveZone{
			ID: z.ID, Name: z.Name, Domain: z.Domain, Counted: z.Counted, Source: z.Source, Method: z.Method,
		})
		cells = max(cells, len(c.cells))
	}
	for i := range cells {
		if p, known := r.curvePoint(i); known {
			curve.Points = append(curve.Points, p)
		}
	}
	return curve
}

// curvePoint returns the point of a cell; false if it is unknown for every zone.
func (r *curveRecorder) curvePoint(i int) (p CurvePoint, known bool) {
	p.From, p.To = (time.Duration(i) * r.point).Milliseconds(), (time.Duration(i+1) * r.point).Milliseconds()
	var sum curveCell
	counted, undivided := false, false
	for _, c := range r.columns {
		if i >= len(c.cells) || 2*c.cells[i].covered < r.point {
			p.Zones = append(p.Zones, nil)
			continue
		}
		cell := c.cells[i]
		energy := portion(cell.energy, r.point, cell.covered)
		p.Zones, known = append(p.Zones, &energy), true
		if c.zone.Counted {
			parts, ok := cell.divide(energy, r.point)
			counted, undivided = true, undivided || !ok
			sum.add(parts)
		}
	}
	if counted && !undivided {
		p.Job, p.Idle, p.Rest = &sum.job, &sum.idle, &sum.rest
	}
	return p, known
}

// divide returns the attribution of a cell's energy, in the proportions of its known part; false
// if that part is less than half of the cell.
func (c *curveCell) divide(energy Microjoules, point time.Duration) (parts curveCell, known bool) {
	total := c.job + c.idle + c.rest
	if 2*c.attributed < point || (total == 0 && energy > 0) {
		return curveCell{}, false
	}
	return curveCell{
		job: portion(c.job, energy, total), idle: portion(c.idle, energy, total), rest: portion(c.rest, energy, total),
	}, true
}
