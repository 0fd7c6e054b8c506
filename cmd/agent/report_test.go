package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/internal/report"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func leaseOf(j string, attempt int) job.Lease {
	return job.Lease{
		Job:        protocol.Job{ID: j, Scenario: "720p30-h264", RetryCount: attempt - 1, Parameters: protocol.Parameters{"stream_key": "s3cr3t"}},
		NodeID:     "node-42",
		AcquiredAt: ago(time.Minute),
	}
}

func figureOf(joules, bound float64, source energy.Source, method string) energy.Figure {
	return energy.Figure{
		Energy: of(energy.Joules(joules)), Source: source, Method: method,
		CoveragePercent: 99.5, Gaps: 1, ErrorBound: of(energy.Joules(bound)),
	}
}

// measured is an account with zones of each kind.
func measured() *energy.Account {
	cpu := figureOf(700.25, 4, energy.Measured, "rapl: package-0")
	dram := figureOf(100, 1, energy.Measured, "rapl: dram")
	return &energy.Account{
		Start: ago(30 * time.Second), End: ago(18 * time.Second),
		Breakdown: energy.Breakdown{
			Total: figureOf(800.25, 5, energy.Measured, "rapl: package-0 + dram"),
			Idle:  figureOf(240, 6, energy.Measured, "idle baseline × time"),
			Net:   figureOf(560.25, 11, energy.Measured, "total − idle"),
			Job:   figureOf(500.25, 11, energy.Measured, "net × the job's part of all use"),
			Rest:  figureOf(60, 11, energy.Measured, "net − job"),
		},
		Machine: figureOf(1000, 6, energy.Measured, "rapl: package-0 + dram"),
		Domains: map[energy.Domain]energy.Breakdown{energy.DomainDRAM: {Total: dram}, energy.DomainCPU: {Total: cpu}},
		Zones: []energy.ZoneFigure{
			{ID: "intel-rapl:0", Name: "package-0", Domain: energy.DomainCPU, Counted: true, Figure: figureOf(880, 5, energy.Measured, "rapl")},
			{ID: "intel-rapl:0:0", Name: "core", Domain: energy.DomainCPU, Figure: figureOf(600, 5, energy.Measured, "rapl")},
			{ID: "intel-rapl:0:2", Name: "dram", Domain: energy.DomainDRAM, Counted: true, Figure: figureOf(120, 1, energy.Measured, "rapl")},
		},
		ShareMethod: "cpu time", MeanPower: of(energy.Watts(66.69)),
		Baseline: &energy.Baseline{Power: 20, Spread: 0.5, LearnedAt: ago(time.Hour), Seconds: 120},
		Notes:    []string{"gpu0: energy counter 90 J, integrated power 120 J; the error bound covers both"},
	}
}

// recordOf is the journal's record of an attempt.
func recordOf(t *testing.T, o job.Outcome, state job.RecordState, why string) job.Record {
	t.Helper()
	body, err := o.Body()
	if err != nil {
		t.Fatal(err)
	}
	rec := job.Record{
		Lease: o.Lease, State: state, Result: body, Why: why,
		AcceptedAt: ago(time.Minute), StartedAt: o.Encode.Started, FinishedAt: of(ago(15 * time.Second)),
	}
	if state.Settled() {
		rec.SettledAt = of(ago(10 * time.Second))
	}
	return rec
}

func completed(attempt int) job.Outcome {
	return job.Outcome{
		Lease: leaseOf("job-a", attempt),
		Encode: job.Encode{
			Encoder: "libx264", Bitrate: "2000k", Width: 1280, Height: 720, Started: of(ago(30 * time.Second)), Exited: of(ago(18 * time.Second)),
			CPUTime: 21500 * time.Millisecond, Frames: 1800, Pixels: 1800 * 1280 * 720, Media: time.Minute, SizeBytes: 15_000_000,
		},
		Energy:  measured(),
		Quality: job.Quality{VMAF: of(94.31), PSNR: of(41.5)},
		At:      ago(15 * time.Second),
	}
}

