package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ffmpeg-agent/internal/control"
)

func TestDebugInjectsFaults(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	var mu sync.Mutex
	var got []string
	record := func(format string, args ...any) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintf(format, args...))
		return nil
	}
	serveControl(t, socket, control.Handlers{
		Crash: func(path string) error {
			if path == "agent/x" {
				return fmt.Errorf("no actor %q; there are: agent, agent/meter", path)
			}
			return record("crash %s", path)
		},
		Hang: func(path string, d time.Duration) error { return record("hang %s %s", path, d) },
	})
	for _, args := range [][]string{
		{"crash", "agent/meter"}, {"hang", "agent/jobs"}, {"hang", "agent/jobs", "--for", "1m"},
	} {
		out, err := operate(t, append(append([]string{"debug"}, args...), "--socket", socket)...)
		if err != nil || !strings.Contains(out, args[1]) {
			t.Errorf("%v: got %q, %v; want the actor in the output", args, out, err)
		}
	}
	want := "[crash agent/meter hang agent/jobs 10s hang agent/jobs 1m0s]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
	_, err := operate(t, "debug", "crash", "agent/x", "--socket", socket)
	if err == nil || isUsage(err) || !strings.Contains(err.Error(), "agent, agent/meter") {
		t.Errorf("unknown actor: got %v, want the known ones in it", err)
	}
}

func TestDebugNamesTheKeyThatEnablesIt(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	serveControl(t, socket, control.Handlers{})
	for _, what := range []string{"crash", "hang"} {
		_, err := operate(t, "debug", what, "agent/meter", "--socket", socket)
		if err == nil || isUsage(err) || !strings.Contains(err.Error(), "debug.fault_injection") {
			t.Errorf("%s: got %v, want debug.fault_injection in it", what, err)
		}
	}
}
