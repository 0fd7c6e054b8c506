package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// unhurried is the bitrate of jobs that FFmpeg reads no faster than the film plays, so that
// they outlast a test without taking the processors from those that run beside it.
const unhurried = "77k"

// shared is what the agents of all tests use and none changes.
var shared struct {
	dir             string
	ffmpeg, ffprobe string        // see shareFFmpeg
	film            func() string // of ten minutes
}

// shareFFmpeg asks FFmpeg once for all agents what it has, since each answer costs more than
// a small encode. The FFmpeg that agents use repeats that answer and hands all else on.
// It names no video encoder but one, for each that is named is tried at every start of an
// agent; TestDemo has an agent that tries all.
func shareFFmpeg() (err error) {
	if shared.dir, err = os.MkdirTemp("", "agent-tests-"); err != nil {
		return err
	}
	var real [2]string
	for i, name := range []string{"ffmpeg", "ffprobe"} {
		if real[i], err = exec.LookPath(name); err != nil {
			return err
		}
	}
	for _, list := range []string{"encoders", "filters"} {
		out, err := exec.Command(real[0], "-hide_banner", "-loglevel", "error", "-"+list).Output()
		if err != nil {
			return fmt.Errorf("asking FFmpeg for its %s: %w", list, err)
		}
		var said strings.Builder
		for line := range strings.Lines(string(out)) {
			if fields := strings.Fields(line); strings.HasPrefix(line, " V") && len(fields) > 1 && fields[1] != "=" && fields[1] != "libx264" && list == "encoders" {
				continue
			}
			said.WriteString(line)
		}
		if err := os.WriteFile(filepath.Join(shared.dir, list), []byte(said.String()), 0o600); err != nil {
			return err
		}
	}
	script := strings.NewReplacer("DIR", shared.dir, "FFMPEG", real[0], "FFPROBE", real[1], "UNHURRIED", unhurried)
	shared.ffmpeg, shared.ffprobe = filepath.Join(shared.dir, "ffmpeg"), filepath.Join(shared.dir, "ffprobe")
	for path, text := range map[string]string{
		shared.ffmpeg: `#!/bin/sh
case "$*" in
*" -encoders") exec cat DIR/encoders ;;
*" -filters") exec cat DIR/filters ;;
*" UNHURRIED "*) for a; do shift; [ "$a" != -i ] || set -- "$@" -re; set -- "$@" "$a"; done ;;
esac
exec FFMPEG "$@"
`,
		shared.ffprobe: `#!/bin/sh
case "$*" in *" -version") exit 0 ;; esac
exec FFPROBE "$@"
`,
	} {
		if err := os.WriteFile(path, []byte(script.Replace(text)), 0o700); err != nil {
			return err
		}
	}
	shared.film = sync.OnceValue(func() string { return film(shared.dir, 600) })
	return nil
}

// film makes one of so many seconds, 64x64 at 10 a second.
func film(dir string, seconds int) string {
	path := filepath.Join(dir, fmt.Sprintf("film-%d.mp4", seconds))
	source := fmt.Sprintf("testsrc2=size=64x64:rate=10:duration=%d", seconds)
	out, err := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", source, "-preset", "ultrafast", path).CombinedOutput()
	if err != nil {
		panic(fmt.Sprintf("making a film: %v: %s", err, out))
	}
	return path
}

// long is a job that outlasts any test.
func long(*testing.T) map[string]any {
	return map[string]any{"input": shared.film(), "resolution": "64x64", "preset": "ultrafast", "fps": 10, "bitrate": unhurried}
}
