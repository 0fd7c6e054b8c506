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

// product is what one output turned out to be.
type product struct {
	frames int64
	length time.Duration
	size   int64 // bytes; 0 while unknown
}

// Check judges what FFmpeg made, once it has exited, and puts the outputs in their
// places: nil when the attempt is good.
func (r *Run) Check(ctx context.Context) error {
	return r.step(ctx, r.check)
}

func (r *Run) check(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			r.removeTemps()
		}
	}()
	if err := ctx.Err(); err != nil {
		return err
	}
	if exit := r.ffmpeg.Load().Exit(); !exit.OK() {
		return r.explain(ctx, exit)
	}
	if f := r.diskExceeded(); f != nil { // since it was last looked at
		return f
	}
	products := make([]product, len(r.plan.renditions))
	for i := range r.plan.renditions {
		if products[i], err = r.inspect(ctx, i); err != nil {
			var judged *job.Failure
			switch { // which FFmpeg may have passed over
			case ctx.Err() != nil:
			case r.diskIsFull():
				return failure(protocol.ReasonResourceError, "no space left on the disk of the output: %v", err)
			case r.wasFull() && errors.As(err, &judged) && judged.Reason == protocol.ReasonRuntimeError:
				return failure(protocol.ReasonResourceError, "no space left on the disk of the output for a time: %v", err)
			}
			return err
		}
	}
	if err := ctx.Err(); err != nil { // the last moment to be stopped
		return err
	}
	for _, t := range r.place.targets {
		if t.final != "" {
			if err := publish(t); err != nil {
				return err
			}
		}
	}
	r.conclude(products)
	return nil
}

