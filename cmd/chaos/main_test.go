package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
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

func TestAScheduleThatCannotBeReadIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gnus.json")
	if code, _, stderr := execute("--replay", path); code != 1 || !strings.Contains(stderr, path) {
		t.Errorf("exit status %d, %s", code, stderr)
	}
}

// TestAProgramThatDoesNotRunIsNoVerdict: the run fails, and says where to look.
func TestAProgramThatDoesNotRunIsNoVerdict(t *testing.T) {
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
