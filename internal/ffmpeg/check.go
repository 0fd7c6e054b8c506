package ffmpeg

import (
	"context"
	"errors"
	"strings"
	"time"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// product is what an output contains.
type product struct {
	size   size
	frames int64
	length time.Duration
	bytes  int64 // 0 while unknown
}

// Check checks what FFmpeg wrote, once it has exited, and gives the outputs their final
// names: nil when the attempt succeeded.
func (r *Run) Check(ctx context.Context) error {
	return r.step(ctx, r.check)
}

func (r *Run) check(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			r.files.discardTemps()
		}
	}()
	if err := ctx.Err(); err != nil {
		return err
	}
	switch exit := r.ffmpeg.Load().Exit(); {
	case r.timeUp && exit.Signal == 0 && exit.Code == stoppedExit:
		r.note("the stream ended at the job's timeout of %s, before its input did", r.plan.timeout)
	case !exit.OK():
		return r.exitFailure(ctx, exit)
	}
	if f := r.diskExceeded(); f != nil { // since the last check
		return f
	}
	products := make([]product, len(r.plan.renditions))
	for i := range r.plan.renditions {
		if products[i], err = r.inspect(ctx, i); err != nil {
			var f *job.Failure
			switch { // FFmpeg may exit with 0 on a full disk
			case ctx.Err() != nil:
			case r.diskIsFull():
				return failure(protocol.ReasonResourceError, "no space left on the disk of the output: %v", err)
			case r.diskWasFull() && errors.As(err, &f) && f.Reason == protocol.ReasonRuntimeError:
				return failure(protocol.ReasonResourceError, "the disk of the output was temporarily full: %v", err)
			}
			return err
		}
	}
	if err := ctx.Err(); err != nil { // last chance for a stop
		return err
	}
	for i := range r.files.targets {
		if t := &r.files.targets[i]; t.final != "" {
			if err := t.publish(); err != nil {
				return err
			}
		}
	}
	r.recordProducts(products)
	return nil
}

