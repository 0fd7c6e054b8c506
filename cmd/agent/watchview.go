package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"charm.land/lipgloss/v2"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

var (
	labelStyle  = lipgloss.NewStyle().Faint(true)
	titleStyle  = lipgloss.NewStyle().Bold(true)
	goodStyle   = lipgloss.NewStyle().Foreground(lipgloss.Green)
	badStyle    = lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true)
	barStyle    = lipgloss.NewStyle().Foreground(lipgloss.Cyan)
	footerStyle = lipgloss.NewStyle().Reverse(true)
)

const (
	labelWidth = 14
	minWidth   = 20 // columns; on a narrower terminal lines are cut
)

// screen is what the terminal shows: the lines from top on, and a footer with the keys.
func (w *watch) screen() string {
	if w.height == 0 {
		return "" // its size is not known yet
	}
	all, rows := w.lines(), w.rows()
	w.top = max(0, min(w.top, len(all)-rows))
	shown := all[w.top:min(len(all), w.top+rows)]
	position := ""
	if len(all) > rows {
		position = fmt.Sprintf("%d-%d/%d  ", w.top+1, w.top+len(shown), len(all))
	}
	for len(shown) < rows {
		shown = append(shown, "")
	}
	keys := " q quit  ↑↓ scroll  fold: j jobs  a actors  s sensors"
	right := position + w.status.At.Local().Format("15:04:05") + " "
	gap := w.width - utf8.RuneCountInString(keys) - utf8.RuneCountInString(right)
	if gap < 1 {
		keys, gap = " q quit ↑↓ j a s", max(1, w.width-16-utf8.RuneCountInString(right))
	}
	footer := footerStyle.Render(shortened(keys+strings.Repeat(" ", gap)+right, max(1, w.width)))
	return strings.Join(shown, "\n") + "\n" + footer
}

// lines is the whole view.
func (w *watch) lines() []string {
	s, v := &w.status, &lines{width: max(minWidth, w.width)}
	if w.failure != nil {
		v.paragraph("", badStyle, "no answer from the agent for "+since(time.Now(), s.At)+": "+plain(w.failure.Error()))
		v.paragraph("", labelStyle, "what follows is as of "+clock(s.At))
	}
	v.row("agent", agentText(s))
	v.row("node", nodeText(s))
	v.row("heartbeat", heartbeatText(s))
	for i, text := range checkTexts(s.Checks) {
		style := goodStyle
		if strings.HasPrefix(text, "FAILED") {
			style = badStyle
		}
		v.paragraph(firstOf("checks", i), style, text)
	}
	w.actorsSummary(v)
	w.writePower(v)
	v.row("journal", journalText(s))
	v.row("jobs", jobsText(s))
	w.writeJobs(v)
	for i, text := range configurationTexts(s) {
		style := lipgloss.NewStyle()
		if strings.HasPrefix(text, "RELOAD FAILED") {
			style = badStyle
		}
		v.paragraph(firstOf("configuration", i), style, text)
	}
	for i, text := range sandboxTexts(s.Sandbox) {
		v.row(firstOf("sandbox", i), text)
	}
	w.writeSensors(v)
	w.writeActors(v)
	return v.all
}

// lines collects lines of a width.
type lines struct {
	width int
	all   []string
}

// row adds a value with its label, wrapped.
func (l *lines) row(label, text string) { l.paragraph(label, lipgloss.NewStyle(), text) }

func (l *lines) paragraph(label string, style lipgloss.Style, text string) {
	for i, line := range wrapped(text, l.width-labelWidth) {
		name := ""
		if i == 0 {
			name = label
		}
		l.all = append(l.all, labelStyle.Render(fmt.Sprintf("%-*s", labelWidth, name))+style.Render(shortened(line, l.width-labelWidth)))
	}
}

// plain adds a line as it is, cut to the width.
func (l *lines) plain(style lipgloss.Style, text string) {
	l.all = append(l.all, style.Render(shortened(text, l.width)))
}

func (w *watch) writePower(v *lines) {
	text := powerText(w.status.Power, w.status.Source)
	if len(w.power) > 1 {
		const scaleWidth = len("  1000.0 to 1000.0 W")
		shown := w.power[max(0, len(w.power)-max(1, min(60, v.width-labelWidth-len(text)-2-scaleWidth))):]
		// The lowest and the highest block may be close together.
		text += fmt.Sprintf("  %s  %.1f to %.1f W", sparkline(shown), slices.Min(shown), slices.Max(shown))
	}
	v.row("power", text)
}