func TestReportFromRunningAgent(t *testing.T) {
	odd := json.RawMessage(`{ "job_id":"job-a",  "status":"failed", "logs":"<&> ü" }` + "\n")
	records := []job.Record{
		{Lease: leaseOf("job-a", 1), State: job.RecordSent, Result: odd},
		recordOf(t, completed(2), job.RecordSent, ""),
		{Lease: leaseOf("job-a", 3), State: job.RecordRunning, AcceptedAt: noon},
	}
	socket := filepath.Join(shortDir(t), "agent.sock")
	serveControl(t, socket, control.Handlers{Find: func(id string) ([]job.Record, error) {
		if id != "job-a" {
			return nil, nil
		}
		return records, nil
	}, Recent: func() ([]job.Summary, error) {
		var all []job.Summary
		for _, r := range records {
			all = append(all, job.Summarize(r))
		}
		return all, nil
	}})
	written := func(write func(io.Writer, []job.Record, int) error, i int) string {
		var b strings.Builder
		if err := write(&b, records, i); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for name, test := range map[string]struct {
		args      []string
		want, err string
	}{
		"latest attempt":        {args: []string{"job-a"}, want: written(report.Text, 2)},
		"earlier attempt":       {args: []string{"job-a", "--attempt", "2"}, want: written(report.Text, 1)},
		"JSON with odd spacing": {args: []string{"job-a", "--attempt", "1", "--json"}, want: string(odd)},
		"JSON of a real result": {args: []string{"job-a", "--attempt", "2", "--json"}, want: string(records[1].Result)},
		"HTML":                  {args: []string{"job-a", "--attempt", "2", "--html"}, want: written(report.HTML, 1)},
		"no result so far":      {args: []string{"job-a", "--json"}, err: "attempt 3 of job job-a has no result (running"},
		"unknown attempt":       {args: []string{"job-a", "--attempt", "7"}, err: "which has: 1, 2, 3"},
		"by its beginning":      {args: []string{"jo", "--attempt", "2"}, want: written(report.Text, 1)},
		"unknown job":           {args: []string{"job-b"}, err: "no job job-b in the journal. Similar: job-a"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := operate(t, append([]string{"report", "--socket", socket}, test.args...)...)
			if out != test.want || isUsage(err) {
				t.Errorf("got:\n%s\nwant:\n%s", out, test.want)
			}
			if got := fmt.Sprint(err); (test.err == "") != (err == nil) || !strings.Contains(got, test.err) {
				t.Errorf("got error %s, want %q in it", got, test.err)
			}
			if strings.Contains(out, "s3cr3t") {
				t.Errorf("got:\n%s\nwant the stream key hidden", out)
			}
		})
	}
}

// newJournal creates a data directory whose journal has two attempts at a job. body is the
// result of the second one.
func newJournal(t *testing.T) (dir string, j *journal.Journal, body []byte) {
	t.Helper()
	dir = shortDir(t)
	j, err := journal.Open(journal.Settings{Path: journalPath(dir)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	for attempt := 1; attempt <= 2; attempt++ {
		o := completed(attempt)
		if body, err = o.Body(); err != nil {
			t.Fatal(err)
		}
		key := o.Lease.Key()
		if _, err := j.Accept(o.Lease); err != nil {
			t.Fatal(err)
		}
		if err := j.Finish(key, body, false); err != nil {
			t.Fatal(err)
		}
		if err := j.Settle(key, job.RecordSent, ""); err != nil {
			t.Fatal(err)
		}
	}
	return dir, j, body
}

func TestReportFromJournal(t *testing.T) {
	dir, j, body := newJournal(t)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FFMPEG_AGENT_DATA_DIR", dir)
	out, err := operate(t, "report", "job-a", "--json")
	if err != nil || out != string(body) {
		t.Errorf("--json: got %s, %v; want %s", out, err, body)
	}
	out, err = operate(t, "report", "job-a")
	if err != nil || !strings.Contains(out, "800.2 J ± 5.0 J, measured") || !strings.Contains(out, "other attempts") {
		t.Errorf("%v: %s", err, out)
	}
	out, err = operate(t, "report", "job-a", "--html")
	if err != nil || !strings.HasPrefix(out, "<!DOCTYPE html>") || !strings.HasSuffix(strings.TrimSpace(out), "</html>") || !strings.Contains(out, "800.2\u00a0J") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err = operate(t, "report", "job-b"); err == nil || isUsage(err) || !strings.Contains(err.Error(), "no job job-b") {
		t.Errorf("unknown job: got %v", err)
	}
	// The agent can open the journal afterwards.
	again, err := journal.Open(journal.Settings{Path: journalPath(dir)})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestReportFromSilentAgentNamesSocket(t *testing.T) {
	dir, _, _ := newJournal(t)
	t.Setenv("FFMPEG_AGENT_DATA_DIR", dir)
	_, err := operate(t, "report", "job-a")
	if err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), filepath.Join(dir, "agent.sock")) {
		t.Errorf("got %v", err)
	}
}

func TestReportWithoutJournalNamesPaths(t *testing.T) {
	dir := shortDir(t)
	t.Setenv("FFMPEG_AGENT_DATA_DIR", dir)
	_, err := operate(t, "report", "job-a")
	if err == nil || isUsage(err) || !strings.Contains(err.Error(), journalPath(dir)) || !strings.Contains(err.Error(), "--config") {
		t.Errorf("got %v", err)
	}
}
