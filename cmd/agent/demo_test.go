package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/internal/ffmpegtest"
)

func TestDemoWritesReport(t *testing.T) {
	_, journal, _ := newJournal(t)
	w := &worker{journal: journal}
	path := filepath.Join(t.TempDir(), "page.html")
	if err := w.writeReport(path, "job-a"); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(page), "<!DOCTYPE html>") || !strings.Contains(string(page), "Attempt 1") {
		t.Errorf("got %.200s (%v), want a page for attempt 1", page, err)
	}
	if err := w.writeReport(filepath.Join(path, "none"), "job-a"); err == nil || !strings.Contains(err.Error(), "writing the report") {
		t.Errorf("file in a directory that does not exist: got %v", err)
	}
	if err := w.writeReport(path, "job-b"); err == nil || !strings.Contains(err.Error(), "not in the journal") {
		t.Errorf("unknown job: got %v", err)
	}
}

func TestUnreadDemoEndsAtSignal(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	_, out := fullPipe(t)
	p := newProcess(t, []string{"TMPDIR=" + tmp, "FFMPEG_AGENT_HARDWARE_FFMPEG=" + ffmpegtest.FFmpeg(), "FFMPEG_AGENT_HARDWARE_FFPROBE=" + ffmpegtest.FFprobe()}, "demo")
	p.Stdout, p.Stderr = out, out
	p.start(t)
	waitFor(t, "journal of the demo", func() bool { found, _ := filepath.Glob(filepath.Join(tmp, "*", "journal.db")); return len(found) == 1 })
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, exitFailed)
	if left, err := filepath.Glob(filepath.Join(tmp, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v), want nothing", left, err)
	}
}

func TestDemoWithoutFFmpegSuggestsInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	status, stdout, stderr := command(t, "demo")
	if status != exitFailed || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "apt-get install ffmpeg") {
		t.Errorf("exit status %d: %s%s", status, stdout, stderr)
	}
}

func TestDemoSaysWhyThereIsNoBaseline(t *testing.T) {
	type look struct {
		second, readings int
		trialsDone       bool
		want             string
	}
	for name, looks := range map[string][]look{
		"slow trials":  {{0, 0, false, ""}, {29, 20, false, ""}, {30, 21, false, "the trial encodes are not done after 30s"}},
		"busy machine": {{20, 15, true, ""}, {31, 27, true, ""}, {32, 28, true, "the machine is not idle"}},
		"slow machine": {{20, 2, true, ""}, {79, 13, true, ""}, {79, 14, true, "the machine is not idle"}},
		"seldom read":  {{20, 2, true, ""}, {79, 3, true, ""}, {80, 4, true, "the machine is not idle"}},
		"often read":   {{20, 15, true, ""}, {22, 99, true, ""}},
		"no readings":  {{5, 0, true, ""}, {16, 0, true, ""}, {17, 0, true, "the power sensors give no readings"}},
	} {
		wait := baselineWait{began: noon}
		for _, l := range looks {
			if got := wait.over(noon.Add(time.Duration(l.second)*time.Second), l.trialsDone, l.readings); got != l.want {
				t.Errorf("%s, after %d s: got %q, want %q", name, l.second, got, l.want)
			}
		}
	}
}

// demoMachine is the environment of a demo on a machine with sensors, and its input.
func demoMachine(t *testing.T, tmp string) (env []string, input string) {
	t.Helper()
	tree, _ := runningTree(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(50), Range: 262e9})
	// An idle CPU, so that the demo gets a baseline beside other tests.
	if err := tree.SetCPU(fakehw.CPUConfig{Model: "Test", Threads: 8, Busy: fakehw.Constant(0.02), MemoryTotal: 8 << 30, MemoryAvailable: 4 << 30}); err != nil {
		t.Fatal(err)
	}
	ffmpeg := ffmpegtest.WithPassedTrials(t, t.TempDir(), "libx264", "libx265", "libvpx-vp9")
	return []string{"TMPDIR=" + tmp, "FFMPEG_AGENT_HARDWARE_FFMPEG=" + ffmpeg, "FFMPEG_AGENT_HARDWARE_FFPROBE=" + ffmpegtest.FFprobe(),
		"FFMPEG_AGENT_HARDWARE_SYSFS_PATH=" + tree.Sys(), "FFMPEG_AGENT_HARDWARE_PROCFS_PATH=" + tree.Proc()}, ffmpegtest.Video(t.TempDir(), 2)
}

// No line of the demo is wider than the terminal, and its bars are drawn once.
func TestDemoInTerminal(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	tmux := newTmux(t, filepath.Join(dir, "tmux"))
	for _, size := range [][2]string{{"80", "24"}, {"200", "50"}} {
		env, input := demoMachine(t, dir)
		tmux("new-session", "-d", "-s", size[0], "-x", size[0], "-y", size[1],
			"env "+strings.Join(env, " ")+" "+asAgent+"=1 "+executable(t)+" demo --input "+input+"; echo ended; sleep 600")
		waitFor(t, "the end of the demo", func() bool { return strings.Contains(tmux("capture-pane", "-p", "-t", size[0]), "ended") })
		text := tmux("capture-pane", "-p", "-S", "-200", "-t", size[0])
		if joined := tmux("capture-pane", "-p", "-J", "-S", "-200", "-t", size[0]); strings.Count(joined, "\n") != strings.Count(text, "\n") {
			t.Errorf("at %s columns lines are wrapped:\n%s", size[0], text)
		}
		if n := strings.Count(text, "[====="); n != 3 || !strings.Contains(text, "measured with: rapl: package-0") {
			t.Errorf("at %s columns: got %d bars:\n%s\nwant 3, and the source of the joules", size[0], n, text)
		}
	}
	tmux("kill-server")
}

func TestDemo(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	env, input := demoMachine(t, tmp)
	p := startAgent(t, env, "demo", "--input", input)
	for n := 1; n <= 3; n++ {
		waitFor(t, fmt.Sprintf("completed job %d", n), func() bool { return strings.Count(p.log(), "completed") >= n })
	}
	p.wantExit(t, exitOK)
	out := p.log()
	for _, want := range []string{"µJ/pixel", "measured with: rapl: package-0"} {
		if !strings.Contains(out, want) {
			t.Errorf("got:\n%s\nwant %q in it", out, want)
		}
	}
	var idle float64
	if _, err := fmt.Sscanf(out[strings.Index(out, "measuring idle power"):], "measuring idle power ... %f W", &idle); err != nil || idle < 40 || idle > 60 {
		t.Errorf("got:\n%s\nwant an idle power of about 50 W", out)
	}
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v), want nothing", left, err)
	}
}
