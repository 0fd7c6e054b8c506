package report

import (
	"cmp"
	"fmt"
	"html/template"
	"strings"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// page is the content of a report, as HTML and as text.
type page struct {
	Policy      string
	Styles      template.CSS
	Job         string
	Scenario    string
	Outcome     badge
	Meta        []fact
	Problems    []string
	Failure     *fact // reason and message
	Headline    headline
	Tiles       []fact
	Chart       *chart
	NoChart     string // reason if there is no chart
	Bars        []bar
	JobRows     []row
	MachineRows []row
	Scores      []fact
	NoScores    string // reason if there are no scores
	Encode      []fact
	Quality     []fact
	Command     []string
	Provenance  []provenance
	Log         []string
	LogCut      bool // Log is the end of a longer log
	LogOpen     bool // show the log initially
	Attempts    []attempt
}

// badge is a word with a color.
type badge struct{ Class, Text string }

// fact is a named value. Exact is a number with full precision. Time takes precedence over
// Value.
type fact struct {
	Name, Value, Exact, Note string
	Time                     *timestamp
}

// headline is the energy of the job.
type headline struct {
	Value, Bound, Exact, OtherUnits string
	Source                          badge
	Text                            string
}

// attempt is another attempt of the job.
type attempt struct {
	Number          int
	Outcome, Energy string
	State           string
}

func newPage(records []job.Record, selected int) (*page, error) {
	if selected < 0 || selected >= len(records) {
		return nil, fmt.Errorf("no attempt %d among %d", selected, len(records))
	}
	p := recordPage(&records[selected])
	for i := range records {
		if i != selected {
			p.Attempts = append(p.Attempts, newAttempt(&records[i]))
		}
	}
	return p, nil
}

func recordPage(rec *job.Record) *page {
	r := decodeResult(rec)
	p := &page{
		Policy: contentSecurityPolicy(), Styles: template.CSS(styles), //nolint:gosec // the embedded file
		Job: cmp.Or(sanitize(rec.Key().JobID), unknown), Scenario: cmp.Or(sanitize(scenario(rec, r)), unknown),
		Outcome: outcome(rec, r), Meta: meta(rec),
	}
	if r == nil {
		p.Headline = noEnergy(rec)
		p.addChart(rec, nil)
		return p
	}
	p.Problems = r.Problems
	if r.Error != "" || r.FailureReason != "" {
		p.Failure = &fact{Name: cmp.Or(sanitize(string(r.FailureReason)), unknown), Value: cmp.Or(sanitizeTo(r.Error, 4*maxText), "no message")}
	}
	p.addChart(rec, r.Energy)
	if rec.StartedAt != nil || r.Energy != nil {
		p.addEncode(r)
	}
	p.addLog(r)
	if r.Energy == nil {
		p.Headline = noEnergy(rec)
		return p
	}
	p.Headline = headlineOf(r.Energy)
	p.Tiles = tiles(r)
	p.Bars = bars(r.Energy)
	p.JobRows, p.MachineRows = jobRows(r.Energy), machineRows(r.Energy)
	if p.NoScores = noScores(r); p.NoScores == "" {
		p.Scores = scores(&r.Scores)
	}
	p.Provenance = provenanceOf(r)
	return p
}

func scenario(rec *job.Record, r *result) string {
	if r != nil {
		return cmp.Or(r.text(protocol.MetricScenario), rec.Lease.Job.Scenario)
	}
	return rec.Lease.Job.Scenario
}

func outcome(rec *job.Record, r *result) badge {
	switch {
	case r != nil && r.Status == protocol.StatusCompleted:
		return badge{"good", "completed"}
	case r != nil && r.Status == protocol.StatusFailed:
		return badge{"bad", "failed"}
	case r != nil:
		return badge{"neutral", cmp.Or(sanitize(string(r.Status)), "outcome "+unknown)}
	case rec.Release:
		return badge{"neutral", "returned unstarted"}
	}
	return badge{"neutral", "no result yet"}
}

func meta(rec *job.Record) []fact {
	started := fact{Name: "started", Value: unknown}
	finished := fact{Name: "finished", Value: unknown}
	switch {
	case rec.State.Unfinished():
		started.Value, finished.Value = "not yet", "not yet"
	case rec.StartedAt == nil:
		started.Value = "never"
	}
	if rec.StartedAt != nil {
		started.Time = timestampOf(*rec.StartedAt)
	}
	if rec.FinishedAt != nil {
		finished.Time = timestampOf(*rec.FinishedAt)
	}
	facts := []fact{
		{Name: "attempt", Value: fmt.Sprint(rec.Key().Attempt)},
		{Name: "node", Value: cmp.Or(sanitize(rec.Lease.NodeID), unknown)},
		{Name: "accepted", Value: unknown, Time: timestampOf(rec.AcceptedAt)},
		started, finished,
	}
	if rec.SettledAt != nil {
		facts = append(facts, fact{Name: "settled", Value: unknown, Time: timestampOf(*rec.SettledAt)})
	}
	return append(facts, fact{Name: "state", Value: stateText(rec)})
}

// stateText describes the state of a journal record.
func stateText(rec *job.Record) string {
	text := map[job.RecordState]string{
		job.RecordAccepted:   "accepted, FFmpeg not started",
		job.RecordRunning:    "running, or interrupted by the end of the agent",
		job.RecordResult:     "result not delivered yet",
		job.RecordSent:       "result delivered to the master",
		job.RecordSuperseded: "superseded: the master reassigned the job",
		job.RecordDeadLetter: "dead letter: result permanently rejected by the master",
	}[rec.State]
	if rec.State == job.RecordSent && rec.Release {
		text = "returned to the master"
	}
	text = cmp.Or(text, sanitize(string(rec.State)), unknown)
	if rec.Why != "" {
		text += " (" + sanitize(rec.Why) + ")"
	}
	return text
}

func newAttempt(rec *job.Record) attempt {
	r := decodeResult(rec)
	a := attempt{Number: rec.Key().Attempt, Outcome: outcome(rec, r).Text, Energy: unknown, State: stateText(rec)}
	if r != nil && r.Energy != nil && r.Energy.Total.Energy != nil {
		a.Energy = joules(&r.Energy.Total) + ", " + sourceOf(&r.Energy.Total).Text
	}
	return a
}

// noEnergy returns the headline of an attempt without an energy account.
func noEnergy(rec *job.Record) headline {
	h := headline{Value: unknown, Source: badge{"neutral", string(energy.Unavailable)}, Text: "No energy was measured."}
	switch {
	case len(rec.Result) == 0 && !rec.State.Settled():
		h.Text = "There is no result yet."
	case rec.StartedAt == nil:
		h.Text = "No energy was measured: FFmpeg was not started."
	}
	return h
}

func headlineOf(a *energy.Account) headline {
	f := &a.Total
	h := headline{Value: unknown, Source: sourceOf(f)}
	if f.Energy == nil {
		h.Text = "The energy of the job is unknown: " + cmp.Or(sanitize(f.Method), "no reason recorded") + "."
		return h
	}
	value := float64(*f.Energy)
	h.Exact, h.Bound = exact(*f.Energy), "error bound "+unknown
	h.Value = joules(f)
	if f.ErrorBound != nil {
		h.Bound = "± " + fixed(float64(*f.ErrorBound), boundDecimals(f)) + hardSpace + "J"
	}
	h.OtherUnits = otherUnits(value)
	switch sanitize(a.ShareMethod) {
	case "alone":
		h.Text = "All energy that the machine used while FFmpeg was running, including idle power."
	case "":
		h.Text = "The energy that the machine used while FFmpeg was running, or this job's share of it, including idle power."
	default:
		h.Text = "This job's share of the energy that the machine used while FFmpeg was running, including idle power."
	}
	if f.CoveragePercent < 100 {
		h.Text += fmt.Sprintf(" The sensors cover %s %% of that time; energy used in the remaining time is not included.", coverageText(f.CoveragePercent))
	}
	if f.Source == energy.Estimated {
		h.Text += " " + estimatedPart(a)
	}
	return h
}

// estimatedPart describes which part of an estimated total was measured.
func estimatedPart(a *energy.Account) string {
	var estimated, measured []string
	for i := range a.Zones {
		switch z := &a.Zones[i]; {
		case !z.Counted || z.Energy == nil:
		case z.Source == energy.Estimated:
			estimated = append(estimated, zoneName(z.Name, z.ID))
		case z.Source == energy.Measured:
			measured = append(measured, zoneName(z.Name, z.ID))
		}
	}
	switch {
	case len(estimated) == 0:
		return "At least one part of it is estimated by a model."
	case len(measured) == 0:
		return "It is estimated by a model; nothing was measured."
	}
	return fmt.Sprintf("Only a part was measured (%s); the rest is estimated by a model (%s).", strings.Join(measured, ", "), strings.Join(estimated, ", "))
}

// otherUnits returns an energy in Wh, and in kJ or MJ if it is large enough.
func otherUnits(joules float64) string {
	wattHours := threeDigits(joules/3600) + " Wh"
	switch {
	case joules >= 1e6:
		return threeDigits(joules/1e6) + " MJ, " + wattHours
	case joules >= 1e3:
		return threeDigits(joules/1e3) + " kJ, " + wattHours
	case joules >= 1:
		return wattHours
	}
	return ""
}

func threeDigits(v float64) string {
	if v >= 100 {
		return fixed(v, 0)
	}
	return fmt.Sprintf("%.3g", v)
}

// coverageText formats a percentage, but never rounds up to 100.
func coverageText(percent float64) string {
	if percent < 100 && percent > 99.95 {
		return "99.9"
	}
	return fixed(percent, 1)
}

func sourceOf(f *energy.Figure) badge {
	switch {
	case f.Energy == nil:
		return badge{"neutral", string(energy.Unavailable)}
	case f.Source == energy.Measured:
		return badge{"good", "measured"}
	case f.Source == energy.Estimated:
		return badge{"warn", "estimated"}
	}
	return badge{"neutral", cmp.Or(sanitize(string(f.Source)), "source "+unknown)}
}

func joules(f *energy.Figure) string {
	if f.Energy == nil {
		return unknown
	}
	return fixed(float64(*f.Energy), boundDecimals(f)) + hardSpace + "J"
}

// tiles returns the facts shown beside the headline.
func tiles(r *result) []fact {
	a := r.Energy
	var facts []fact
	if a.Total.Energy != nil {
		facts = []fact{netTile(&a.Net), powerTile(a.MeanPower)}
	}
	facts = append(facts, speedOf(r))
	if s := r.Scores.JoulesPerFrame; s != nil {
		facts = append(facts, fact{Name: "per frame", Value: significant(*s) + hardSpace + "J", Exact: exact(*s)})
	}
	if q := r.Quality.VMAF; q != nil {
		facts = append(facts, fact{Name: "VMAF", Value: fixed(*q, 2), Exact: exact(*q), Note: "0 to 100"})
	}
	return facts
}

func netTile(f *energy.Figure) fact {
	if f.Energy == nil {
		return fact{Name: "net of idle", Value: unknown, Note: sanitize(f.Method)}
	}
	return fact{Name: "net of idle", Value: joules(f), Exact: exact(*f.Energy), Note: "without the idle baseline"}
}

func powerTile(w *energy.Watts) fact {
	if w == nil {
		return fact{Name: "average power", Value: unknown}
	}
	return fact{Name: "average power", Value: fixed(float64(*w), 1) + hardSpace + "W", Exact: exact(*w), Note: "of the job"}
}

func boundDecimals(f *energy.Figure) int {
	if f.ErrorBound == nil {
		return 3
	}
	return decimalsFor(float64(*f.ErrorBound))
}

// partDecimals returns the decimals for the parts of a total: one more than for the total, so
// that the parts visibly add up.
func partDecimals(f *energy.Figure) int { return min(3, boundDecimals(f)+1) }

func (p *page) addChart(rec *job.Record, account *energy.Account) {
	useUnknown := ""
	if account != nil {
		useUnknown = sanitize(account.Job.Method)
	}
	if plot := newPlot(rec.Samples, account); plot != nil {
		p.Chart = plot.chart(useUnknown)
		return
	}
	switch {
	case len(rec.Result) == 0 && !rec.State.Settled():
		p.NoChart = "Available when there is a result."
	case rec.StartedAt == nil:
		p.NoChart = "Not available: FFmpeg was not started."
	default:
		p.NoChart = "Not available: no power was recorded, or the recording was deleted to free space in the journal."
	}
}

// noScores returns why there are no scores, or "" if there are.
func noScores(r *result) string {
	switch total := &r.Energy.Total; {
	case r.Scores != (energy.Scores{Joules: r.Scores.Joules}):
		return ""
	case total.Energy == nil:
		return "Not available: the energy is unknown."
	case total.CoveragePercent < energy.MinScoreCoverage:
		return fmt.Sprintf("Not available: less than %d %% of the energy window is covered.", energy.MinScoreCoverage)
	}
	return "Not available: the frames, pixels and duration are unknown."
}

// scores returns the scores in the order of energy.Scores, with their formulas.
func scores(s *energy.Scores) []fact {
	facts := []fact{
		{Name: "J per frame", Note: "energy / frames encoded"},
		{Name: "J per second of video", Note: "energy / video duration"},
		{Name: "µJ per pixel", Note: "energy in µJ / pixels encoded"},
		{Name: "pixels per J", Note: "pixels encoded / energy; efficiency_score at the master"},
		{Name: "frames per J", Note: "frames encoded / energy"},
		{Name: "Mbit/s per W", Note: "output bits / encoding time / average power"},
		{Name: "quality-weighted pixels per J", Note: "pixels encoded × VMAF / 100 / energy; qoe_score at the master"},
	}
	for i, v := range []*float64{
		s.JoulesPerFrame, s.JoulesPerMediaSecond, s.MicrojoulesPerPixel, s.PixelsPerJoule, s.FramesPerJoule,
		s.MegabitsPerSecondPerWatt, s.QualityWeightedPixelsPerJoule,
	} {
		facts[i].Value = unknown
		if v != nil {
			facts[i].Value, facts[i].Exact = significant(*v), exact(*v)
		}
	}
	return facts
}
