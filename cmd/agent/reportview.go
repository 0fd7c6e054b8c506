package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// storedResult is a result as the journal has it.
type storedResult struct {
	protocol.JobResult
	AnalyzerOutput analysis `json:"analyzer_output"`
}

// analysis is what the agent found out about an attempt.
type analysis struct {
	Energy  *energy.Account `json:"energy"`
	Scores  energy.Scores   `json:"scores"`
	Quality job.Quality     `json:"quality"`
}

func readResult(rec *job.Record) (*storedResult, error) {
	if len(rec.Result) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(rec.Result))
	d.UseNumber()
	r := &storedResult{}
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("reading the stored result of job %s (--json prints it as it is): %w", plain(rec.Key().JobID), err)
	}
	return r, nil
}

// reportText is what an attempt came to, for people.
func reportText(records []job.Record, chosen int) (string, error) {
	rec := &records[chosen]
	r, err := readResult(rec)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	writeOutcome(&b, rec, r)
	if r != nil {
		writeAnalysis(&b, rec, r)
		writeLog(&b, r)
	}
	writeOthers(&b, records, chosen)
	return b.String(), nil
}

// section writes rows of names and values below a heading.
func section(b *strings.Builder, title string, rows [][2]string) {
	fmt.Fprintf(b, "\n%s\n", title)
	writeRows(b, "  ", rows)
}

func writeRows(b *strings.Builder, indent string, rows [][2]string) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if row[1] != "" {
			fmt.Fprintf(w, "%s%s\t%s\n", indent, row[0], row[1])
		}
	}
	w.Flush() //nolint:errcheck // a builder takes everything
}

func writeOutcome(b *strings.Builder, rec *job.Record, r *storedResult) {
	key := rec.Key()
	rows := [][2]string{{"job", plain(key.JobID)}, {"attempt", fmt.Sprint(key.Attempt)}, {"outcome", outcome(rec, r)}}
	if r != nil && (r.Error != "" || r.FailureReason != "") {
		rows = append(rows, [2]string{"failure", or(plain(string(r.FailureReason)), unknown) + ": " + plain(r.Error)})
	}
	rows = append(rows,
		[2]string{"scenario", or(plain(rec.Lease.Job.Scenario), unknown)},
		[2]string{"node", or(plain(rec.Lease.NodeID), unknown)},
		[2]string{"taken", clock(rec.AcceptedAt)},
		[2]string{"started", moment(rec.StartedAt)},
		[2]string{"finished", moment(rec.FinishedAt)},
		[2]string{"standing", standing(rec)})
	writeRows(b, "", rows)
}

func outcome(rec *job.Record, r *storedResult) string {
	switch {
	case r != nil:
		return plain(string(r.Status))
	case rec.Release:
		return "returned unstarted"
	}
	return "no result"
}

// standing is where an attempt stands with the master.
func standing(rec *job.Record) string {
	text := ""
	switch rec.State {
	case job.RecordAccepted:
		return "taken, FFmpeg not started; if no agent runs, its next start reports it as failed"
	case job.RecordRunning:
		return "running, as agent status shows; if no agent runs, it was interrupted and the next start reports it as failed"
	case job.RecordResult:
		return "waits to be sent to the master"
	case job.RecordSent:
		text = "the master took the result"
		if rec.Release {
			text = "the master has the job again"
		}
	case job.RecordSuperseded:
		text = "discarded: the job was given away"
	case job.RecordDeadLetter:
		text = "dead letter: the master refuses the result for good"
	default:
		text = plain(string(rec.State))
	}
	if rec.SettledAt != nil {
		text += ", at " + clock(*rec.SettledAt)
	}
	if rec.Why != "" {
		text += " (" + plain(rec.Why) + ")"
	}
	return text
}

func moment(t *time.Time) string {
	if t == nil {
		return unknown
	}
	return clock(*t)
}

func writeEncode(b *strings.Builder, r *storedResult) {
	section(b, "encode", [][2]string{
		{"wall", r.known(protocol.MetricDuration, " s")},
		{"video made", r.known(protocol.MetricMediaDuration, " s")},
		{"frames", r.metric(protocol.MetricFrames, "") + ", " + r.metric(protocol.MetricDroppedFrames, " dropped")},
		{"fps, mean", r.known(protocol.MetricFPS, "")},
		{"picture", r.known(protocol.MetricResolution, "") + ", " + r.known(protocol.MetricPixelsProcessed, " pixels in all")},
		{"encoder", r.known("encoder", "") + ", " + r.known(protocol.MetricBitrate, " asked for")},
		{"output", r.known("output_bytes", " bytes")},
		{"CPU time", r.known("cpu_seconds", " s")},
		{"quality", qualityText(&r.AnalyzerOutput.Quality)},
	})
}

