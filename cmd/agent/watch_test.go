package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/messages"
)

func watched(width, height int, s messages.Status) *watch {
	old := time.Local
	time.Local = time.UTC // of the clock in the footer
	defer func() { time.Local = old }()
	w := &watch{folded: map[string]bool{}}
	for _, watts := range []float64{60, 61, 75, 90, 83} {
		s.Power = of(energy.Watts(watts))
		w.take(statusMsg{status: s})
	}
	w.Update(tea.WindowSizeMsg{Width: width, Height: height})
	return w
}

func TestWatchFitsTheTerminal(t *testing.T) {
	old := time.Local
	time.Local = time.UTC
	defer func() { time.Local = old }()
	for name, size := range map[string][2]int{"watch-80x24": {80, 24}, "watch-200x50": {200, 50}} {
		w := watched(size[0], size[1], busyStatus())
		screen := ansi.Strip(w.screen())
		lines := strings.Split(screen, "\n")
		if len(lines) != size[1] {
			t.Errorf("%s: got %d lines, want %d", name, len(lines), size[1])
		}
		for _, line := range lines {
			if n := len([]rune(line)); n > size[0] {
				t.Errorf("%s: got a line of %d columns: %s", name, n, line)
			}
		}
		golden(t, name, screen+"\n")
	}
}

// At 80 columns nothing is cut: everything can be scrolled to.
func TestWatchCutsNothing(t *testing.T) {
	w := watched(80, 24, busyStatus())
	w.press("a")
	all := ansi.Strip(strings.Join(w.lines(), "\n"))
	for line := range strings.Lines(all) {
		if strings.Contains(line, "…") && !strings.Contains(line, "─") { // a failure in the tree, which stands below it as well
			t.Errorf("got %s, want nothing cut", line)
		}
	}
	for _, want := range []string{"(measured)", "RELOAD FAILED", "hung and replaced 2 times", "connection refused", "pid 4815"} {
		if !strings.Contains(all, want) {
			t.Errorf("got\n%s\nwant %q in it", all, want)
		}
	}
}

func TestWatchKeys(t *testing.T) {
	w := watched(80, 24, busyStatus())
	first := func() string { line, _, _ := strings.Cut(ansi.Strip(w.screen()), "\n"); return line }
	top := first()
	for _, step := range []struct {
		key  string
		want bool // the first line is the top one
	}{{"down", false}, {"up", true}, {"pgdown", false}, {"home", true}, {"end", false}, {"end", false}, {"pgup", false}, {"g", true}, {"up", true}} {
		w.press(step.key)
		if got := first() == top; got != step.want {
			t.Errorf("after %s: at the top: %t, want %t", step.key, got, step.want)
		}
	}
	has := func(text string) bool { return strings.Contains(strings.Join(w.lines(), "\n"), text) }
	for key, text := range map[string]string{"a": "├─", "j": "so far", "s": "nvml: unavailable"} {
		before := has(text)
		w.press(key)
		if has(text) == before {
			t.Errorf("%s folds and unfolds nothing: %q in the view is %t", key, text, before)
		}
		w.press(key)
		if has(text) != before {
			t.Errorf("%s twice changes the view", key)
		}
	}
	if w.press("q") == nil || w.press("x") != nil {
		t.Error("q does not quit, or another key does")
	}
}

// A real terminal: the view outlives the agent, and keys work.
func TestWatchInTerminal(t *testing.T) {
	dir := shortDir(t)
	socket, server := filepath.Join(dir, "agent.sock"), filepath.Join(dir, "tmux")
	stop := serveControl(t, socket, control.Handlers{Status: busyStatus})
	tmux := newTmux(t, server)
	for _, size := range [][2]string{{"80", "24"}, {"200", "50"}} {
		shell := "env NO_COLOR=1 " + asAgent + "=1 " + executable(t) + " status --watch --socket " + socket + "; echo ended; sleep 600"
		tmux("new-session", "-d", "-s", size[0], "-x", size[0], "-y", size[1], shell)
		screen := func() string { return tmux("capture-pane", "-p", "-t", size[0]) }
		await := func(text string) {
			t.Helper()
			waitFor(t, text+" on the terminal", func() bool { return strings.Contains(screen(), text) })
		}
		await("worker-7")
		await("fold: j jobs")
		if raw := tmux("capture-pane", "-p", "-e", "-t", size[0]); strings.Contains(raw, "\x1b[31m") || strings.Contains(raw, "\x1b[38;") {
			t.Error("got colors in spite of NO_COLOR")
		}
		if size[0] == "80" {
			stop()
			await("no answer from the agent")
			stop = serveControl(t, socket, control.Handlers{Status: busyStatus})
			waitFor(t, "the agent again", func() bool { return !strings.Contains(screen(), "no answer from the agent") })
			tmux("send-keys", "-t", size[0], "G")
			await("system.slice")
		} else {
			await("hides the tree")
		}
		tmux("send-keys", "-t", size[0], "q")
		await("ended")
	}
	tmux("kill-server")
}

// newTmux returns a function that runs commands of a terminal multiplexer of the test's own.
func newTmux(t *testing.T, server string) func(args ...string) string {
	return func(args ...string) string {
		t.Helper()
		out, err := exec.Command("tmux", append([]string{"-f", "/dev/null", "-S", server}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %v: %v: %s", args, err, out)
		}
		return string(out)
	}
}

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
