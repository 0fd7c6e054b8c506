package journal

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func TestHugeParametersAreNotKept(t *testing.T) {
	for range 20 { // in any order
		checkHugeParameters(t)
	}
}

func checkHugeParameters(t *testing.T) {
	t.Helper()
	j := open(t, Settings{noSync: true})
	huge := strings.Repeat("x", 100_000)
	l := lease("huge", 1)
	l.Job.Parameters = protocol.Parameters{"unknown": huge, "codec": "h264", huge: true}
	l.Job.Scenario = huge
	record, err := j.Accept(l)
	ok(t, err)
	if got := fmt.Sprint(record); len(got) > 20_000 {
		t.Errorf("the record has %d bytes", len(got))
	}
	if got := record.Lease.Job.Parameters; got["codec"] != "h264" || got["unknown"] != "(100002 bytes left out)" {
		t.Errorf("parameters: %.300v", got)
	}
	if l.Job.Parameters["unknown"] != huge {
		t.Error("the lease that runs has lost its parameter")
	}
}

func TestSettledRecordsAreBoundedInBytes(t *testing.T) {
	t.Run("by their results", func(t *testing.T) {
		checkSettledBytes(t, []byte(`{"logs":"`+strings.Repeat("x", 100<<10)+`"}`), nil)
	})
	t.Run("by their samples", func(t *testing.T) {
		noise := rand.New(rand.NewPCG(1, 1)) // which cannot be compressed
		var samples job.Samples
		for range 5_700 {
			at := time.Unix(0, noise.Int64())
			samples.Phases = append(samples.Phases, job.PhaseSpan{From: at, To: at})
		}
		value, err := encodeSamples(samples)
		ok(t, err)
		if len(value) < 90<<10 || len(value) > 120<<10 {
			t.Fatalf("the samples have %d bytes, want about 100 KiB", len(value))
		}
		checkSettledBytes(t, []byte(`{}`), &samples)
	})
}

func checkSettledBytes(t *testing.T, result []byte, samples *job.Samples) {
	t.Helper()
	const keep = 1 << 20
	j := open(t, Settings{noSync: true, KeepBytes: keep, Reserve: 1 << 20})
	for i := range 60 {
		key := lease(fmt.Sprint("job-", i), 1)
		_, err := j.Accept(key)
		ok(t, err)
		if samples != nil {
			ok(t, j.SaveSamples(key.Key(), *samples))
		}
		ok(t, j.Finish(key.Key(), result, false))
		end := job.RecordSent
		if i%2 == 0 {
			end = job.RecordDeadLetter
		}
		ok(t, j.Settle(key.Key(), end, "test"))
	}
	check := func(when string) {
		t.Helper()
		stats := j.Stats()
		if stats.Sent < 5 || stats.Sent > 10 || stats.DeadLetters < 5 || stats.DeadLetters > 10 {
			t.Errorf("%s: %d sent records and %d dead letters of 100 KiB each are kept, want 10 at most", when, stats.Sent, stats.DeadLetters)
		}
	}
	check("at once")
	newest := lease("job-59", 1)
	if _, found, err := j.Record(newest.Key()); err != nil || !found {
		t.Errorf("the newest is not kept: %v", err)
	}
	j = reopen(t, j)
	check("after a restart")
	if info, err := os.Stat(j.settings.Path); err != nil || info.Size() > 8*keep {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
}