// explain says why FFmpeg ended badly.
func (r *Run) explain(ctx context.Context, exit proc.Exit) error {
	if f := r.overrun(r.ffmpeg.Load()); f != nil {
		return f
	}
	e := evidence{exit: exit, wasFull: r.wasFull(), hasInput: r.plan.input != "", streaming: r.plan.streaming}
	if exit.Err == nil && exit.Signal == 0 {
		if e.diskFull = r.diskIsFull(); !e.diskFull {
			e.input = r.judgeInput(ctx)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if line := lastError(r.stderr.String()); line != "" {
		e.said = ": " + r.secret.hide(line)
	}
	return classify(e)
}

// lastError is the last line that FFmpeg logged as an error, without its level and
// bounded; empty when there is none.
func lastError(log string) string {
	const most = 300
	line := ""
	for l := range strings.Lines(log) {
		for _, level := range []string{"[error] ", "[fatal] "} {
			if _, said, ok := strings.Cut(l, level); ok {
				line = strings.TrimSpace(said)
			}
		}
	}
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "…"
	}
	return line
}

// inspect looks at one output and compares it with what was asked for.
func (r *Run) inspect(ctx context.Context, i int) (product, error) {
	rd, t, last := r.plan.renditions[i], r.place.targets[i], r.Snapshot().Encode.Progress
	want := expectation{rendition: rd, written: -1, synthetic: r.plan.input == "", network: r.place.input.network, sound: r.plan.sound}
	if i == 0 {
		want.written = last.Frames
	}
	if !r.plan.whole || want.synthetic {
		want.asked = r.plan.duration
	}
	if !want.synthetic && r.place.input.finite {
		if in, err := r.probeInput(ctx); err == nil && in.Error == nil {
			want.available = in.length(r.plan.sound)
		}
	}
	if t.final == "" { // sent: what FFmpeg says of it is all there is
		made := product{frames: r.plan.framesOf(i, last.Frames), length: last.OutTime}
		if i == 0 { // whose size it says, and no other's
			made.size = last.SizeBytes
		}
		return made, orNil(want.judge(made))
	}
	info, err := t.file.Stat()
	if err != nil {
		return product{}, err
	}
	p, err := r.probeMade(ctx, t.name, info.Size())
	if err != nil {
		return product{}, err
	}
	made, f := want.read(p)
	made.size = info.Size()
	if f == nil {
		f = want.judge(made)
	}
	return made, orNil(f)
}

// orNil keeps a nil failure from becoming an error that is not nil.
func orNil(f *job.Failure) error {
	if f == nil {
		return nil
	}
	return f
}

// expectation is what an output is compared with.
type expectation struct {
	rendition
	asked     time.Duration // 0: the whole input
	available time.Duration // the input's length; 0 while unknown
	written   int64         // frames that FFmpeg says it wrote; -1 while unknown
	synthetic bool          // the input was made for the job, and is as long as asked
	network   bool          // the input came over the network
	sound     bool
}

// read takes ffprobe's view of an output.
func (x expectation) read(p probed) (product, *job.Failure) {
	video, ok := p.video()
	frames, counted := video.frames()
	if p.Error != nil || !ok || !counted {
		if x.written == 0 {
			return product{}, x.nothing()
		}
		return product{}, failure(protocol.ReasonRuntimeError, "ffmpeg ended well, but its output cannot be read")
	}
	if video.Width != x.width || video.Height != x.height {
		return product{}, failure(protocol.ReasonRuntimeError, "the output is %dx%d instead of %dx%d", video.Width, video.Height, x.width, x.height)
	}
	return product{frames: frames, length: p.duration()}, nil
}

func (x expectation) nothing() *job.Failure {
	if x.synthetic {
		return failure(protocol.ReasonRuntimeError, "ffmpeg ended well, but made no frame")
	}
	return failure(protocol.ReasonInputError, "input: not one frame of it could be decoded")
}

// judge compares an output with what was asked for: as many frames as FFmpeg says it
// wrote; from a synthetic input as many as rate and duration make; from another one
// as much media as the job wants and the input has.
func (x expectation) judge(made product) *job.Failure {
	if made.frames == 0 {
		return x.nothing()
	}
	if x.written >= 0 && abs(made.frames-x.written) > 1 {
		return failure(protocol.ReasonRuntimeError, "the output has %d frames, but ffmpeg wrote %d", made.frames, x.written)
	}
	if x.synthetic {
		want := int64(x.asked.Seconds()*x.fps.float() + 0.5)
		if abs(made.frames-want) > 1 {
			return failure(protocol.ReasonRuntimeError, "the output has %d frames instead of %d", made.frames, want)
		}
		return nil
	}
	return x.judgeLength(made)
}

// judgeLength allows half a second and 2 %: containers state lengths by their longest
// stream, and sound is padded to whole packets.
func (x expectation) judgeLength(made product) *job.Failure {
	slack := func(d time.Duration) time.Duration {
		return d/50 + 500*time.Millisecond + time.Duration(2/x.fps.float()*float64(time.Second))
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
	return failure(reason, "input: it breaks off after %s of %s", made.length.Round(time.Millisecond), want.Round(time.Millisecond))
}

func abs(n int64) int64 { return max(n, -n) }

// conclude notes what a good attempt made.
func (r *Run) conclude(products []product) {
	var outputs []string
	for _, t := range r.place.targets {
		switch {
		case t.url != "":
			outputs = append(outputs, r.secret.hide(t.url))
		case t.kept:
			outputs = append(outputs, t.final)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &r.encode
	e.Media = products[0].length
	e.Frames, e.Pixels, e.SizeBytes = 0, 0, 0
	sized := true
	for i, p := range products {
		rd := r.plan.renditions[i]
		e.Frames += p.frames
		e.Pixels += p.frames * int64(rd.width) * int64(rd.height)
		e.SizeBytes += p.size
		sized = sized && p.size > 0
	}
	if !sized {
		e.SizeBytes = 0 // a sum that lacks one is none
	}
	e.Progress.Percent, e.Progress.Frames = 100, products[0].frames
	e.Output = strings.Join(outputs, ", ")
}
