// Package ffmpegtest provides FFmpeg, inputs and job parameters for tests of whole agents.
// FFmpeg is the real one, but its lists of encoders and filters are cached.
package ffmpegtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// realtimeBitrate marks jobs whose input FFmpeg reads in real time (-re), so that they take
// long without using much CPU.
const realtimeBitrate = "77k"

// shared is set once by Main.
var shared struct {
	dir             string
	ffmpeg, ffprobe string        // the real programs
	longVideo       func() string // ten minutes
}

// Main runs the tests of a package. It must be called by TestMain, and the other functions need
// it. FFmpeg lists only the given video encoders, or all if none are given; an agent tries
// each listed encoder at every start.
func Main(m *testing.M, encoders ...string) {
	if err := setUp(encoders); err != nil {
		os.RemoveAll(shared.dir)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		os.RemoveAll(shared.dir)
		os.Exit(status)
	}))
}

// FFmpeg returns the path of a wrapper of FFmpeg with cached lists of encoders and filters.
// Listing them takes longer than a small encode.
func FFmpeg() string { return filepath.Join(shared.dir, "ffmpeg") }

// FFprobe returns the path of a wrapper of ffprobe that skips -version.
func FFprobe() string { return filepath.Join(shared.dir, "ffprobe") }

// WithCard writes a wrapper of FFmpeg to a directory and returns its path: FFmpeg on a machine
// whose card encodes H.264, which libx264 does here. It lists h264_nvenc and libx264, and
// writes a line to calls for each run that uses h264_nvenc.
func WithCard(t *testing.T, dir string) (ffmpeg, calls string) {
	t.Helper()
	ffmpeg, calls = filepath.Join(dir, "ffmpeg-with-card"), filepath.Join(dir, "calls")
	script := strings.NewReplacer("FFMPEG", shared.ffmpeg, "CALLS", calls).Replace(`#!/bin/bash
case "$*" in *" -encoders") FFMPEG "$@" | grep -E '^ (-|A|V[^ ]* (h264_nvenc|libx264) )'; exit ;; esac
args=()
for a in "$@"; do
	case "$a" in
	h264_nvenc) echo h264_nvenc >>CALLS; a=libx264 ;;
	p[1-7]) a=ultrafast ;;
	esac
	args+=("$a")
done
exec FFMPEG "${args[@]}"
`)
	if err := os.WriteFile(ffmpeg, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return ffmpeg, calls
}

// WithPassedTrials writes a wrapper of FFmpeg to a directory and returns its path. It lists
// only the given video encoders, and each trial encode of an agent succeeds at once.
func WithPassedTrials(t *testing.T, dir string, encoders ...string) (ffmpeg string) {
	t.Helper()
	list, err := exec.Command(shared.ffmpeg, "-hide_banner", "-loglevel", "error", "-encoders").Output()
	if err != nil {
		t.Fatalf("listing FFmpeg's encoders: %v", err)
	}
	cached := filepath.Join(dir, "encoders")
	if err := os.WriteFile(cached, []byte(filterVideoEncoders(string(list), encoders)), 0o600); err != nil {
		t.Fatal(err)
	}
	ffmpeg = filepath.Join(dir, "ffmpeg-with-passed-trials")
	// Beside the wrapper, where its sandbox lets it read.
	filters := filepath.Join(dir, "filters")
	if err := os.Link(filepath.Join(shared.dir, "filters"), filters); err != nil {
		t.Fatal(err)
	}
	script := strings.NewReplacer("FFMPEG", shared.ffmpeg, "ENCODERS", cached, "FILTERS", filters).Replace(`#!/bin/sh
case "$*" in
*" -encoders") exec cat ENCODERS ;;
*" -filters") exec cat FILTERS ;;
*" -i color=black:size=320x240:rate=25 "*) exit 0 ;;
esac
exec FFMPEG "$@"
`)
	if err := os.WriteFile(ffmpeg, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return ffmpeg
}

// Helper is the environment variable with the path of the helper of sandboxes, for test binaries
// and for agents that are one.
const Helper = "FFMPEGTEST_HELPER"

// SandboxHelper returns the path of the helper of sandboxes that Helper names, or else builds it in
// a directory and sets Helper.
func SandboxHelper(dir string) (string, error) {
	if helper := os.Getenv(Helper); helper != "" {
		return helper, nil
	}
	helper := filepath.Join(dir, "helper")
	build := exec.Command("go", "build", "-o", helper, "ffmpeg-agent/internal/ffmpegtest/helper")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the helper of sandboxes: %w: %s", err, out)
	}
	return helper, os.Setenv(Helper, helper)
}

func setUp(encoders []string) (err error) {
	if shared.dir, err = os.MkdirTemp("", "ffmpegtest-"); err != nil {
		return err
	}
	if _, err := SandboxHelper(shared.dir); err != nil {
		return err
	}
	if shared.ffmpeg, err = exec.LookPath("ffmpeg"); err != nil {
		return err
	}
	if shared.ffprobe, err = exec.LookPath("ffprobe"); err != nil {
		return err
	}
	for _, list := range []string{"encoders", "filters"} {
		out, err := exec.Command(shared.ffmpeg, "-hide_banner", "-loglevel", "error", "-"+list).Output()
		if err != nil {
			return fmt.Errorf("listing FFmpeg's %s: %w", list, err)
		}
		text := string(out)
		if list == "encoders" && len(encoders) > 0 {
			text = filterVideoEncoders(text, encoders)
		}
		if err := os.WriteFile(filepath.Join(shared.dir, list), []byte(text), 0o600); err != nil {
			return err
		}
	}
	script := strings.NewReplacer("DIR", shared.dir, "FFMPEG", shared.ffmpeg, "FFPROBE", shared.ffprobe, "REALTIME", realtimeBitrate)
	for path, text := range map[string]string{
		FFmpeg(): `#!/bin/sh
case "$*" in
*" -encoders") exec cat DIR/encoders ;;
*" -filters") exec cat DIR/filters ;;
*" REALTIME "*) for a; do shift; [ "$a" != -i ] || set -- "$@" -re; set -- "$@" "$a"; done ;;
esac
exec FFMPEG "$@"
`,
		FFprobe(): `#!/bin/sh
case "$*" in *" -version") exit 0 ;; esac
exec FFPROBE "$@"
`,
	} {
		if err := os.WriteFile(path, []byte(script.Replace(text)), 0o700); err != nil {
			return err
		}
	}
	shared.longVideo = sync.OnceValue(func() string { return Video(shared.dir, 600) })
	return nil
}

// filterVideoEncoders removes all video encoders from a list, except for those in keep.
func filterVideoEncoders(list string, keep []string) string {
	var filtered strings.Builder
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		isVideo := strings.HasPrefix(line, " V") && len(fields) > 1 && fields[1] != "=" // not the legend "V..... = Video"
		if !isVideo || slices.Contains(keep, fields[1]) {
			filtered.WriteString(line)
		}
	}
	return filtered.String()
}

