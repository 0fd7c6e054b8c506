package report

import (
	"cmp"
	"fmt"
	"html/template"

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
	Renditions  []rendition
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
	var facts []fact
	if n := rec.Lease.Job.SequenceNumber; n > 0 {
		facts = []fact{{Name: "number", Value: fmt.Sprint(n)}}
	}
	facts = append(facts, []fact{
		{Name: "attempt", Value: fmt.Sprint(rec.Key().Attempt)},
		{Name: "node", Value: cmp.Or(sanitize(rec.Lease.NodeID), unknown)},
		{Name: "accepted", Value: unknown, Time: timestampOf(rec.AcceptedAt)},
		started, finished,
	}...)
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
	if r != nil && r.FailureReason != "" {
		a.Outcome += ": " + sanitize(string(r.FailureReason))
	}
	if r != nil && r.Energy != nil && r.Energy.Total.Energy != nil {
		a.Energy = joules(&r.Energy.Total) + ", " + sourceOf(&r.Energy.Total).Text
	}
	return a
}

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
