package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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

func TestDemo(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	tree, _ := runningTree(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(50), Range: 262e9})
	// An idle CPU, so that the demo gets a baseline beside other tests.
	if err := tree.SetCPU(fakehw.CPUConfig{Model: "Test", Threads: 8, Busy: fakehw.Constant(0.02), MemoryTotal: 8 << 30, MemoryAvailable: 4 << 30}); err != nil {
		t.Fatal(err)
	}
	p := startAgent(t, []string{"TMPDIR=" + tmp, "FFMPEG_AGENT_HARDWARE_SYSFS_PATH=" + tree.Sys(), "FFMPEG_AGENT_HARDWARE_PROCFS_PATH=" + tree.Proc()}, "demo")
	p.wantExit(t, exitOK)
	out := p.log()
	for _, want := range []string{"measuring idle power ... 50.", "µJ/pixel", "measured with: rapl: package-0"} {
		if !strings.Contains(out, want) {
			t.Errorf("got:\n%s\nwant %q in it", out, want)
		}
	}
	if got := strings.Count(out, "completed"); got < 3 {
		t.Errorf("got:\n%s\nwant three completed jobs", out)
	}
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v), want nothing", left, err)
	}
}
