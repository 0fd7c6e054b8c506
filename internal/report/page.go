package report

import (
	"fmt"
	"html/template"
	"strings"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// page is all that the template shows.
type page struct {
	Policy   string
	Styles   template.CSS
	Job      string
	Scenario string
	Outcome  badge
	Meta     []fact
	Problems []string
	Failure  *fact // reason and message
	Headline headline
	Tiles    []fact
	Chart    *chart
	NoChart  string
	Bars     []bar
	Charged  []row // what the job is charged, by use and by domain
	Machine  []row // the machine, zone by zone
	Scores   []fact
	NoScores string
	Encode   []fact
	Quality  []fact
	Command  []string
	Origins  []origin
	Log      []string
	LogCut   bool
	LogOpen  bool
	Others   []other
}

// badge is a word with a colour.
type badge struct{ Class, Text string }

// fact is a figure or a text with its name. Exact is the figure to its last digit.
type fact struct {
	Name, Value, Exact, Note string
	Time                     *moment
}

// headline is what the job cost.
type headline struct {
	Value, Bound, Exact, Also string
	Source                    badge
	Text                      string
}

// row is a figure of a table.
type row struct {
	Class, Name, Note    string
	Inner                bool // part of the row above that is not
	Energy, Bound, Exact string
	Part                 string
	Origin               string
}

// origin is where a figure comes from, in words.
type origin struct {
	Name  string
	Texts []string
	Code  string
}

// other is another attempt at the job.
type other struct {
	Attempt         int
	Outcome, Energy string
	Standing        string
}

func newPage(rec *job.Record) *page {
	r := readResult(rec)
	key := rec.Key()
	p := &page{
		Policy: policy(), Styles: template.CSS(styles), //nolint:gosec // the embedded file
		Job: or(plain(key.JobID), unknown), Scenario: or(plain(scenario(rec, r)), unknown),
		Outcome: outcome(rec, r), Meta: meta(rec),
	}
	if r == nil {
		p.Headline = noEnergy(rec)
		p.drawPower(rec, nil)
		return p
	}
	p.Problems = r.Problems
	if r.Error != "" || r.FailureReason != "" {
		p.Failure = &fact{Name: or(plain(string(r.FailureReason)), unknown), Value: or(cut(r.Error, 4*mostText), "no message")}
	}
	p.drawPower(rec, r.Energy)
	if rec.StartedAt != nil || r.Energy != nil {
		p.showEncode(r)
	}
	p.showLog(r)
	if r.Energy == nil {
		p.Headline = noEnergy(rec)
		return p
	}
	p.Headline = headlineOf(r.Energy)
	p.Tiles = tiles(r)
	p.Bars = bars(r.Energy)
	p.Charged, p.Machine = chargedRows(r.Energy), machineRows(r.Energy)
	if p.NoScores = noScores(r); p.NoScores == "" {
		p.Scores = scores(&r.Scores)
	}
	p.Origins = origins(r)
	return p
}

func scenario(rec *job.Record, r *result) string {
	if r != nil {
		return or(r.text(protocol.MetricScenario), rec.Lease.Job.Scenario)
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
		return badge{"neutral", or(plain(string(r.Status)), "outcome "+unknown)}
	case rec.Release:
		return badge{"neutral", "returned unstarted"}
	}
	return badge{"neutral", "no result yet"}
}

func meta(rec *job.Record) []fact {
	facts := []fact{
		{Name: "attempt", Value: fmt.Sprint(rec.Key().Attempt)},
		{Name: "node", Value: or(plain(rec.Lease.NodeID), unknown)},
		{Name: "taken", Value: unknown, Time: momentOf(rec.AcceptedAt)},
		{Name: "started", Value: unknown},
		{Name: "finished", Value: unknown},
	}
	switch {
	case rec.State.Unfinished():
		facts[3].Value, facts[4].Value = "not yet", "not yet"
	case rec.StartedAt == nil:
		facts[3].Value = "never"
	}
	if rec.StartedAt != nil {
		facts[3].Time = momentOf(*rec.StartedAt)
	}
	if rec.FinishedAt != nil {
		facts[4].Time = momentOf(*rec.FinishedAt)
	}
	if rec.SettledAt != nil {
		facts = append(facts, fact{Name: "settled with the master", Value: unknown, Time: momentOf(*rec.SettledAt)})
	}
	return append(facts, fact{Name: "standing", Value: standing(rec)})
}

// standing is where an attempt stands with the master.
func standing(rec *job.Record) string {
	text := map[job.RecordState]string{
		job.RecordAccepted:   "taken, FFmpeg not started",
		job.RecordRunning:    "running, or interrupted together with the agent",
		job.RecordResult:     "waits to be sent to the master",
		job.RecordSent:       "the master took the result",
		job.RecordSuperseded: "discarded: the job was given away",
		job.RecordDeadLetter: "dead letter: the master refuses the result for good",
	}[rec.State]
	if rec.State == job.RecordSent && rec.Release {
		text = "the master has the job again"
	}
	text = or(text, or(plain(string(rec.State)), unknown))
	if rec.Why != "" {
		text += " (" + plain(rec.Why) + ")"
	}
	return text
}

func otherAttempt(rec *job.Record) other {
	r := readResult(rec)
	o := other{Attempt: rec.Key().Attempt, Outcome: outcome(rec, r).Text, Energy: unknown, Standing: standing(rec)}
	if r != nil && r.Energy != nil && r.Energy.Total.Energy != nil {
		o.Energy = joules(&r.Energy.Total) + ", " + sourceOf(&r.Energy.Total).Text
	}
	return o
}

// noEnergy is the headline of an attempt without an account.
func noEnergy(rec *job.Record) headline {
	h := headline{Value: unknown, Source: badge{"neutral", string(energy.Unavailable)}, Text: "No energy was counted."}
	switch {
	case len(rec.Result) == 0 && !rec.State.Settled():
		h.Text = "There is no result yet."
	case rec.StartedAt == nil:
		h.Text = "No energy was counted: FFmpeg did not start."
	}
	return h
}

func headlineOf(a *energy.Account) headline {
	f := &a.Total
	h := headline{Value: unknown, Source: sourceOf(f)}
	if f.Energy == nil {
		h.Text = "What the job cost is not known: " + or(plain(f.Method), "no reason is recorded") + "."
		return h
	}
	value := float64(*f.Energy)
	h.Exact, h.Bound = exact(*f.Energy), "error bound "+unknown
	h.Value = fixed(value, boundDecimals(f)) + hard + "J"
	if f.ErrorBound != nil {
		h.Bound = "± " + fixed(float64(*f.ErrorBound), boundDecimals(f)) + hard + "J"
	}
	h.Also = also(value)
	switch plain(a.ShareMethod) {
	case "alone":
		h.Text = "All that the machine used while FFmpeg ran, idle power included."
	case "":
		h.Text = "The machine's energy while FFmpeg ran, or this job's share of it; idle power included."
	default:
		h.Text = "This job's share of what the machine used while FFmpeg ran, idle power included."
	}
	if f.CoveragePercent < 100 {
		h.Text += fmt.Sprintf(" %s %% of that time was read; what was used in the rest is not in the figure.", percentText(f.CoveragePercent))
	}
	if f.Source == energy.Estimated {
		h.Text += " " + modelled(a)
	}
	return h
}

// modelled says how much of an estimated total comes from a model.
func modelled(a *energy.Account) string {
	var estimated, measured []string
	for i := range a.Zones {
		switch z := &a.Zones[i]; {
		case !z.Counted || z.Energy == nil:
		case z.Source == energy.Estimated:
			estimated = append(estimated, nameOf(z.Name, z.ID))
		case z.Source == energy.Measured:
			measured = append(measured, nameOf(z.Name, z.ID))
		}
	}
	switch {
	case len(estimated) == 0:
		return "At least one part of it was not measured, but comes from a model."
	case len(measured) == 0:
		return "Nothing was measured: the figure comes from a model."
	}
	return fmt.Sprintf("Only a part was measured (%s); the rest comes from a model (%s).", strings.Join(measured, ", "), strings.Join(estimated, ", "))
}

// also is an energy in other units; empty where it is too little for them.
func also(joules float64) string {
	text := fmt.Sprintf("%s Wh", threeDigits(joules/3600))
	switch {
	case joules >= 1e6:
		return threeDigits(joules/1e6) + " MJ, " + text
	case joules >= 1e3:
		return threeDigits(joules/1e3) + " kJ, " + text
	case joules >= 1:
		return text
	}
	return ""
}

func threeDigits(v float64) string {
	if v >= 100 {
		return fixed(v, 0)
	}
	return fmt.Sprintf("%.3g", v)
}

// percentText does not round up to 100 what is less.
func percentText(percent float64) string {
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
	return badge{"neutral", or(plain(string(f.Source)), "source "+unknown)}
}

func joules(f *energy.Figure) string {
	if f.Energy == nil {
		return unknown
	}
	return fixed(float64(*f.Energy), boundDecimals(f)) + hard + "J"
}

// tiles are the figures beside the headline.
func tiles(r *result) []fact {
	a := r.Energy
	var facts []fact
	if a.Total.Energy != nil {
		facts = []fact{netTile(&a.Net), powerTile(a.MeanPower)}
	}
	facts = append(facts, speedOf(r))
	if s := r.Scores.JoulesPerFrame; s != nil {
		facts = append(facts, fact{Name: "per frame", Value: measure(*s) + hard + "J", Exact: exact(*s)})
	}
	if q := r.Quality.VMAF; q != nil {
		facts = append(facts, fact{Name: "VMAF", Value: fixed(*q, 2), Exact: exact(*q), Note: "0 to 100"})
	}
	return facts
}

func netTile(f *energy.Figure) fact {
	if f.Energy == nil {
		return fact{Name: "net of idle", Value: unknown, Note: plain(f.Method)}
	}
	return fact{
		Name: "net of idle", Value: fixed(float64(*f.Energy), boundDecimals(f)) + hard + "J", Exact: exact(*f.Energy),
		Note: "used because the machine worked",
	}
}

func powerTile(w *energy.Watts) fact {
	if w == nil {
		return fact{Name: "mean power", Value: unknown}
	}
	return fact{Name: "mean power", Value: fixed(float64(*w), 1) + hard + "W", Exact: exact(*w), Note: "of what the job is charged"}
}

func boundDecimals(f *energy.Figure) int {
	if f.ErrorBound == nil {
		return 3
	}
	return decimalsOf(float64(*f.ErrorBound))
}

// partDecimals are those of a whole's parts: one more than its own, so that they are seen
// to add up.
func partDecimals(f *energy.Figure) int { return min(3, boundDecimals(f)+1) }

func (p *page) drawPower(rec *job.Record, account *energy.Account) {
	noUse := ""
	if account != nil {
		noUse = plain(account.Job.Method)
	}
	if drawn := newPlot(rec.Samples, account); drawn != nil {
		p.Chart = drawn.chart(noUse)
		return
	}
	switch {
	case len(rec.Result) == 0 && !rec.State.Settled():
		p.NoChart = "It comes with the result."
	case rec.StartedAt == nil:
		p.NoChart = "There is none: FFmpeg did not start."
	default:
		p.NoChart = "The journal has no power over time of this attempt: nothing was recorded, or the record has made room."
	}
}

// noScores is why there are none; empty where there are.
func noScores(r *result) string {
	switch total := &r.Energy.Total; {
	case r.Scores != (energy.Scores{Joules: r.Scores.Joules}):
		return ""
	case total.Energy == nil:
		return "There are none: the energy is not known."
	case total.CoveragePercent < energy.MinScoreCoverage:
		return fmt.Sprintf("There are none: less than %d %% of the energy window was read.", energy.MinScoreCoverage)
	}
	return "There are none: the work is not known."
}

// scores are in the order of energy.Scores, each with its formula.
func scores(s *energy.Scores) []fact {
	facts := []fact{
		{Name: "J per frame", Note: "energy / frames encoded"},
		{Name: "J per second of video", Note: "energy / seconds of video made"},
		{Name: "µJ per pixel", Note: "energy in µJ / pixels encoded"},
		{Name: "pixels per J", Note: "pixels encoded / energy; the master's efficiency_score"},
		{Name: "frames per J", Note: "frames encoded / energy"},
		{Name: "Mbit/s per W", Note: "bitrate made, by the clock / mean power"},
		{Name: "quality-weighted pixels per J", Note: "pixels encoded × VMAF / 100 / energy; the master's qoe_score"},
	}
	for i, v := range []*float64{
		s.JoulesPerFrame, s.JoulesPerMediaSecond, s.MicrojoulesPerPixel, s.PixelsPerJoule, s.FramesPerJoule,
		s.MegabitsPerSecondPerWatt, s.QualityWeightedPixelsPerJoule,
	} {
		facts[i].Value = unknown
		if v != nil {
			facts[i].Value, facts[i].Exact = measure(*v), exact(*v)
		}
	}
	return facts
}
