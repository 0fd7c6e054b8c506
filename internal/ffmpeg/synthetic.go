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

// syntheticName is the file of a synthetic input in its workspace.
const syntheticName = "input.mov"

// maxClip bounds a synthetic input; a longer job reads it in a loop.
const maxClip = 10 * time.Second

// syntheticArgs is the argument vector that generates a moving test picture with a tone,
// with the largest size and the highest rate of the outputs. QuickTime keeps exact frame
// times and PCM has no padding, so that a loop loses no frame.
func (p *plan) syntheticArgs(caps Capabilities, path string) []string {
	var largest size
	fps := p.renditions[0].fps
	for _, r := range p.renditions {
		if r.size.pixels() > largest.pixels() {
			largest = r.size
		}
		if r.fps.float() > fps.float() {
			fps = r.fps
		}
	}
	length := seconds(min(p.duration, maxClip))
	encoder := []string{"-c:v", "mjpeg", "-q:v", "3"}
	if _, ok := caps.Video["libx264"]; ok {
		encoder = []string{"-c:v", "libx264", "-preset", "ultrafast", "-crf", "18"}
	}
	args := append(globalArgs(),
		"-f", "lavfi", "-i", fmt.Sprintf("testsrc2=size=%s:rate=%s:duration=%s", largest, fps, length),
		"-f", "lavfi", "-i", fmt.Sprintf("sine=frequency=440:sample_rate=48000:duration=%s", length))
	args = append(append(args, encoder...), "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le", "-f", "mov")
	return append(args, fileURL(path))
}

// makeInput generates a synthetic input in the workspace.
func (r *Run) makeInput(ctx context.Context) (err error) {
	path := filepath.Join(r.workspace, syntheticName)
	begun := time.Now()
	defer func() {
		if err != nil { // its space may be what the result of the job needs
			_ = os.Remove(path)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, r.plan.timeout)
	defer cancel()
	if err := os.WriteFile(path, nil, 0o600); err != nil { // which is all that FFmpeg may write
		return fmt.Errorf("creating a synthetic input: %w", err)
	}
	c := r.command(r.tools.ffmpeg, r.plan.syntheticArgs(r.caps, path), path)
	c.Stderr = func(in io.Reader) { _, _ = io.Copy(&r.stderr, in) }
	c.FD3 = func(in io.Reader) { _, _ = io.Copy(io.Discard, in) }
	exit, err := r.runHelper(ctx, c)
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		return failure(protocol.ReasonTimeout, "generating a synthetic input took longer than %s", r.plan.timeout)
	case err != nil:
		return err
	case !exit.OK() && (ranOutOfResources(exit) || diskFull(r.workspace)):
		return failure(protocol.ReasonResourceError, "no space left on the disk of the workspace for a synthetic input")
	case !exit.OK():
		return failure(protocol.ReasonRuntimeError, "generating a synthetic input: FFmpeg: %s", exit)
	}
	r.stderr.reset() // the log is the encode's
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files.input = source{
		url: fileURL(path), options: whitelist([]string{"file"}, "mov"), looped: r.plan.duration > maxClip,
	}
	r.files.inputPath = path
	r.encode.InputMade, r.encode.GenerateFor, r.encode.InputBytes = true, time.Since(begun), regularSize(path)
	return nil
}

// keepInput moves a synthetic input out of the workspace if it is to be kept.
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
		r.log.Warn("could not keep a synthetic input", zap.Error(err))
	}
}
