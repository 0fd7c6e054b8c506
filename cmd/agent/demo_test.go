package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ffmpeg-agent/internal/ffmpegtest"
)

// The demo's page is a whole one; what keeps it from being written is said.
func TestDemoWritesThePageOfAJob(t *testing.T) {
	_, book, _ := kept(t)
	w := &worker{journal: book}
	path := filepath.Join(t.TempDir(), "page.html")
	if err := w.writeReport(path, "job-a"); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(page), "<!DOCTYPE html>") || !strings.Contains(string(page), "Attempt 1") {
		t.Errorf("%v: %.200s", err, page)
	}
	if err := w.writeReport(filepath.Join(path, "none"), "job-a"); err == nil || !strings.Contains(err.Error(), "writing the report") {
		t.Errorf("a folder that is none: %v", err)
	}
	if err := w.writeReport(path, "job-b"); err == nil || !strings.Contains(err.Error(), "never came") {
		t.Errorf("a job that was not here: %v", err)
	}
}

func TestUnreadDemoEndsAtASignal(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	_, out := fullPipe(t)
	p := newProcess(t, []string{"TMPDIR=" + tmp, "FFMPEG_AGENT_HARDWARE_FFMPEG=" + ffmpegtest.FFmpeg(), "FFMPEG_AGENT_HARDWARE_FFPROBE=" + ffmpegtest.FFprobe()}, "demo")
	p.Stdout, p.Stderr = out, out
	p.start(t)
	waitFor(t, "the demo's journal", func() bool { found, _ := filepath.Glob(filepath.Join(tmp, "*", "journal.db")); return len(found) == 1 })
	p.signal(t, syscall.SIGTERM)
	if got := p.exit(t); got != exitFailed {
		t.Errorf("exit status %d after SIGTERM, want %d", got, exitFailed)
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v), want nothing", left, err)
	}
}
