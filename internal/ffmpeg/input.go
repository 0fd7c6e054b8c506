package ffmpeg

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/messages/protocol"
)

// syntheticName is a synthetic input's file in its workspace.
const syntheticName = "input.mov"

// longestClip bounds a synthetic input; a longer job reads it in a loop.
const longestClip = 10 * time.Second

// syntheticArgs is the argument vector that makes a moving test picture with a tone,
// as large and as fast as the largest and fastest of the outputs. QuickTime keeps
// exact frame times and PCM has no padding, so that a loop loses no frame.
func (p *plan) syntheticArgs(caps Capabilities, path string) []string {
	var width, height int
	fps := p.renditions[0].fps
	for _, r := range p.renditions {
		if r.width*r.height > width*height {
			width, height = r.width, r.height
		}
		if r.fps.float() > fps.float() {
			fps = r.fps
		}
	}
	length := seconds(min(p.duration, longestClip))
	encoder := []string{"-c:v", "mjpeg", "-q:v", "3"}
	if _, ok := caps.Video["libx264"]; ok {
		encoder = []string{"-c:v", "libx264", "-preset", "ultrafast", "-crf", "18"}
	}
	args := append(globalArgs(),
		"-f", "lavfi", "-i", fmt.Sprintf("testsrc2=size=%dx%d:rate=%s:duration=%s", width, height, fps, length),
		"-f", "lavfi", "-i", fmt.Sprintf("sine=frequency=440:sample_rate=48000:duration=%s", length))
	args = append(append(args, encoder...), "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le", "-f", "mov")
	return append(args, fileURL(path))
}

// makeInput generates a synthetic input into the workspace.
func (r *Run) makeInput(ctx context.Context) error {
	path := filepath.Join(r.workspace, syntheticName)
	ctx, cancel := context.WithTimeout(ctx, r.plan.timeout)
	defer cancel()
	c := command(r.tools.ffmpeg, r.workspace, r.plan.syntheticArgs(r.caps, path)...)
	c.Stderr = func(in io.Reader) { _, _ = io.Copy(&r.stderr, in) }
	c.FD3 = func(in io.Reader) { _, _ = io.Copy(io.Discard, in) }
	exit, err := r.finish(ctx, c)
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		return failure(protocol.ReasonTimeout, "making a synthetic input took longer than %s", r.plan.timeout)
	case err != nil:
		return err
	case !exit.OK() && (ranOut(exit) || diskFull(r.workspace)):
		return failure(protocol.ReasonResourceError, "no space left for a synthetic input")
	case !exit.OK():
		return failure(protocol.ReasonRuntimeError, "making a synthetic input: ffmpeg: %s", exit)
	}
	r.stderr.reset() // the log is the encode's own
	r.mu.Lock()
	defer r.mu.Unlock()
	r.place.input = source{
		url: fileURL(path), options: whitelist([]string{"file"}, "mov"), looped: r.plan.duration > longestClip,
	}
	r.place.local = path
	r.encode.InputMade = true
	return nil
}

// keepInput moves a synthetic input out of the workspace where the operator wants to keep it.
func (r *Run) keepInput() {
	if !r.settings.KeepInputs || !r.Snapshot().Encode.InputMade {
		return
	}
	dir := filepath.Join(r.settings.DataDir, inputsDir)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.Rename(filepath.Join(r.workspace, syntheticName), filepath.Join(dir, r.name+filepath.Ext(syntheticName)))
	}
	if err != nil {
		r.log.Warn("keeping a synthetic input", zap.Error(err))
	}
}