// Video creates a video of 64x64 pixels at 10 fps and returns its path.
func Video(dir string, seconds int) string {
	path := filepath.Join(dir, fmt.Sprintf("video-%d.mp4", seconds))
	source := fmt.Sprintf("testsrc2=size=64x64:rate=10:duration=%d", seconds)
	out, err := exec.Command(shared.ffmpeg, "-nostdin", "-v", "error", "-f", "lavfi", "-i", source, "-preset", "ultrafast", path).CombinedOutput()
	if err != nil {
		panic(fmt.Sprintf("creating a video: %v: %s", err, out))
	}
	return path
}

// Quick returns the parameters of a job that takes about a second at most.
func Quick() map[string]any {
	return map[string]any{"resolution": "160x120", "duration": 1, "preset": "ultrafast", "fps": 25}
}

// Long returns the parameters of a job that takes ten minutes, longer than any test.
func Long() map[string]any { return realtime(shared.longVideo()) }

// Lasting returns the parameters of a job that takes the given time.
func Lasting(t *testing.T, seconds int) map[string]any {
	t.Helper()
	return realtime(Video(t.TempDir(), seconds))
}

func realtime(input string) map[string]any {
	return map[string]any{"input": input, "resolution": "64x64", "preset": "ultrafast", "fps": 10, "bitrate": realtimeBitrate}
}