// metric is a metric of the result as it was sent, with its unit.
func (r *storedResult) metric(key, unit string) string {
	v, ok := r.Metrics[key]
	if !ok || v == nil {
		return unknown
	}
	return plain(fmt.Sprint(v)) + unit
}

// known is a metric that is not known while it is 0.
func (r *storedResult) known(key, unit string) string {
	if n, ok := r.Metrics[key].(json.Number); ok {
		if f, err := n.Float64(); err == nil && f == 0 {
			return unknown
		}
	}
	return r.metric(key, unit)
}

// qualityText is empty where no quality was asked for.
func qualityText(q *job.Quality) string {
	var parts []string
	for _, m := range []struct {
		name   string
		value  *float64
		digits int
	}{{"VMAF", q.VMAF, 2}, {"PSNR (dB)", q.PSNR, 2}, {"SSIM", q.SSIM, 4}} {
		if m.value != nil {
			parts = append(parts, m.name+" "+figure(m.value, m.digits))
		}
	}
	if q.Note != "" {
		parts = append(parts, plain(q.Note))
	}
	return strings.Join(parts, ", ")
}

// writeAnalysis shows the encode and what it cost; there is no account where FFmpeg
// did not start, or was interrupted together with the agent.
func writeAnalysis(b *strings.Builder, rec *job.Record, r *storedResult) {
	account := r.AnalyzerOutput.Energy
	switch {
	case account != nil:
		writeEncode(b, r)
		writeEnergy(b, account)
		writeScores(b, &r.AnalyzerOutput.Scores)
	case rec.StartedAt == nil:
		b.WriteString("\nno energy was counted: FFmpeg did not start\n")
	default:
		b.WriteString("\nno energy was counted\n")
	}
}

func writeEnergy(b *strings.Builder, a *energy.Account) {
	section(b, "energy", [][2]string{
		{"total", joules(&a.Total)},
		{"net of idle", partOf(&a.Net)},
		{"mean power", watts(a.MeanPower)},
		{"method", or(plain(a.Total.Method), unknown)},
		{"window", fmt.Sprintf("%.3f s from %s", a.Duration().Seconds(), clock(a.Start))},
		{"coverage", fmt.Sprintf("%.1f %% of the window read, %s", a.Total.CoveragePercent, several(a.Total.Gaps, "gap"))},
		{"share", or(plain(a.ShareMethod), unknown)},
		{"idle baseline", baselineText(a.Baseline)},
		{"notes", plain(strings.Join(a.Notes, "; "))},
	})
	b.WriteByte('\n')
	writeFigures(b, a)
}

func joules(f *energy.Figure) string {
	if f.Energy == nil {
		return unknown + ", " + string(energy.Unavailable)
	}
	digits := digitsOf(f)
	return fmt.Sprintf("%s J ± %s J, %s", figure(f.Energy, digits), figure(f.ErrorBound, digits), f.Source)
}

// digitsOf is how many decimals a figure deserves: as many as leave its error bound two
// digits that count, and 3 at most.
func digitsOf(f *energy.Figure) int {
	if f.ErrorBound == nil || !(*f.ErrorBound > 0) {
		return 3
	}
	return int(max(0, min(3, 1-math.Floor(math.Log10(float64(*f.ErrorBound))))))
}

// partOf is a part of the total, or why it is not known.
func partOf(f *energy.Figure) string {
	if f.Energy == nil {
		return unknown + ", " + or(plain(f.Method), string(energy.Unavailable))
	}
	return joules(f)
}

func baselineText(b *energy.Baseline) string {
	if b == nil {
		return unknown
	}
	return fmt.Sprintf("%s W ± %s W, learned from %.0f s of idleness, last at %s",
		figure(&b.Power, 2), figure(&b.Spread, 2), b.Seconds, clock(b.LearnedAt))
}

func watts(w *energy.Watts) string {
	if w == nil {
		return unknown
	}
	return figure(w, 2) + " W"
}

