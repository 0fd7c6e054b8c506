package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
	p := startAgent(t, []string{"TMPDIR=" + tmp}, "demo")
	p.wantExit(t, exitOK)
	if out := p.log(); strings.Count(out, "completed") < 3 || !strings.Contains(out, "µJ/pixel") {
		t.Errorf("got:\n%s\nwant three completed jobs and their µJ/pixel", out)
	}
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v), want nothing", left, err)
	}
}
