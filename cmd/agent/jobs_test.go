package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// pastAttempts are attempts at jobs, newest first.
func pastAttempts(t *testing.T) []job.Summary {
	t.Helper()
	attempt := func(id string, number int64, n int, change func(*job.Outcome)) job.Summary {
		o := completed(n)
		o.Lease.Job.ID, o.Lease.Job.SequenceNumber = id, number
		o.Encode.Input, o.Encode.Output = "/media/in.mov", "/media/out.mp4"
		change(&o)
		rec := recordOf(t, o, job.RecordSent, "")
		if o.At.Equal(noon) {
			rec.State, rec.Why = job.RecordDeadLetter, "400 Bad Request: no such field"
		}
		return job.Summarize(rec)
	}
	failing := func(o *job.Outcome) {
		o.Failure = &job.Failure{Reason: protocol.ReasonInputError, Message: "input /media/in.mov: moov atom not found\x1b[2J"}
		o.Energy = nil
	}
	running := job.Summarize(job.Record{Lease: leaseOf("0b1e77aa", 1), State: job.RecordRunning, AcceptedAt: noon})
	return []job.Summary{
		running,
		attempt("7f3a9c52-1d0e-4b6f", 1042, 2, func(o *job.Outcome) { o.Encode.Output = "" }),
		attempt("7f3a9c52-1d0e-4b6f", 1042, 1, failing),
		attempt("7f3b0000-2222-4b6f", 1041, 1, func(o *job.Outcome) { o.Energy.Total.Source = energy.Estimated }),
		attempt("c0ffee00-3333-4b6f", 7, 1, func(o *job.Outcome) { o.At = noon }),
	}
}

func TestJobsText(t *testing.T) {
	t.Setenv("TZ", "UTC")
	old := time.Local
	time.Local = time.UTC
	defer func() { time.Local = old }()
	var b strings.Builder
	printJobs(&b, pastAttempts(t), false)
	golden(t, "jobs", b.String())
}

func TestJobsFromAgentAndJournal(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	past := pastAttempts(t)
	serveControl(t, socket, control.Handlers{Recent: func() ([]job.Summary, error) { return past, nil }})
	out, err := operate(t, "jobs", "--socket", socket, "--json", "--failed")
	var got []map[string]any
	if err != nil || json.Unmarshal([]byte(out), &got) != nil || len(got) != 2 {
		t.Fatalf("%v: %s\nwant the failed attempt and the rejected result", err, out)
	}
	for _, field := range []string{"job_id", "sequence_number", "attempt", "status", "scenario", "finished_at", "joules", "source"} {
		if _, there := got[0][field]; !there {
			t.Errorf("got %v, want the field %s, which scripts rely on", got[0], field)
		}
	}
	if out, err = operate(t, "jobs", "--socket", socket, "-n", "1"); err != nil || strings.Count(out, "\n") != 4 || !strings.Contains(out, "1 of 5 attempts") {
		t.Errorf("-n 1: %v:\n%s", err, out)
	}
	if _, err = operate(t, "jobs", "-n", "0"); !isUsage(err) {
		t.Errorf("-n 0: got %v, want a usage error", err)
	}

	dir, j, _ := newJournal(t)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FFMPEG_AGENT_DATA_DIR", dir)
	out, err = operate(t, "jobs", "--json")
	if got = nil; err != nil || json.Unmarshal([]byte(out), &got) != nil || len(got) != 2 || got[0]["attempt"] != 2.0 || got[0]["joules"] != 800.25 {
		t.Errorf("from the journal: %v: %s\nwant both attempts, the newest first", err, out)
	}
}

func TestJobIsFoundByWhatPeopleType(t *testing.T) {
	past := pastAttempts(t)
	for given, want := range map[string]string{
		"7f3a9c52-1d0e-4b6f": "7f3a9c52-1d0e-4b6f",
		"7f3a":               "7f3a9c52-1d0e-4b6f",
		"1041":               "7f3b0000-2222-4b6f",
		"7":                  "c0ffee00-3333-4b6f", // the number, though ids begin with it
		"c0":                 "c0ffee00-3333-4b6f",
	} {
		if got, err := resolveJob(given, past); got != want || err != nil {
			t.Errorf("%s: got %s, %v; want %s", given, got, err, want)
		}
	}
	for given, want := range map[string]string{
		"7f3":      "the beginning of 2 jobs: 7f3a9c52-1d0e-4b6f (number 1042), 7f3b0000",
		"7f4a9c52": "Similar: 7f3a9c52-1d0e-4b6f (number 1042)",
		"3333":     "Similar: c0ffee00-3333-4b6f",
		"zzzzzz":   "The latest: 0b1e77aa, 7f3a9c52",
		"9999":     "The latest",
		"1040":     "Similar: 7f3a9c52-1d0e-4b6f (number 1042), 7f3b0000-2222-4b6f (number 1041)",
		"104":      "Similar: 7f3a9c52-1d0e-4b6f (number 1042), 7f3b0000-2222-4b6f (number 1041)",
	} {
		if got, err := resolveJob(given, past); got != "" || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %s, %v; want %q", given, got, err, want)
		}
	}
	if _, err := resolveJob("x", nil); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("empty journal: got %v", err)
	}
}
