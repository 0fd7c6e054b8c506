package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// bySource stacks what the counted zones read; the others are lines.
func (p *plot) bySource() panel {
	highest := 0.0
	for i := range p.slots {
		s := &p.slots[i]
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
		name := nameOf(z.Name, z.ID)
		k := key{Name: name, Text: unknown}
		if w, ok := p.mean(func(s *slot) (float64, bool) { return s.zone(i) }); ok {
			k.Text = fixed(w, 1) + hard + "W"
		}
		if z.Source == energy.Estimated {
			k.Text += ", estimated"
		}
		if z.Counted {
			k.Class = zoneClass(z.Domain, used)
			d.Areas = append(d.Areas, shape{k.Class, p.area(top, func(s *slot) (float64, bool) { return s.upTo(i), s.some })})
		} else {
			k.Line, k.Class = true, "line line"+strconv.Itoa(used["line"]%4)
			k.Text += ", not added"
			used["line"]++
			d.Lines = append(d.Lines, shape{k.Class, p.line(top, func(s *slot) (float64, bool) { return s.zone(i) })})
		}
		d.Keys = append(d.Keys, k)
	}
	slices.Reverse(d.Areas) // the lower ones are drawn over the higher
	mean, ok := p.mean((*slot).wholeTotal)
	d.Label = fmt.Sprintf("Drawing: power of the machine over %s by source.", length(time.Duration(p.span)*time.Millisecond))
	if s := p.peak(); ok && s != nil {
		from, to := p.from, p.to
		if from == to {
			from, to = 0, p.span
		}
		d.Mean = &level{X: p.percent(from), X2: p.percent(to), Y: percentOf(top-mean, top)}
		d.Peak = &level{X: p.percent(s.from + s.ms()/2), Y: percentOf(top-s.total, top)}
		d.Label += fmt.Sprintf(" Mean %s W, peak %s W at %s. The table below has the figures.", fixed(mean, 1), fixed(s.total, 1), p.when(s.from))
	}
	d.Columns = p.columns(func(s *slot) string {
		text := "machine " + unknown
		if s.whole {
			text = "machine " + fixed(s.total, 1) + " W"
		}
		for i, z := range p.zones {
			text += "\n" + nameOf(z.Name, z.ID) + " " + wattsOf(s.zones[i])
		}
		return text
	})
	return d
}

// upTo is the power of the zones up to the i-th in the stack.
func (s *slot) upTo(i int) float64 {
	var sum float64
	for _, w := range s.zones[:i+1] {
		if w != nil {
			sum += *w
		}
	}
	return sum
}

// byUse stacks the idle baseline, the job's own work and the rest. Where they are not
// known it shows the whole.
func (p *plot) byUse() panel {
	highest := 0.0
	undivided := false
	for i := range p.slots {
		s := &p.slots[i]
		highest = max(highest, s.total)
		if s.job != nil {
			highest = max(highest, *s.idle+*s.job+*s.rest)
		}
		undivided = undivided || (s.job == nil && s.some)
	}
	d := panel{Title: "By use", Small: true}
	var top float64
	d.YTicks, top = powerTicks(highest, 3)
	known := func(of func(*slot) float64) func(*slot) (float64, bool) {
		return func(s *slot) (float64, bool) {
			if s.job == nil {
				return 0, false
			}
			return of(s), true
		}
	}
	if undivided {
		d.Areas = append(d.Areas, shape{"u-whole", p.area(top, func(s *slot) (float64, bool) { return s.total, s.some && s.job == nil })})
	}
	for _, layer := range []struct {
		class, name string
		height, own func(*slot) float64
	}{
		{"u-rest", "everybody else", func(s *slot) float64 { return *s.idle + *s.job + *s.rest }, func(s *slot) float64 { return *s.rest }},
		{"u-job", "this job", func(s *slot) float64 { return *s.idle + *s.job }, func(s *slot) float64 { return *s.job }},
		{"u-idle", "idle baseline", func(s *slot) float64 { return *s.idle }, func(s *slot) float64 { return *s.idle }},
	} {
		d.Areas = append(d.Areas, shape{layer.class, p.area(top, known(layer.height))})
		text := unknown
		if w, ok := p.mean(known(layer.own)); ok {
			text = fixed(w, 1) + hard + "W"
		}
		d.Keys = append(d.Keys, key{Class: layer.class, Name: layer.name, Text: text})
	}
	slices.Reverse(d.Keys)
	if undivided {
		d.Keys = append(d.Keys, key{Class: "u-whole", Name: "not divided", Text: "the machine's whole power"})
	}
	d.Label = "Drawing: what the machine's power was used for: idle baseline, this job, everybody else. The table below has the figures."
	d.Columns = p.columns(func(s *slot) string {
		return fmt.Sprintf("this job %s\nidle baseline %s\neverybody else %s", wattsOf(s.job), wattsOf(s.idle), wattsOf(s.rest))
	})
	return d
}

func wattsOf(w *float64) string {
	if w == nil {
		return unknown
	}
	return fixed(*w, 1) + " W"
}

func (p *plot) columns(text func(*slot) string) []column {
	var columns []column
	for i := range p.slots {
		s := &p.slots[i]
		x := p.x(s.from)
		columns = append(columns, column{X: x, Wide: max(1, p.x(s.to)-x), Note: p.times(s.from, s.to) + "\n" + text(s)})
	}
	return columns
}

// area is the path of a stepped area that stands on the axis, one piece for each run
// of points that follow each other.
func (p *plot) area(top float64, value func(*slot) (float64, bool)) string {
	return p.path(top, value, true)
}

// line is the path of a stepped line.
func (p *plot) line(top float64, value func(*slot) (float64, bool)) string {
	return p.path(top, value, false)
}

func (p *plot) path(top float64, value func(*slot) (float64, bool), filled bool) string {
	var b strings.Builder
	drawing, height, until := false, 0, int64(-1)
	end := func() {
		if !drawing {
			return
		}
		fmt.Fprintf(&b, "H%d", p.x(until))
		if filled {
			fmt.Fprintf(&b, "V%dZ", down)
		}
		drawing = false
	}
	for i := range p.slots {
		s := &p.slots[i]
		w, ok := value(s)
		if !ok || s.from != until {
			end()
		}
		if !ok {
			continue
		}
		y := down - int(w/top*down+0.5)
		switch {
		case !drawing && filled:
			fmt.Fprintf(&b, "M%d %dV%d", p.x(s.from), down, y)
		case !drawing:
			fmt.Fprintf(&b, "M%d %d", p.x(s.from), y)
		case y != height:
			fmt.Fprintf(&b, "H%dV%d", p.x(s.from), y)
		}
		drawing, height, until = true, y, s.to
	}
	end()
	return b.String()
}

// zoneClass is the look of the next zone of a domain: one hue for each domain, in four
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