// writeFigures shows where the joules went: the job's by domain, then the machine's
// zone by zone.
func writeFigures(b *strings.Builder, a *energy.Account) {
	// One decimal more than the whole deserves, so that parts are seen to add up.
	digits := min(3, digitsOf(&a.Machine)+1)
	rows := [][]string{{"where", "J", "± J", "%", "coverage %", "gaps", "source", "note"}}
	line := func(name string, f energy.Figure, of *energy.Joules, note string) {
		rows = append(rows, []string{name, figure(f.Energy, digits), figure(f.ErrorBound, digits), percent(f.Energy, of),
			fmt.Sprintf("%.1f", f.CoveragePercent), fmt.Sprint(f.Gaps), or(string(f.Source), unknown), note})
	}
	line("this job", a.Total, a.Machine.Energy, "% of the machine")
	for _, part := range []struct {
		name, note string
		figure     energy.Figure
	}{{"own work", "by its own processes", a.Job}, {"others' work", "processes of no job", a.Rest}, {"idle", "the machine without any job", a.Idle}} {
		if part.figure.Energy != nil {
			line("  "+part.name, part.figure, a.Total.Energy, "% of this job, "+part.note)
		}
	}
	domains := make([]energy.Domain, 0, len(a.Domains))
	for d := range a.Domains {
		domains = append(domains, d)
	}
	slices.Sort(domains)
	for _, d := range domains {
		line("  "+plain(string(d)), a.Domains[d].Total, a.Total.Energy, "% of this job")
	}
	line("machine", a.Machine, a.Machine.Energy, "all that ran meanwhile, idle power too")
	for _, z := range a.Zones {
		note := plain(string(z.Domain)) + ", % of the machine"
		of := a.Machine.Energy
		if !z.Counted {
			note, of = plain(string(z.Domain))+", not added: part of another zone or beside them", nil
		}
		line("  "+plain(z.Name), z.Figure, of, note)
	}
	writeTable(b, rows, 1, 5)
}

// writeTable writes rows of cells in columns; those from first to last have figures and
// end at the same place.
func writeTable(b *strings.Builder, rows [][]string, first, last int) {
	wide := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			wide[i] = max(wide[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			if i >= first && i <= last {
				line += fmt.Sprintf("  %*s", wide[i], cell)
			} else {
				line += fmt.Sprintf("  %-*s", wide[i], cell)
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

func percent(part, of *energy.Joules) string {
	if part == nil || of == nil || *of <= 0 {
		return unknown
	}
	return fmt.Sprintf("%.1f", float64(*part / *of * 100))
}

func writeScores(b *strings.Builder, s *energy.Scores) {
	section(b, "scores (\""+unknown+"\" where a figure is not known, or less than "+fmt.Sprint(energy.MinScoreCoverage)+" % of the window was read)", [][2]string{
		{"J per frame", measure(s.JoulesPerFrame)},
		{"J per second of video", measure(s.JoulesPerMediaSecond)},
		{"µJ per pixel", measure(s.MicrojoulesPerPixel)},
		{"pixels per J (efficiency_score)", measure(s.PixelsPerJoule)},
		{"frames per J", measure(s.FramesPerJoule)},
		{"Mbit/s per W", measure(s.MegabitsPerSecondPerWatt)},
		{"pixels × VMAF/100 per J (qoe_score)", measure(s.QualityWeightedPixelsPerJoule)},
	})
}

// measure shows a figure of any size with at least three digits that count.
func measure(f *float64) string {
	switch {
	case f == nil:
		return unknown
	case *f >= 1000:
		return fmt.Sprintf("%.0f", *f)
	case *f >= 1:
		return fmt.Sprintf("%.3f", *f)
	}
	return fmt.Sprintf("%.3g", *f)
}

// logLines is how much of FFmpeg's log a failure shows.
const logLines = 5

func writeLog(b *strings.Builder, r *storedResult) {
	log := strings.TrimSpace(r.Logs)
	if log == "" || r.Status == protocol.StatusCompleted {
		return
	}
	lines := strings.Split(log, "\n")
	fmt.Fprintf(b, "\nthe end of FFmpeg's log\n")
	for _, line := range lines[max(0, len(lines)-logLines):] {
		fmt.Fprintf(b, "  %s\n", plain(line))
	}
}

func writeOthers(b *strings.Builder, records []job.Record, chosen int) {
	if len(records) < 2 {
		return
	}
	b.WriteString("\nother attempts (--attempt N)\n")
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for i := range records {
		if i == chosen {
			continue
		}
		rec := &records[i]
		how := "no readable result"
		if r, err := readResult(rec); err == nil {
			how = outcome(rec, r)
		}
		fmt.Fprintf(w, "  %d\t%s\t%s\n", rec.Key().Attempt, how, standing(rec))
	}
	w.Flush() //nolint:errcheck // a builder takes everything
}
