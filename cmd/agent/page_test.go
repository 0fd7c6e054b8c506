//go:build page

package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

var pageScreens = flag.String("page.screens", os.TempDir(), "write screenshots to this `directory`")

// The page in a browser: a finished job, a running one, and the actors.
func TestPageInBrowser(t *testing.T) {
	bed := newTestbed(t)
	port := freePort(t)
	startAgent(t, bed.environment(), append(bed.flags(), "--metrics-port", fmt.Sprint(port))...)
	done := bed.submit(ffmpegtest.Quick())
	bed.awaitResult(done.ID, protocol.StatusCompleted)
	running := bed.submit(ffmpegtest.Long())
	bed.awaitFFmpeg()
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	chromium := func(args ...string) string {
		t.Helper()
		args = append([]string{"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(), "--virtual-time-budget=9000"}, args...)
		cmd := exec.Command("chromium", args...)
		var log strings.Builder
		cmd.Stderr = &log
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("chromium: %v: %s", err, log.String())
		}
		return string(out)
	}
	dom := chromium("--dump-dom", url)
	for what, want := range map[string]string{
		"the running job": running.ID, "the finished job with its report": `href="/report?job=` + done.ID + `&amp;attempt=1"`,
		"the actors": `title="agent/heartbeat"`, "the power curve up to now": ` 600.0,`, "the outcome": "completed", "no failed check": `id="problems" hidden`,
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("got a page without %s (%q):\n%s", what, want, dom)
		}
	}
	if report := chromium("--dump-dom", url+"report?job="+done.ID+"&attempt=1"); !strings.Contains(report, "Energy breakdown") {
		t.Errorf("got the report:\n%.2000s", report)
	}
	if err := os.MkdirAll(*pageScreens, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"desktop": {"--window-size=1200,1500"}, "phone": {"--window-size=390,1800"}, "dark": {"--window-size=1200,1500", "--blink-settings=preferredColorScheme=0"},
	} {
		path := filepath.Join(*pageScreens, name+".png")
		chromium(append(args, "--screenshot="+path, url)...)
		if info, err := os.Stat(path); err != nil || info.Size() < 10_000 {
			t.Errorf("screenshot %s: %v", path, err)
		}
	}
	bed.cancel(running.ID)
}