// exitFailure finds out why FFmpeg failed.
func (r *Run) exitFailure(ctx context.Context, exit proc.Exit) error {
	if f := r.limitFailure(r.ffmpeg.Load()); f != nil {
		return f
	}
	e := evidence{exit: exit, diskWasFull: r.diskWasFull(), hasInput: r.plan.input != "", streaming: r.plan.streaming}
	if exit.Err == nil && exit.Signal == 0 {
		if e.diskFull = r.diskIsFull(); !e.diskFull {
			e.input = r.checkInput(ctx)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if line := lastError(r.stderr.String()); line != "" {
		e.lastError = ": " + r.redactor.redact(line)
	}
	return classify(e)
}

// lastError is the last line that FFmpeg logged as an error, without its level and
// shortened; empty when there is none.
func lastError(log string) string {
	const maxBytes = 300
	line := ""
	for l := range strings.Lines(log) {
		for _, level := range []string{"[error] ", "[fatal] "} {
			if _, text, ok := strings.Cut(l, level); ok {
				line = strings.TrimSpace(text)
			}
		}
	}
	if len(line) > maxBytes {
		line = strings.ToValidUTF8(line[:maxBytes], "") + "…"
	}
	return line
}

// inspect probes one output and compares it with what was asked for.
func (r *Run) inspect(ctx context.Context, i int) (product, error) {
	rd, t, last := r.plan.renditions[i], r.files.targets[i], r.Snapshot().Encode.Progress
	want := expectation{rendition: rd, written: -1, synthetic: r.plan.input == "", network: r.files.input.network, sound: r.plan.sound}
	if i == 0 {
		want.written = last.Frames
	}
	if !r.plan.whole || want.synthetic {
		want.asked = r.plan.duration
	}
	if !want.synthetic && r.files.input.finite && !r.timeUp {
		if in, err := r.probeInput(ctx); err == nil && in.Error == nil {
			want.available = in.length(r.plan.sound)
		}
	}
	if t.final == "" { // a stream: only FFmpeg's figures are known
		made := product{size: r.sizeOf(i), frames: r.plan.framesOf(i, last.Frames), length: last.OutTime}
		if i == 0 { // the only one whose size it reports
			made.bytes = last.SizeBytes
		}
		return made, asError(want.check(made))
	}
	info, err := t.file.Stat()
	if err != nil {
		return product{}, err
	}
	p, err := r.probeOutput(ctx, t.arg, info.Size())
	if err != nil {
		return product{}, err
	}
	made, f := want.read(p)
	made.bytes = info.Size()
	if f == nil {
		f = want.check(made)
	}
	return made, asError(f)
}

func (r *Run) sizeOf(i int) size {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sizes()[i]
}

// asError keeps a nil failure from becoming an error that is not nil.
func asError(f *job.Failure) error {
	if f == nil {
		return nil
	}
	return f
}

// expectation is what an output is compared with.
type expectation struct {
	rendition
	asked     time.Duration // 0: the whole input
	available time.Duration // length of the input; 0 if unknown
	written   int64         // frames that FFmpeg reported; -1 if unknown
	synthetic bool          // the input was generated, with the length asked for
	network   bool          // the input came over the network
	sound     bool
}

// read takes what ffprobe found in an output.
func (x expectation) read(p probed) (product, *job.Failure) {
	video, ok := p.video()
	frames, counted := video.frames()
	if p.Error != nil || !ok || !counted {
		if x.written == 0 {
			return product{}, x.noFrames()
		}
		return product{}, failure(protocol.ReasonRuntimeError, "FFmpeg exited with 0, but its output cannot be read")
	}
	made := product{size: size{video.Width, video.Height}, frames: frames, length: p.duration()}
	if made.size != x.size && !x.sourceSize {
		return product{}, failure(protocol.ReasonRuntimeError, "the output is %s instead of %s", made.size, x.size)
	}
	return made, nil
}

func (x expectation) noFrames() *job.Failure {
	if x.synthetic {
		return failure(protocol.ReasonRuntimeError, "FFmpeg exited with 0, but wrote no frame")
	}
	return failure(protocol.ReasonInputError, "input: no frame of it could be decoded")
}

// check compares an output with what was asked for: it must have the frames that FFmpeg
// reported; from a synthetic input, those of rate and duration; from any other, as much
// media as the job asks for and the input has.
func (x expectation) check(made product) *job.Failure {
	if made.frames == 0 {
		return x.noFrames()
	}
	if x.written >= 0 && abs(made.frames-x.written) > 1 {
		return failure(protocol.ReasonRuntimeError, "the output has %d frames, but FFmpeg reported %d", made.frames, x.written)
	}
	if x.synthetic {
		want := int64(x.asked.Seconds()*x.fps.float() + 0.5)
		if abs(made.frames-want) > 1 {
			return failure(protocol.ReasonRuntimeError, "the output has %d frames instead of %d", made.frames, want)
		}
		return nil
	}
	return x.checkLength(made)
}

// checkLength allows half a second and 2 %: containers state the length of their longest
// stream, and sound is padded to whole packets.
func (x expectation) checkLength(made product) *job.Failure {
	slack := func(d time.Duration) time.Duration {
		return d/50 + 500*time.Millisecond + 2*x.frameTime()
	}
	if x.asked > 0 && made.length > x.asked+slack(x.asked) {
		return failure(protocol.ReasonRuntimeError, "the output is %s long instead of %s", made.length, x.asked)
	}
	want := x.available
	if x.asked > 0 {
		want = min(want, x.asked)
	}
	if made.length >= want-slack(want) {
		return nil
	}
	reason := protocol.ReasonInputError
	if x.network {
		reason = protocol.ReasonNetworkError
	}
	return failure(reason, "input: it ends after %s of %s", made.length.Round(time.Millisecond), want.Round(time.Millisecond))
}

func abs(n int64) int64 { return max(n, -n) }

// recordProducts records what a successful attempt wrote.
func (r *Run) recordProducts(products []product) {
	var outputs []string
	for _, t := range r.files.targets {
		switch {
		case t.url != "":
			outputs = append(outputs, r.redactor.redact(t.url))
		case t.kept:
			outputs = append(outputs, t.final)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &r.encode
	e.Media = products[0].length
	e.Width, e.Height = products[0].size.width, products[0].size.height
	e.Frames, e.Pixels, e.SizeBytes = 0, 0, 0
	sized := true
	for _, p := range products {
		e.Frames += p.frames
		e.Pixels += p.frames * p.size.pixels()
		e.SizeBytes += p.bytes
		sized = sized && p.bytes > 0
	}
	if !sized {
		e.SizeBytes = 0 // the sum is unknown
	}
	e.Progress.Percent, e.Progress.Frames = 100, products[0].frames
	e.Output = strings.Join(outputs, ", ")
}
