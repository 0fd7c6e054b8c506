package ffmpeg

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFindings reads logs that FFmpeg 5.1 and 7.1 wrote with -loglevel level+verbose.
func TestFindings(t *testing.T) {
	logs, err := filepath.Glob("testdata/logs/*.log")
	if err != nil || len(logs) == 0 {
		t.Fatalf("got logs %v, %v", logs, err)
	}
	var got bytes.Buffer
	for _, path := range logs {
		log, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var kept logBuffer
		l := newLogReader(&kept, "file:/in", media{probed: true, codecs: []string{"h264", "aac"}})
		l.read(bytes.NewReader(log))
		findings, err := json.Marshal(l.found)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%s\n\t%s\n", filepath.Base(path), findings)
		if strings.Contains(kept.String(), "[verbose]") {
			t.Errorf("%s: verbose lines are kept", path)
		}
	}
	golden(t, "findings.golden", got.Bytes())
}

func TestRepeatedLinesAreCounted(t *testing.T) {
	var kept logBuffer
	l := newLogReader(&kept, "file:/in", media{})
	l.read(strings.NewReader("[graph 0 input from stream 0:0 @ 0x1] [verbose] w:320\n" +
		"[error] Error while decoding stream #0:0: Invalid data found when processing input\n    Last message repeated 41 times\n"))
	if l.found.DecodeErrors != 42 {
		t.Errorf("got %d decode errors, want 42", l.found.DecodeErrors)
	}
}

func TestReadErrorNamesInput(t *testing.T) {
	for log, want := range map[string]string{
		"[graph 0 input from stream 0:0 @ 0x1] [verbose] w:320\n[error] file:/in: Input/output error\n": "Input/output error",
		"[error] file:/in: Invalid data found when processing input\n":                                  "", // it was not opened
		"[in#0/mpegts @ 0x5] [error] Error during demuxing: Input/output error\n":                       "Input/output error",
		"[http @ 0x5] [error] Stream ends prematurely at 10, should be 20\n":                            "the transfer ended early",
	} {
		l := newLogReader(new(logBuffer), "file:/in", media{})
		l.read(strings.NewReader(log))
		if l.found.ReadError != want {
			t.Errorf("%q: got %q, want %q", log, l.found.ReadError, want)
		}
	}
}

func FuzzLog(f *testing.F) {
	f.Add([]byte("[error] x\n    Last message repeated 99999999999 times\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		l := newLogReader(new(logBuffer), "file:/in", media{})
		l.read(bytes.NewReader(log))
	})
}

// TestCutLineIsNoCause: a secret that was cut in two is not recognized.
func TestCutLineIsNoCause(t *testing.T) {
	l := newLogReader(new(logBuffer), "file:/in", media{})
	l.read(strings.NewReader("[error] " + strings.Repeat("long ", maxLogLine) + "\n[error] short\n"))
	if l.found.FirstError != "short" {
		t.Errorf("got %.40q, want the line that is whole", l.found.FirstError)
	}
}

// TestScanPackets: time is lost only where bytes were skipped.
func TestScanPackets(t *testing.T) {
	const second = 25 // packets
	var log strings.Builder
	add := func(stream int, at, pos int) {
		fmt.Fprintf(&log, "codec_type=video|stream_index=%d|pts_time=%.2f|dts_time=N/A|duration_time=0.04|size=900|pos=%d\n", stream, float64(at)/second, pos)
	}
	scan := func(packets func()) scanned {
		log.Reset()
		packets()
		return scanPackets(strings.NewReader(log.String()), 0)
	}
	run := func(stream, from, n, pos int) {
		for i := range n {
			add(stream, from+i, pos+i*1000)
		}
	}
	for name, c := range map[string]struct {
		packets   func()
		lost      float64 // s
		elsewhere bool
	}{
		"whole":                      {func() { run(0, 0, 100, 0) }, 0, false},
		"pause":                      {func() { run(0, 0, 50, 0); run(0, 100, 50, 50_000) }, 0, false},
		"bytes skipped":              {func() { run(0, 0, 50, 0); run(0, 100, 50, 100_000) }, 2, false},
		"bytes skipped, no time":     {func() { run(0, 0, 50, 0); run(0, 50, 50, 100_000) }, 0, false},
		"another video afterwards":   {func() { run(0, 0, 50, 0); run(1, 50, 50, 50_000) }, 0, true},
		"another clock afterwards":   {func() { run(0, 100, 50, 0); run(1, 0, 50, 50_000) }, 0, true},
		"last packet comes late":     {func() { run(0, 0, 49, 0); run(1, 50, 50, 50_000); add(0, 49, 49_000) }, 0, true},
		"another program":            {func() { run(0, 0, 50, 0); run(1, 0, 50, 0); run(0, 50, 50, 50_000); run(1, 50, 50, 50_000) }, 0, false},
		"second video from the half": {func() { run(0, 0, 50, 0); run(1, 50, 50, 50_000); run(0, 50, 50, 50_000) }, 0, false},
	} {
		if got := scan(c.packets); math.Abs(got.lost.Seconds()-c.lost) > 0.001 || got.elsewhere != c.elsewhere {
			t.Errorf("%s: got %s lost, elsewhere: %t; want %g s, %t", name, got.lost, got.elsewhere, c.lost, c.elsewhere)
		}
	}
}

// TestReadPackets: empty packets, with which AVI fills gaps, are no frames.
func TestReadPackets(t *testing.T) {
	got := readPackets(strings.NewReader("pts_time=0.08|dts_time=0.04|duration_time=0.04|size=10\npts_time=0.04|dts_time=0.08|duration_time=0.04|size=10\n" +
		"pts_time=N/A|dts_time=0.12|duration_time=0.04|size=0\npts_time=N/A|dts_time=0.16|duration_time=0.04|size=10\n"))
	if want := (packets{count: 3, length: 160 * time.Millisecond}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
