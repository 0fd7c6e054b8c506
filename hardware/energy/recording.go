package energy

import (
	"slices"
	"time"
)

// finest is the length of a recording's points at first, the interval between
// readings while a job runs.
const finest = 100 * time.Millisecond

// recording collects a job's Curve on a grid of time that grows coarser as the job
// goes on.
type recording struct {
	start time.Time
	from  instant
	step  time.Duration // of the grid
	zones []*column
}

// column is one zone's energy by grid cell.
type column struct {
	zone  *Zone
	cells []cell
}

// cell is what was used in one step of the grid, in how much of it that was read, what
// it was divided into, and in how much of it that was known.
type cell struct {
	energy           Microjoules
	covered          time.Duration
	own, idle, other Microjoules
	divided          time.Duration
}

func newRecording(start time.Time, from instant) *recording {
	return &recording{start: start, from: from, step: finest}
}

// machine adds what a zone used in a span.
func (r *recording) machine(zone *Zone, s *span) {
	if s.gap {
		return
	}
	c := r.column(zone)
	r.spread(s.from, s.to, func(i int, part, whole time.Duration) {
		c.cells = grown(c.cells, i)
		c.cells[i].energy += portion(s.energy, part, whole)
		c.cells[i].covered += part
	})
}

// job adds what the job got of a stretch of a zone that began at a moment. Parts of
// which not all is known are left out.
func (r *recording) job(zone *Zone, s *stretch, mine parts, at instant) {
	var idle, undivided Microjoules
	for _, one := range s.shares {
		idle += one.idle
		undivided += one.undivided
	}
	if mine.vague > 0 || undivided > 0 {
		return
	}
	other := s.energy - idle - mine.own
	c := r.column(zone)
	r.spread(at, at+s.length, func(i int, part, whole time.Duration) {
		c.cells = grown(c.cells, i)
		cell := &c.cells[i]
		cell.own += portion(mine.own, part, whole)
		cell.idle += portion(idle, part, whole)
		cell.other += portion(other, part, whole)
		cell.divided += part
	})
}

// spread calls add with the grid's cells that a length of time touches. What lies
// before the recording is left out.
func (r *recording) spread(from, to instant, add func(i int, part, whole time.Duration)) {
	whole := to - from
	from = max(from, r.from)
	for whole > 0 && to-r.from > MaxCurvePoints*r.step {
		r.coarsen()
	}
	for from < to {
		i := int((from - r.from) / r.step)
		end := min(to, r.from+time.Duration(i+1)*r.step)
		add(i, end-from, whole)
		from = end
	}
}

// coarsen makes one cell of each two.
func (r *recording) coarsen() {
	r.step *= 2
	for _, c := range r.zones {
		c.cells = paired(c.cells, func(a *cell, b cell) {
			a.energy += b.energy
			a.covered += b.covered
			a.own += b.own
			a.idle += b.idle
			a.other += b.other
			a.divided += b.divided
		})
	}
}

// drop forgets what was recorded of a zone.
func (r *recording) drop(zone *Zone) {
	r.zones = slices.DeleteFunc(r.zones, func(c *column) bool { return c.zone.ID == zone.ID })
}

func (r *recording) column(zone *Zone) *column {
	for _, c := range r.zones {
		if c.zone.ID == zone.ID {
			c.zone = zone // it may have ceased to count
			return c
		}
	}
	c := &column{zone: zone}
	r.zones = append(r.zones, c)
	return c
}

// curve is what was recorded so far. A cell of which less than half was read is
// not known, and one of which more was is taken to have gone on like that: beside a gap
// the power shall not seem to fall. What it was used for is told where that is known of
// each counted zone that was read, and adds up to what those used.
func (r *recording) curve() *Curve {
	c := &Curve{Start: r.start.Round(0)}
	cells := 0
	for _, col := range r.zones {
		z := col.zone
		c.Zones = append(c.Zones, CurveZone{
			ID: z.ID, Name: z.Name, Domain: z.Domain, Counted: z.Counted, Source: z.Source, Method: z.Method,
		})
		cells = max(cells, len(col.cells))
	}
	for i := range cells {
		p := CurvePoint{From: (time.Duration(i) * r.step).Milliseconds(), To: (time.Duration(i+1) * r.step).Milliseconds()}
		known := false
		var split splitSum
		for _, col := range r.zones {
			var used *Microjoules
			if i < len(col.cells) && 2*col.cells[i].covered >= r.step {
				whole := portion(col.cells[i].energy, r.step, col.cells[i].covered)
				used, known = &whole, true
				if col.zone.Counted {
					split.add(&col.cells[i], whole, r.step)
				}
			}
			p.Zones = append(p.Zones, used)
		}
		if split.some && !split.vague {
			p.Job, p.Idle, p.Rest = &split.own, &split.idle, &split.other
		}
		if known {
			c.Points = append(c.Points, p)
		}
	}
	return c
}

// splitSum adds up what zones' energy in a cell was divided into.
type splitSum struct {
	own, idle, other Microjoules
	some             bool // there was a zone
	vague            bool // of one it is not known
}

// add takes a zone of which so much is told. Less than half of a cell tells nothing of the
// rest of it.
func (s *splitSum) add(c *cell, told Microjoules, step time.Duration) {
	s.some = true
	if 2*c.divided < step {
		s.vague = true
		return
	}
	all := time.Duration(c.own + c.idle + c.other)
	if all == 0 {
		s.vague = s.vague || told > 0
		return
	}
	of := func(part Microjoules) Microjoules { return portion(part, time.Duration(told), all) }
	s.own += of(c.own)
	s.idle += of(c.idle)
	s.other += of(c.other)
}

// grown is a slice with at least i+1 elements.
func grown[T any](cells []T, i int) []T {
	if missing := i + 1 - len(cells); missing > 0 {
		cells = append(cells, make([]T, missing)...)
	}
	return cells
}

// paired adds each second element to the one before it.
func paired[T any](cells []T, add func(*T, T)) []T {
	for i := range cells {
		if i%2 == 0 {
			cells[i/2] = cells[i]
		} else {
			add(&cells[i/2], cells[i])
		}
	}
	return slices.Clip(cells[:(len(cells)+1)/2])
}
