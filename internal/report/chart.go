package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"ffmpeg-agent/messages/job"
)

// Size of the coordinate system of a drawing. The page scales it to the available space.
const (
	drawingWidth  = 10000
	drawingHeight = 1000
)

// chart is power over time, in one panel by source and one by use.
type chart struct {
	Start      *timestamp
	Duration   string
	Ticks      []tick
	Phases     []band
	Window     *band
	Panels     []panel
	Summary    []fact
	Gaps       []string // descriptions
	UseUnknown string   // reason if there is no panel by use
	TableHead  []string // the data as a table
	TableRows  [][]string
}

// panel is one drawing of a chart.
type panel struct {
	Title, Label string // Label is a description for screen readers
	Small        bool
	YTicks       []tick
	XTicks       []tick
	PhaseStarts  []string // positions in percent
	Gaps         []band   // not read
	Outside      []band   // outside of the energy window
	Areas        []shape
	Lines        []shape
	Columns      []column
	Mean         *level
	Peak         *level
	Legend       []legendEntry
}

// band is an interval of time, over the full height of a drawing.
type band struct {
	X, Width          string // in percent
	Class, Text, Note string
	Duration          string
	TextClass         string // of Text, see textClass
}

// shape is an SVG path in the coordinates of the drawing.
type shape struct{ Class, Path string }

// column is the tooltip of one point, in the coordinates of the drawing.
type column struct {
	X, Width int
	Note     string
}

// level is a position in a drawing, in percent.
type level struct{ X, X2, Y string }

type legendEntry struct {
	Class, Name, Text string
	Line              bool
}

// chart returns the chart of a plot. useUnknown is the reason why the energy by use is
// unknown, for a plot without it.
func (p *plot) chart(useUnknown string) *chart {
	c := &chart{
		Start: timestampOf(p.start), Duration: formatDuration(time.Duration(p.span) * time.Millisecond),
		Ticks: timeTicks(time.Duration(p.span) * time.Millisecond), Phases: p.phaseBands(), Window: p.window(),
	}
	var gaps []band
	for _, g := range p.gaps() {
		b := p.band(g.from, g.to)
		b.Note = fmt.Sprintf("%s: no readings of %s", p.times(g.from, g.to), g.zones)
		gaps = append(gaps, b)
		c.Gaps = append(c.Gaps, b.Note)
	}
	c.Summary = p.summary(len(gaps))
	panels := []panel{p.bySource()}
	if slices.ContainsFunc(p.points, func(s point) bool { return s.job != nil }) {
		panels = append(panels, p.byUse())
	} else {
		c.UseUnknown = cmp.Or(useUnknown, "no interval could be divided")
	}
	for i := range panels {
		panels[i].PhaseStarts, panels[i].Gaps, panels[i].Outside, panels[i].XTicks = c.phaseStarts(), gaps, p.outside(), c.Ticks
	}
	c.Panels = panels
	c.TableHead, c.TableRows = p.table()
	return c
}

// times formats an interval, relative to the start of the curve.
func (p *plot) times(from, to int64) string { return p.when(from) + " to " + p.when(to) }

