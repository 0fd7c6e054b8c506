//go:build guest

package guest

import (
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/internal/ffmpegtest"
)

func TestCgroupLimitsAreEnforced(t *testing.T) {
	img := newImage(t, "limits.sh")
	img.addProgram("ffmpeg")
	img.addProgram("ffprobe")
	img.addTests("/proc.test", "ffmpeg-agent/hardware/proc")
	img.addTests("/ffmpeg.test", "ffmpeg-agent/internal/ffmpeg")
	helper, err := ffmpegtest.SandboxHelper(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	img.add("/sandbox-helper", helper)
	accel := accelerator(t)
	begun := time.Now()
	m := boot(t, accel, img.done(), newDisk(t), "3G")
	passed, ended := 0, ""
	for ended == "" {
		line, ok := m.next(outputTimeout)
		if !ok {
			t.Fatal("the guest exited or printed nothing for too long")
		}
		t.Log(line)
		switch {
		case strings.Contains(line, "--- PASS: "):
			passed++
		case strings.Contains(line, "--- SKIP: "), strings.Contains(line, "--- FAIL: "):
			t.Error(line)
		case strings.HasPrefix(line, "guest: ended with "):
			ended = strings.TrimPrefix(line, "guest: ended with ")
		}
	}
	t.Logf("%d tests in %s on %s", passed, time.Since(begun).Round(time.Second), accel)
	if ended != "0" || passed < 18 {
		t.Errorf("got exit status %s and %d passed tests, want 0 and at least 18", ended, passed)
	}
}
