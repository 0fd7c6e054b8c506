package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/internal/chaos"
)

func execute(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestWrongFlagsAreNamed(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--minutes", "0"}, "--minutes 0"},
		{[]string{"--agents", "17"}, "--agents 17"},
		{[]string{"--faults", "-1"}, "--faults -1"},
		{[]string{"--only", "gnus"}, `"gnus"; there are: net: `},
		{[]string{"--gnus"}, "--gnus"},
		{[]string{"gnus"}, `"gnus"`},
	} {
		if code, _, stderr := execute(c.args...); code != 2 || !strings.Contains(stderr, c.says) {
			t.Errorf("%q: exit status %d, %s", c.args, code, stderr)
		}
	}
}

func TestKindsAreListed(t *testing.T) {
	code, stdout, _ := execute("--list")
	if code != 0 || strings.Count(stdout, "\n") < 40 || !strings.Contains(stdout, "\nffmpeg: SIGKILL\n") {
		t.Errorf("exit status %d: %s", code, stdout)
	}
}

func TestUnreadableScheduleIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gnus.json")
	if code, _, stderr := execute("--replay", path); code != 1 || !strings.Contains(stderr, path) {
		t.Errorf("exit status %d, %s", code, stderr)
	}
}

// TestProgramThatCannotRunGivesNoVerdict: the run fails, and says where to look.
func TestProgramThatCannotRunGivesNoVerdict(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	nobody := filepath.Join(t.TempDir(), "nobody")
	code, stdout, stderr := execute("--agent", nobody, "--devmaster", nobody, "--minutes", "0.01", "--dir", dir)
	if code != 1 || !strings.Contains(stderr, dir) || strings.Contains(stdout, "invariant") {
		t.Errorf("exit status %d, %s%s", code, stdout, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "schedule.json")); err != nil {
		t.Error(err)
	}
}

// TestFolderOfARun: one of our own goes where all held, one that was named stays, and
// how to play it again is said either way.
func TestFolderOfARun(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     options
		ours  bool
		says  string
		stays bool
		fails string
	}{
		{"ours", options{}, true, "seed 7; play it again with --seed 7 --minutes 2 --agents 2 --only 'net: slow'\n", false, ""},
		{"ours, to be kept", options{keep: true}, true, "--replay schedule.json\n", true, ""},
		{"named", options{}, false, "--replay schedule.json\n", true, ""},
		{"ours, with a violation", options{minFaults: 2}, true, "--replay schedule.json\n", true, "1 faults of 1 kinds"},
		{"ours, with nothing to check", options{minKinds: 1}, true, "--replay schedule.json\n", true, "never checked, because no case came up: every accepted job"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.dir, c.o.seed, c.o.minutes, c.o.agents, c.o.only = t.TempDir(), 7, 2, 2, []string{"net: slow"}
			h := &chaos.History{HeartbeatInterval: time.Second, Faults: []chaos.InjectedFault{{PlannedFault: chaos.PlannedFault{Kind: "net: slow"}, Effect: "next"}}}
			var out bytes.Buffer
			err := c.o.conclude(&out, h, 7, "schedule.json", c.ours)
			if (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("got %v", err)
			}
			if !strings.HasSuffix(out.String(), c.says) || !strings.Contains(out.String(), "\nseed 7; ") {
				t.Errorf("printed %s", out.String())
			}
			if _, err := os.Stat(c.o.dir); (err == nil) != c.stays {
				t.Errorf("the folder: %v", err)
			}
		})
	}
}
