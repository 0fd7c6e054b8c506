package report

import (
	"fmt"
	"slices"
	"time"

	"ffmpeg-agent/messages/job"
)

// A drawing is stretched to the room there is; inside it has these many units.
const (
	across = 10000
	down   = 1000
)

// chart is power over time, drawn twice over the same time: by what the sensors read
// and by what the energy was used for.
type chart struct {
	Since   *moment
	Span    string
	Ticks   []tick
	Phases  []band
	Window  *band
	Panels  []panel
	Summary []fact
	Gaps    []string // in words; empty when there are none
	NoUse   string   // why there is no drawing by use; empty when there is one
	Head    []string // the data as a table
	Rows    [][]string
}

// panel is one drawing.
type panel struct {
	Title, Label string // Label is the drawing in words
	Small        bool
	YTicks       []tick
	XTicks       []tick
	Borders      []string // where phases meet, in percent
	Gaps         []band   // not read
	Veils        []band   // outside of the energy window
	Areas        []shape
	Lines        []shape
	Columns      []column
	Mean         *level
	Peak         *level
	Keys         []key
}

// band is a length of time from the top of a drawing to its bottom.
type band struct {
	X, Wide           string // in percent
	Class, Text, Note string
	Long              string // how long it is
	Room              string // class of the text: where there is room for it
}

// shape is a path in the units of the drawing.
type shape struct{ Class, Path string }

// column is one point of the curve, for whoever points at it.
type column struct {
	X, Wide int
	Note    string
}

// level is a height in a drawing, in percent.
type level struct{ X, X2, Y string }

// key is an entry of a legend.
type key struct {
	Class, Name, Text string
	Line              bool
}

// chart draws the plot. noUse is why nothing is known of what the energy was used for,
// for a plot that does not tell.
func (p *plot) chart(noUse string) *chart {
	c := &chart{
		Since: momentOf(p.start), Span: length(time.Duration(p.span) * time.Millisecond),
		Ticks: timeTicks(time.Duration(p.span) * time.Millisecond), Phases: p.phaseBands(), Window: p.window(),
	}
	var gaps []band
	for _, s := range p.silences() {
		b := p.band(s.from, s.to)
		b.Note = fmt.Sprintf("%s: %s was not read", p.times(s.from, s.to), s.what)
		if s.what == "no sensor" {
			b.Note = p.times(s.from, s.to) + ": nothing was read"
		}
		gaps = append(gaps, b)
		c.Gaps = append(c.Gaps, b.Note)
	}
	c.Summary = p.summary(len(gaps))
	panels := []panel{p.bySource()}
	if slices.ContainsFunc(p.slots, func(s slot) bool { return s.job != nil }) {
		panels = append(panels, p.byUse())
	} else {
		c.NoUse = or(noUse, "no length of time could be divided")
	}
	for i := range panels {
		panels[i].Borders, panels[i].Gaps, panels[i].Veils, panels[i].XTicks = c.borders(), gaps, p.veils(), c.Ticks
	}
	c.Panels = panels
	c.Head, c.Rows = p.table()
	return c
}

// times is from when to when, since the curve's start.
func (p *plot) times(from, to int64) string { return p.when(from) + " to " + p.when(to) }

