package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// bySource draws the counted zones as stacked areas and the others as lines.
func (p *plot) bySource() panel {
	highest := 0.0
	for i := range p.points {
		s := &p.points[i]
		highest = max(highest, s.total)
		for _, w := range s.zones {
			if w != nil {
				highest = max(highest, *w)
			}
		}
	}
	d := panel{Title: "By source"}
	var top float64
	d.YTicks, top = powerTicks(highest, 5)
	used := map[string]int{}
	for i, z := range p.zones {
		name := zoneName(z.Name, z.ID)
		entry := legendEntry{Name: name, Text: unknown}
		if w, ok := p.mean(func(s *point) (float64, bool) { return s.zone(i) }); ok {
			entry.Text = fixed(w, 1) + hardSpace + "W"
		}
		if z.Source == energy.Estimated {
			entry.Text += ", estimated"
		}
		if z.Counted {
			entry.Class = zoneClass(z.Domain, used)
			d.Areas = append(d.Areas, shape{entry.Class, p.area(top, func(s *point) (float64, bool) { return s.stackedTo(i), s.partial })})
		} else {
			entry.Line, entry.Class = true, "line line"+strconv.Itoa(used["line"]%4)
			entry.Text += ", not counted"
			used["line"]++
			d.Lines = append(d.Lines, shape{entry.Class, p.line(top, func(s *point) (float64, bool) { return s.zone(i) })})
		}
		d.Legend = append(d.Legend, entry)
	}
	slices.Reverse(d.Areas) // lower areas are drawn over higher ones
	mean, ok := p.mean((*point).completeTotal)
	d.Label = fmt.Sprintf("Chart of the machine's power over %s by source.", formatDuration(time.Duration(p.span)*time.Millisecond))
	if s := p.peak(); ok && s != nil {
		from, to := p.from, p.to
		if from == to {
			from, to = 0, p.span
		}
		d.Mean = &level{X: p.percent(from), X2: p.percent(to), Y: percentOf(top-mean, top)}
		d.Peak = &level{X: p.percent(s.from + s.ms()/2), Y: percentOf(top-s.total, top)}
		d.Label += fmt.Sprintf(" Average %s W, peak %s W at %s. The data is in the table below.", fixed(mean, 1), fixed(s.total, 1), p.when(s.from))
	}
	d.Columns = p.columns(func(s *point) string {
		text := "machine " + unknown
		if s.complete {
			text = "machine " + fixed(s.total, 1) + " W"
		}
		for i, z := range p.zones {
			text += "\n" + zoneName(z.Name, z.ID) + " " + wattsText(s.zones[i])
		}
		return text
	})
	return d
}

// stackedTo returns the total power of the zones up to i.
func (s *point) stackedTo(i int) float64 {
	var sum float64
	for _, w := range s.zones[:i+1] {
		if w != nil {
			sum += *w
		}
	}
	return sum
}

// byUse draws the idle baseline, the job's own work and the rest as stacked areas. Intervals
// in which they are unknown are drawn undivided.
func (p *plot) byUse() panel {
	highest := 0.0
	undivided := false
	for i := range p.points {
		s := &p.points[i]
		highest = max(highest, s.total)
		if s.job != nil {
			highest = max(highest, *s.idle+*s.job+*s.rest)
		}
		undivided = undivided || (s.job == nil && s.partial)
	}
	d := panel{Title: "By use", Small: true}
	var top float64
	d.YTicks, top = powerTicks(highest, 3)
	ifKnown := func(value func(*point) float64) func(*point) (float64, bool) {
		return func(s *point) (float64, bool) {
			if s.job == nil {
				return 0, false
			}
			return value(s), true
		}
	}
	if undivided {
		d.Areas = append(d.Areas, shape{"u-whole", p.area(top, func(s *point) (float64, bool) { return s.total, s.partial && s.job == nil })})
	}
	for _, layer := range []struct {
		class, name    string
		stacked, power func(*point) float64
	}{
		{"u-rest", "others", func(s *point) float64 { return *s.idle + *s.job + *s.rest }, func(s *point) float64 { return *s.rest }},
		{"u-job", "this job", func(s *point) float64 { return *s.idle + *s.job }, func(s *point) float64 { return *s.job }},
		{"u-idle", "idle baseline", func(s *point) float64 { return *s.idle }, func(s *point) float64 { return *s.idle }},
	} {
		d.Areas = append(d.Areas, shape{layer.class, p.area(top, ifKnown(layer.stacked))})
		text := unknown
		if w, ok := p.mean(ifKnown(layer.power)); ok {
			text = fixed(w, 1) + hardSpace + "W"
		}
		d.Legend = append(d.Legend, legendEntry{Class: layer.class, Name: layer.name, Text: text})
	}
	slices.Reverse(d.Legend)
	if undivided {
		d.Legend = append(d.Legend, legendEntry{Class: "u-whole", Name: "not divided", Text: "power of the machine"})
	}
	d.Label = "Chart of the machine's power by use: idle baseline, this job, others. The data is in the table below."
	d.Columns = p.columns(func(s *point) string {
		return fmt.Sprintf("this job %s\nidle baseline %s\nothers %s", wattsText(s.job), wattsText(s.idle), wattsText(s.rest))
	})
	return d
}

func wattsText(w *float64) string {
	if w == nil {
		return unknown
	}
	return fixed(*w, 1) + " W"
}

func (p *plot) columns(text func(*point) string) []column {
	var columns []column
	for i := range p.points {
		s := &p.points[i]
		x := p.x(s.from)
		columns = append(columns, column{X: x, Width: max(1, p.x(s.to)-x), Note: p.times(s.from, s.to) + "\n" + text(s)})
	}
	return columns
}

// area returns the path of a stepped area, with a separate part for each run of adjacent
// points.
func (p *plot) area(top float64, value func(*point) (float64, bool)) string {
	return p.path(top, value, true)
}

// line returns the path of a stepped line.
func (p *plot) line(top float64, value func(*point) (float64, bool)) string {
	return p.path(top, value, false)
}

func (p *plot) path(top float64, value func(*point) (float64, bool), filled bool) string {
	var b strings.Builder
	drawing, height, end := false, 0, int64(-1)
	finish := func() {
		if !drawing {
			return
		}
		fmt.Fprintf(&b, "H%d", p.x(end))
		if filled {
			fmt.Fprintf(&b, "V%dZ", drawingHeight)
		}
		drawing = false
	}
	for i := range p.points {
		s := &p.points[i]
		w, ok := value(s)
		if !ok || s.from != end {
			finish()
		}
		if !ok {
			continue
		}
		y := drawingHeight - int(w/top*drawingHeight+0.5)
		switch {
		case !drawing && filled:
			fmt.Fprintf(&b, "M%d %dV%d", p.x(s.from), drawingHeight, y)
		case !drawing:
			fmt.Fprintf(&b, "M%d %d", p.x(s.from), y)
		case y != height:
			fmt.Fprintf(&b, "H%dV%d", p.x(s.from), y)
		}
		drawing, height, end = true, y, s.to
	}
	finish()
	return b.String()
}

// zoneClass returns the CSS class of the next zone of a domain. Each domain has one hue in four
// tones.
func zoneClass(d energy.Domain, used map[string]int) string {
	hue := "other"
	switch d {
	case energy.DomainCPU, energy.DomainDRAM, energy.DomainGPU:
		hue = string(d)
	}
	n := used[hue]
	used[hue]++
	return fmt.Sprintf("z-%s z%d", hue, n%4)
}