// sparkline draws a column for each value, the lowest as the lowest block.
func sparkline(values []float64) string {
	blocks := []rune("▁▂▃▄▅▆▇█")
	low, high := slices.Min(values), slices.Max(values)
	var b strings.Builder
	for _, value := range values {
		level := 0
		if high > low {
			level = int((value - low) / (high - low) * float64(len(blocks)-1))
		}
		b.WriteRune(blocks[level])
	}
	return b.String()
}

func (w *watch) writeJobs(v *lines) {
	for i := range w.status.Jobs {
		j := &w.status.Jobs[i]
		if w.isFolded("j") {
			v.plain(lipgloss.NewStyle(), fmt.Sprintf("  %4s %%  %s  %s", positive(j.Progress.Percent, 0), j.Phase, plain(j.Key.String())))
			continue
		}
		v.all = append(v.all, "")
		v.plain(titleStyle, fmt.Sprintf("%s  %s  %s  %s", plain(j.Key.String()), cmp.Or(plain(j.Scenario), unknown), j.Phase, cmp.Or(plain(j.Encoder), unknown)))
		if j.Phase == job.PhaseFetch && j.Fetch != nil {
			progress, what, _ := strings.Cut(fetchText(j.Fetch), "  fetching")
			v.plain(lipgloss.NewStyle(), "  "+progress)
			v.plain(lipgloss.NewStyle(), "  fetching"+what)
			continue
		}
		p, eta := j.Progress, unknown
		if j.ETA != nil {
			eta = span(time.Duration(*j.ETA))
		}
		figures := fmt.Sprintf(" %4s %%  %s fps  %sx  ETA %s", positive(p.Percent, 0), positive(p.FPS, 1), positive(p.Speed, 2), eta)
		width := max(5, min(60, v.width-len(figures)-4))
		v.all = append(v.all, "  "+barStyle.Render(barOf(p.Percent, width))+shortened(figures, v.width-width-4))
		energy := fmt.Sprintf("  %s W, %s J so far", figure(j.Power, 1), figure(j.Energy, 1))
		if j.Power != nil || j.Energy != nil {
			energy += fmt.Sprintf(" (%s)", j.Source)
		}
		if j.PID != 0 {
			energy += fmt.Sprintf(", FFmpeg pid %d", j.PID)
		}
		v.plain(lipgloss.NewStyle(), energy)
	}
	if len(w.status.Jobs) > 0 {
		v.all = append(v.all, "")
	}
}

func (w *watch) writeSensors(v *lines) {
	s := &w.status
	if w.isFolded("s") {
		v.row("sensors", fmt.Sprintf("%s; CPU %s %%", plural(len(s.Samplers), "sampler"), loadText(s.Host)))
	} else {
		for i, text := range samplerTexts(s) {
			v.row(firstOf("samplers", i), text)
		}
		v.row("host", hostText(s.Host))
		v.row("cgroups", cmp.Or(plain(s.Cgroups), unknown))
	}
	for _, l := range s.Listeners {
		if l.Error != "" {
			v.paragraph("not served", badStyle, plain(l.Name)+": "+plain(l.Error))
		}
	}
}

func loadText(h *messages.HostStatus) string {
	if h == nil {
		return unknown
	}
	return figure(h.CPULoadPercent, 0)
}

// actorsSummary counts the actors, and names those that need attention.
func (w *watch) actorsSummary(v *lines) {
	s := &w.status
	running, restarts := 0, 0
	for i := range s.Actors {
		a := &s.Actors[i]
		restarts += a.Restarts
		if a.State == "running" {
			running++
		}
	}
	key := "shows"
	if !w.isFolded("a") {
		key = "hides"
	}
	v.row("actors", fmt.Sprintf("%d of %d running, %s (a %s the tree)", running, len(s.Actors), plural(restarts, "restart"), key))
	for i := range s.Actors {
		if a := &s.Actors[i]; a.State != "running" {
			v.paragraph("", badStyle, fmt.Sprintf("%s %s: %s", plain(a.Path), plain(a.State), failureText(s.At, a)))
		}
	}
}

// writeActors writes the tree unless it is folded.
func (w *watch) writeActors(v *lines) {
	if w.isFolded("a") {
		return
	}
	var tree strings.Builder
	writeActors(&tree, &w.status)
	for line := range strings.Lines(tree.String()) {
		v.plain(lipgloss.NewStyle(), strings.TrimRight(line, "\n"))
	}
}