// when formats a time relative to the start of the curve, in s or for long recordings as
// h:mm:ss.
func (p *plot) when(ms int64) string {
	if p.span < 10*time.Minute.Milliseconds() {
		return p.seconds(ms) + " s"
	}
	s := ms / 1000
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

func (p *plot) seconds(ms int64) string {
	decimals := 1
	if p.points[0].ms() < 100 {
		decimals = 3
	}
	return fixed(float64(ms)/1e3, decimals)
}

func (p *plot) window() *band {
	if p.from == p.to {
		return nil
	}
	b := p.band(p.from, p.to)
	b.Class, b.Text, b.TextClass = "window", "energy window", textClass("energy window", p.to-p.from, p.span)
	b.Note = "Energy window, from FFmpeg's start to its exit: " + p.times(p.from, p.to)
	return &b
}

// outside returns the intervals outside of the energy window.
func (p *plot) outside() []band {
	var outside []band
	if p.from == p.to {
		return nil
	}
	if p.from > 0 {
		outside = append(outside, p.band(0, p.from))
	}
	if p.to < p.span {
		outside = append(outside, p.band(p.to, p.span))
	}
	return outside
}

func (p *plot) phaseBands() []band {
	var bands []band
	for _, phase := range p.phases {
		end := p.span
		if !phase.To.IsZero() {
			end = p.since(phase.To)
		}
		from, to := p.clamp(p.since(phase.From)), p.clamp(end)
		if to <= from {
			continue
		}
		b := p.band(from, to)
		name := sanitize(string(phase.Phase))
		b.Class, b.Text, b.TextClass = phaseClass(phase.Phase), name, textClass(name, to-from, p.span)
		b.Duration = formatDuration(time.Duration(to-from) * time.Millisecond)
		b.Note = name + ": " + b.Duration
		bands = append(bands, b)
	}
	return bands
}

// phaseStarts returns the positions where phases start, except for the edge of the drawing.
func (c *chart) phaseStarts() []string {
	var starts []string
	for _, b := range c.Phases {
		if b.X != percentOf(0, 1) {
			starts = append(starts, b.X)
		}
	}
	return starts
}

func phaseClass(p job.Phase) string {
	switch p {
	case job.PhasePrepare, job.PhaseFetch, job.PhaseRun, job.PhaseCheck, job.PhaseQuality, job.PhaseJournal:
		return "p-" + string(p)
	}
	return "p-other"
}

// Minimum width of a drawing in px on narrow and on wide screens. page.css defines the limit
// between them.
const (
	narrowWidth = 240
	wideWidth   = 490
)

// textClass returns the CSS class of a text in a part of a drawing: "always", "wide" if it
// fits only on wide screens, or "" if it never fits.
func textClass(text string, part, span int64) string {
	width := 8.2*float64(len([]rune(text))) + 12 // px, in a wide font
	share := float64(part) / float64(max(1, span))
	switch {
	case share*narrowWidth >= width:
		return "always"
	case share*wideWidth >= width:
		return "wide"
	}
	return ""
}

func (p *plot) summary(gaps int) []fact {
	where := "in the energy window"
	if p.from == p.to {
		where = "over the whole recording"
	}
	mean, peak := fact{Name: "average", Value: unknown}, fact{Name: "peak", Value: unknown}
	if w, ok := p.mean((*point).completeTotal); ok {
		mean.Value, mean.Exact, mean.Note = fixed(w, 1)+" W", exact(w), "of the machine, "+where
	}
	if s := p.peak(); s != nil {
		peak.Value, peak.Exact = fixed(s.total, 1)+" W", exact(s.total)
		peak.Note = fmt.Sprintf("average over %s s, at %s", p.seconds(s.ms()), p.when(s.from))
	}
	notRead := fact{Name: "not read", Value: "never"}
	if gaps > 0 {
		notRead.Value, notRead.Note = plural(gaps, "interval"), "hatched"
	}
	return []fact{mean, peak, notRead}
}

// table returns the data of the chart.
func (p *plot) table() (head []string, rows [][]string) {
	head = []string{"from (s)", "to (s)"}
	for _, z := range p.zones {
		name := zoneName(z.Name, z.ID) + " (W)"
		if !z.Counted {
			name = zoneName(z.Name, z.ID) + ", not counted (W)"
		}
		head = append(head, name)
	}
	byUse := slices.ContainsFunc(p.points, func(s point) bool { return s.job != nil })
	if byUse {
		head = append(head, "this job (W)", "idle (W)", "others (W)")
	}
	cell := func(w *float64) string {
		if w == nil {
			return "–"
		}
		return fixed(*w, 2)
	}
	for i := range p.points {
		s := &p.points[i]
		row := []string{p.seconds(s.from), p.seconds(s.to)}
		for _, w := range s.zones {
			row = append(row, cell(w))
		}
		if byUse {
			row = append(row, cell(s.job), cell(s.idle), cell(s.rest))
		}
		rows = append(rows, row)
	}
	return head, rows
}
