package ffmpeg

import (
	"bufio"
	"bytes"
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

// queryTimeout bounds one query of FFmpeg's capabilities.
const queryTimeout = 20 * time.Second

// Capabilities are what this FFmpeg supports. A hardware encoder that is listed does not
// necessarily work: only a trial encode proves that.
type Capabilities struct {
	// Identity identifies this very FFmpeg: path, size and modification time.
	Identity string
	Video    map[string]string // FFmpeg's name of the codec, by video encoder
	Audio    map[string]string // likewise, by audio encoder
	Filters  map[string]bool
	Presets  bool // it reads options from a file (-fpre)
}

// missingError: a binary is not installed.
type missingError struct{ err error }

func (e *missingError) Error() string { return e.err.Error() }
func (e *missingError) Unwrap() error { return e.err }

// tools are the paths of the binaries.
type tools struct{ ffmpeg, ffprobe string }

// tools looks up both binaries; the error is a *missingError.
func (r *Runner) tools() (tools, error) {
	ffmpeg, err1 := exec.LookPath(r.settings().FFmpeg)
	ffprobe, err2 := exec.LookPath(r.settings().FFprobe)
	if err := errors.Join(err1, err2); err != nil {
		return tools{}, &missingError{fmt.Errorf("looking up FFmpeg: %w", err)}
	}
	return tools{ffmpeg, ffprobe}, nil
}

// Ready is nil when FFmpeg and ffprobe are installed and run, in the sandbox that
// jobs.sandbox requires. Repeated calls are cheap.
func (r *Runner) Ready(ctx context.Context) error {
	if n := r.countStuck(); n >= maxStuck {
		return fmt.Errorf("%d attempts have ended and still wait for file systems that do not answer; the agent takes jobs again below %d", n, maxStuck)
	}
	_, err := r.Capabilities(ctx)
	if err == nil {
		err = r.sandboxes.ready()
	}
	return err
}

// Capabilities queries FFmpeg's encoders and filters once, and again when the binary was
// replaced. It may take a second.
func (r *Runner) Capabilities(ctx context.Context) (Capabilities, error) {
	t, key, err := r.identify()
	if err != nil {
		return Capabilities{}, err
	}
	select {
	case r.querying <- struct{}{}:
		defer func() { <-r.querying }()
	case <-ctx.Done():
		return Capabilities{}, ctx.Err()
	}
	if r.capsKey == key && !r.sandboxes.stale() {
		return r.caps, nil
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if r.capsKey == key {
		if _, confinement, err := r.query(ctx, t, nil); err == nil {
			r.sandboxes.learn(confinement, nil, "")
		} else {
			r.sandboxes.keep()
		}
		return r.caps, nil
	}
	var caps Capabilities
	var confinement *proc.Confinement
	r.sandboxes.state.Store(nil)
	without, why, err := r.sandboxes.lightest(ctx, func(without []proc.Layer) (err error) {
		caps, confinement, err = r.query(ctx, t, without)
		return err
	})
	if err != nil {
		return Capabilities{}, err
	}
	caps.Identity = key
	r.sandboxes.learn(confinement, without, why)
	r.caps, r.capsKey = caps, key
	return caps, nil
}

// query queries FFmpeg in a sandbox without certain layers, and finds out what that consists
// of.
func (r *Runner) query(ctx context.Context, t tools, without []proc.Layer) (caps Capabilities, confinement *proc.Confinement, err error) {
	ask := func(binary, what string, read func(io.Reader), more ...string) error {
		c := command(binary, "/", append([]string{"-hide_banner", "-loglevel", "error", what}, more...)...)
		c.Limits.Nice, c.Stdout = r.settings().Nice, read
		r.sandboxes.whole(&c, proc.Sandbox{Without: without}, false)
		var exit proc.Exit
		confinement, exit, err = proc.RunConfined(ctx, c)
		if err == nil && !exit.OK() {
			err = errors.New(exit.String())
		}
		if err != nil {
			return fmt.Errorf("querying %s for %s: %w", binary, what, err)
		}
		return nil
	}
	// One that does not answer reads no options from files.
	_ = ask(t.ffmpeg, "-h", func(out io.Reader) {
		text, _ := io.ReadAll(io.LimitReader(out, 1<<20))
		caps.Presets = bytes.Contains(text, []byte("\n-fpre "))
	}, "long")
	err = errors.Join(
		ask(t.ffprobe, "-version", func(out io.Reader) { _, _ = io.Copy(io.Discard, out) }),
		ask(t.ffmpeg, "-encoders", func(out io.Reader) { caps.Video, caps.Audio = parseEncoders(out) }),
		ask(t.ffmpeg, "-filters", func(out io.Reader) { caps.Filters = parseFilters(out) }),
	)
	if err == nil && len(caps.Video) == 0 {
		err = fmt.Errorf("querying %s for its encoders: it lists none", t.ffmpeg)
	}
	return caps, confinement, err
}

// identify looks both binaries up and returns Capabilities.Identity; the error is a
// *missingError.
func (r *Runner) identify() (tools, string, error) {
	t, err := r.tools()
	if err != nil {
		return tools{}, "", err
	}
	info, err := os.Stat(t.ffmpeg)
	if err != nil {
		return tools{}, "", &missingError{fmt.Errorf("looking up FFmpeg: %w", err)}
	}
	probe, err := os.Stat(t.ffprobe)
	if err != nil {
		return tools{}, "", &missingError{fmt.Errorf("looking up ffprobe: %w", err)}
	}
	return t, fmt.Sprint(t, info.Size(), info.ModTime().UnixNano(), probe.Size(), probe.ModTime().UnixNano()), nil
}

var encoderCodec = regexp.MustCompile(`\(codec ([a-z0-9_]+)\)\s*$`)

// parseEncoders parses -encoders: after a legend, lines such as
// " V....D libx264   libx264 H.264 / AVC (codec h264)". Experimental ones are left out.
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
		if m := encoderCodec.FindStringSubmatch(lines.Text()); m != nil {
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

// parseFilters parses -filters: lines such as " TS. psnr   VV->V   Calculate the PSNR…".
func parseFilters(out io.Reader) map[string]bool {
	filters := map[string]bool{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) >= 3 && strings.Contains(fields[2], "->") {
			filters[fields[1]] = true
		}
	}
	return filters
}
