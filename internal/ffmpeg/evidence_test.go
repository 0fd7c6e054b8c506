package ffmpeg

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
