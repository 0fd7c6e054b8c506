package ffmpeg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"ffmpeg-agent/hardware/proc"
)

// askFor bounds how long FFmpeg may take to say what it has.
const askFor = 20 * time.Second

// Capabilities are what the FFmpeg at hand has. That a hardware encoder is listed
// does not mean that it works: only a trial encode proves that.
type Capabilities struct {
	// Identity names this very FFmpeg: path, size and time of its last change.
	Identity string
	Video    map[string]string // video encoders by name, with FFmpeg's name of the codec each makes
	Audio    map[string]string // audio encoders likewise
	Filters  map[string]bool
}

// missingError says that a binary is not there.
type missingError struct{ err error }

func (e *missingError) Error() string { return e.err.Error() }
func (e *missingError) Unwrap() error { return e.err }

// tools are the binaries that a job is run with.
type tools struct{ ffmpeg, ffprobe string }

// tools looks both binaries up; the error is a *missingError.
func (r *Runner) tools() (tools, error) {
	ffmpeg, err1 := exec.LookPath(r.settings.FFmpeg)
	ffprobe, err2 := exec.LookPath(r.settings.FFprobe)
	if err := errors.Join(err1, err2); err != nil {
		return tools{}, &missingError{fmt.Errorf("looking for FFmpeg: %w", err)}
	}
	return tools{ffmpeg, ffprobe}, nil
}

// Ready is nil when FFmpeg and ffprobe are there and answer; it is cheap to ask again.
func (r *Runner) Ready(ctx context.Context) error {
	_, err := r.Capabilities(ctx)
	return err
}

// Capabilities asks FFmpeg once which encoders and filters it has, and again when
// the binary was replaced. It may take a second.
func (r *Runner) Capabilities(ctx context.Context) (Capabilities, error) {
	t, err := r.tools()
	if err != nil {
		return Capabilities{}, err
	}
	info, err := os.Stat(t.ffmpeg)
	if err != nil {
		return Capabilities{}, &missingError{fmt.Errorf("looking at FFmpeg: %w", err)}
	}
	probe, err := os.Stat(t.ffprobe)
	if err != nil {
		return Capabilities{}, &missingError{fmt.Errorf("looking at ffprobe: %w", err)}
	}
	key := fmt.Sprint(t, info.Size(), info.ModTime().UnixNano(), probe.Size(), probe.ModTime().UnixNano())

	select {
	case r.asking <- struct{}{}:
		defer func() { <-r.asking }()
	case <-ctx.Done():
		return Capabilities{}, ctx.Err()
	}
	if r.capsKey == key {
		return r.caps, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	caps := Capabilities{Identity: key}
	if err := errors.Join(
		r.ask(ctx, t.ffprobe, "-version", func(out io.Reader) { _, _ = io.Copy(io.Discard, out) }),
		r.ask(ctx, t.ffmpeg, "-encoders", func(out io.Reader) { caps.Video, caps.Audio = parseEncoders(out) }),
		r.ask(ctx, t.ffmpeg, "-filters", func(out io.Reader) { caps.Filters = parseFilters(out) }),
	); err != nil {
		return Capabilities{}, err
	}
	if len(caps.Video) == 0 {
		return Capabilities{}, fmt.Errorf("asking %s for its encoders: it named none", t.ffmpeg)
	}
	r.caps, r.capsKey = caps, key
	return caps, nil
}

func (r *Runner) ask(ctx context.Context, binary, what string, read func(io.Reader)) error {
	c := command(binary, "/", "-hide_banner", "-loglevel", "error", what)
	c.Limits.Nice, c.Stdout = r.settings.Nice, read
	exit, err := proc.Run(ctx, c)
	if err == nil && !exit.OK() {
		err = errors.New(exit.String())
	}
	if err != nil {
		return fmt.Errorf("asking %s for %s: %w", binary, what, err)
	}
	return nil
}

var madeCodec = regexp.MustCompile(`\(codec ([a-z0-9_]+)\)\s*$`)

// parseEncoders reads -encoders: after a legend, lines such as
// " V....D libx264   libx264 H.264 / AVC (codec h264)". Experimental ones do not count.
func parseEncoders(out io.Reader) (video, audio map[string]string) {
	video, audio = map[string]string{}, map[string]string{}
	listing := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 1 && strings.HasPrefix(fields[0], "---") {
			listing = true
			continue
		}
		if !listing || len(fields) < 2 || len(fields[0]) < 6 || fields[0][3] == 'X' {
			continue
		}
		codec := fields[1]
		if m := madeCodec.FindStringSubmatch(lines.Text()); m != nil {
			codec = m[1]
		}
		switch fields[0][0] {
		case 'V':
			video[fields[1]] = codec
		case 'A':
			audio[fields[1]] = codec
		}
	}
	return video, audio
}

// parseFilters reads -filters: lines such as " TS. psnr   VV->V   Calculate the PSNR…".
func parseFilters(out io.Reader) map[string]bool {
	filters := map[string]bool{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) >= 3 && strings.Contains(fields[2], "->") {
			filters[fields[1]] = true
		}
	}
	return filters
}
