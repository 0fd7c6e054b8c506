// Package ffmpegtest gives tests of whole agents an FFmpeg that is the real one, asked only
// once what it has, and jobs for it.
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

// unhurried is the bitrate of jobs that FFmpeg reads no faster than the film plays, so that
// they outlast a test without taking the processors from those that run beside it.
const unhurried = "77k"

// shared is what all tests of a program use and none changes.
var shared struct {
	dir             string
	ffmpeg, ffprobe string        // the machine's own
	film            func() string // of ten minutes
}

// Main runs a program's tests, for its TestMain, which all that follows needs. Their FFmpeg names all its video encoders, or
// only those given: each that is named is tried at every start of an agent.
func Main(m *testing.M, encoders ...string) {
	if err := share(encoders); err != nil {
		os.RemoveAll(shared.dir)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		os.RemoveAll(shared.dir)
		os.Exit(status)
	}))
}

// FFmpeg is the path of a program that repeats what FFmpeg said of its encoders and filters,
// and hands all else on: each such answer costs more than a small encode.
func FFmpeg() string { return filepath.Join(shared.dir, "ffmpeg") }

// FFprobe is the path of a program that hands all on to ffprobe but the question for its version.
func FFprobe() string { return filepath.Join(shared.dir, "ffprobe") }

func share(encoders []string) (err error) {
	if shared.dir, err = os.MkdirTemp("", "ffmpegtest-"); err != nil {
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
			return fmt.Errorf("asking FFmpeg for its %s: %w", list, err)
		}
		said := string(out)
		if list == "encoders" && len(encoders) > 0 {
			said = withoutVideo(said, encoders)
		}
		if err := os.WriteFile(filepath.Join(shared.dir, list), []byte(said), 0o600); err != nil {
			return err
		}
	}
	script := strings.NewReplacer("DIR", shared.dir, "FFMPEG", shared.ffmpeg, "FFPROBE", shared.ffprobe, "UNHURRIED", unhurried)
	for path, text := range map[string]string{
		FFmpeg(): `#!/bin/sh
case "$*" in
*" -encoders") exec cat DIR/encoders ;;
*" -filters") exec cat DIR/filters ;;
*" UNHURRIED "*) for a; do shift; [ "$a" != -i ] || set -- "$@" -re; set -- "$@" "$a"; done ;;
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
	shared.film = sync.OnceValue(func() string { return Film(shared.dir, 600) })
	return nil
}

// withoutVideo leaves the lines of video encoders out of a list but of those that are kept.
func withoutVideo(list string, keep []string) string {
	var said strings.Builder
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		named := strings.HasPrefix(line, " V") && len(fields) > 1 && fields[1] != "=" // "V..... = Video" explains the marks
		if !named || slices.Contains(keep, fields[1]) {
			said.WriteString(line)
		}
	}
	return said.String()
}

// Film makes one of so many seconds in a folder, 64x64 at 10 a second, and returns its path.
func Film(dir string, seconds int) string {
	path := filepath.Join(dir, fmt.Sprintf("film-%d.mp4", seconds))
	source := fmt.Sprintf("testsrc2=size=64x64:rate=10:duration=%d", seconds)
	out, err := exec.Command(shared.ffmpeg, "-nostdin", "-v", "error", "-f", "lavfi", "-i", source, "-preset", "ultrafast", path).CombinedOutput()
	if err != nil {
		panic(fmt.Sprintf("making a film: %v: %s", err, out))
	}
	return path
}

// Quick are the parameters of a job of a second's work at most.
func Quick() map[string]any {
	return map[string]any{"resolution": "160x120", "duration": 1, "preset": "ultrafast", "fps": 25}
}

// Long are the parameters of a job that outlasts any test.
func Long() map[string]any { return paced(shared.film()) }

// Lasting are the parameters of a job that takes so many seconds.
func Lasting(t *testing.T, seconds int) map[string]any {
	t.Helper()
	return paced(Film(t.TempDir(), seconds))
}

func paced(input string) map[string]any {
	return map[string]any{"input": input, "resolution": "64x64", "preset": "ultrafast", "fps": 10, "bitrate": unhurried}
}