// when is a time since the curve's start: in s, in a long recording h:mm:ss.
func (p *plot) when(ms int64) string {
	if p.span < 10*time.Minute.Milliseconds() {
		return p.seconds(ms) + " s"
	}
	s := ms / 1000
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

func (p *plot) seconds(ms int64) string {
	decimals := 1
	if p.slots[0].ms() < 100 {
		decimals = 3
	}
	return fixed(float64(ms)/1e3, decimals)
}

func (p *plot) window() *band {
	if p.from == p.to {
		return nil
	}
	b := p.band(p.from, p.to)
	b.Class, b.Text, b.Room = "window", "energy window", roomFor("energy window", p.to-p.from, p.span)
	b.Note = "Energy window, FFmpeg's start to its exit: " + p.times(p.from, p.to)
	return &b
}

// veils cover what lies outside of the energy window.
func (p *plot) veils() []band {
	var veils []band
	if p.from == p.to {
		return nil
	}
	if p.from > 0 {
		veils = append(veils, p.band(0, p.from))
	}
	if p.to < p.span {
		veils = append(veils, p.band(p.to, p.span))
	}
	return veils
}

func (p *plot) phaseBands() []band {
	var bands []band
	for _, phase := range p.phases {
		until := p.span
		if !phase.To.IsZero() {
			until = p.since(phase.To)
		}
		from, to := p.inside(p.since(phase.From)), p.inside(until)
		if to <= from {
			continue
		}
		b := p.band(from, to)
		name := plain(string(phase.Phase))
		b.Class, b.Text, b.Room = phaseClass(phase.Phase), name, roomFor(name, to-from, p.span)
		b.Long = length(time.Duration(to-from) * time.Millisecond)
		b.Note = name + ": " + b.Long
		bands = append(bands, b)
	}
	return bands
}

// borders are where a phase begins, but for the drawing's own edge.
func (c *chart) borders() []string {
	var borders []string
	for _, b := range c.Phases {
		if b.X != percentOf(0, 1) {
			borders = append(borders, b.X)
		}
	}
	return borders
}

func phaseClass(p job.Phase) string {
	switch p {
	case job.PhasePrepare, job.PhaseRun, job.PhaseCheck, job.PhaseQuality, job.PhaseJournal:
		return "p-" + string(p)
	}
	return "p-other"
}

// What a drawing is wide at least, in px: on the narrowest phone, and on the narrowest
// screen that is none (page.css has the limit).
const (
	phoneWidth = 240
	wideWidth  = 490
)

// roomFor is the class of a text in a part of the drawing's width: shown always, on
// wide screens alone, or never.
func roomFor(text string, part, span int64) string {
	need := 8.2*float64(len([]rune(text))) + 12
	share := float64(part) / float64(max(1, span))
	switch {
	case share*phoneWidth >= need:
		return "room"
	case share*wideWidth >= need:
		return "wide"
	}
	return "none"
}

// summary is the chart in figures.
func (p *plot) summary(gaps int) []fact {
	where := "in the energy window"
	if p.from == p.to {
		where = "in all of the time recorded"
	}
	mean, peak := fact{Name: "mean", Value: unknown}, fact{Name: "peak", Value: unknown}
	if w, ok := p.mean((*slot).wholeTotal); ok {
		mean.Value, mean.Exact, mean.Note = fixed(w, 1)+" W", exact(w), "of the machine, "+where
	}
	if s := p.peak(); s != nil {
		peak.Value, peak.Exact = fixed(s.total, 1)+" W", exact(s.total)
		peak.Note = fmt.Sprintf("mean of %s s, at %s", p.seconds(s.ms()), p.when(s.from))
	}
	silent := fact{Name: "not read", Value: "nothing"}
	if gaps > 0 {
		silent.Value, silent.Note = several(gaps, "time"), "hatched"
	}
	return []fact{mean, peak, silent}
}

// table is the chart's data.
func (p *plot) table() (head []string, rows [][]string) {
	head = []string{"from (s)", "to (s)"}
	for _, z := range p.zones {
		name := nameOf(z.Name, z.ID) + " (W)"
		if !z.Counted {
			name = nameOf(z.Name, z.ID) + ", not added (W)"
		}
		head = append(head, name)
	}
	split := slices.ContainsFunc(p.slots, func(s slot) bool { return s.job != nil })
	if split {
		head = append(head, "this job (W)", "idle (W)", "everybody else (W)")
	}
	cell := func(w *float64) string {
		if w == nil {
			return "–"
		}
		return fixed(*w, 2)
	}
	for i := range p.slots {
		s := &p.slots[i]
		row := []string{p.seconds(s.from), p.seconds(s.to)}
		for _, w := range s.zones {
			row = append(row, cell(w))
		}
		if split {
			row = append(row, cell(s.job), cell(s.idle), cell(s.rest))
		}
		rows = append(rows, row)
	}
	return head, rows
}
