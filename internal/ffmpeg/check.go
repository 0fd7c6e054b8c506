package ffmpeg

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/job"
)

// Check checks what FFmpeg wrote, once it has exited, and gives the outputs their final
// names: nil when the attempt succeeded.
func (r *Run) Check(ctx context.Context) error {
	err := r.step(ctx, r.check)
	if r.placing.Load() == placed {
		return nil // also where it was given up just then
	}
	return err
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
	e, err := r.gather(ctx)
	if err != nil {
		return err
	}
	v := judge(e)
	if v.failure != nil && e.ended() && r.diskIsFull() { // asked last, as it writes to the disk
		e.diskFull = true
		v = judge(e)
	}
	r.recordVerdict(v)
	if v.failure != nil {
		return v.failure
	}
	return r.place(ctx, e.outputs)
}

// place gives the checked outputs their final names, once their content is on disk. A check that
// was given up, whose attempt has been reported as failed, places none, and takes away again what
// a file system that did not answer has placed since.
func (r *Run) place(ctx context.Context, made []output) (err error) {
	var files []*target
	for i := range r.files.targets {
		t := &r.files.targets[i]
		if t.final == "" {
			continue
		}
		files = append(files, t)
		if err := r.mayTake(diskTime(made[i].made.bytes), t.file.Sync); err != nil {
			return fmt.Errorf("syncing an output: %w", err)
		}
	}
	if err := ctx.Err(); err != nil { // last chance for a stop
		return err
	}
	defer func() {
		if r.placing.Load() == givenUp {
			for _, t := range files {
				t.withdraw()
			}
		}
	}()
	for _, t := range files {
		if err := t.checkOwner(); err != nil { // it may have come meanwhile
			return err
		}
		if r.placing.Load() == givenUp {
			return context.Canceled
		}
		if err := t.publish(); err != nil {
			return err
		}
	}
	for _, t := range files {
		if err := t.syncDir(); err != nil {
			return err
		}
	}
	r.recordProducts(made)
	if !r.placing.CompareAndSwap(undecided, placed) {
		return context.Canceled
	}
	return nil
}

// gather collects the evidence. What decides without any is an error.
func (r *Run) gather(ctx context.Context) (evidence, error) {
	exit := r.ffmpeg.Load().Exit()
	e := evidence{
		exit: exit, found: r.found, timeUp: r.timeUp, timeout: r.plan.timeout, streaming: r.plan.streaming, origin: r.origin(), source: r.source, accept: r.plan.accept,
		whole: r.plan.whole, asked: r.plan.duration, software: r.plan.software(), copied: r.plan.audio.copied, diskWasFull: r.diskWasFull(),
	}
	e.bytes, e.lacks, e.cutOff, e.gaps = r.Snapshot().Encode.InputBytes, r.lacks, r.cutOff, r.files.fetched.Missing
	if e.found.ReadError != "" && e.origin == originStored {
		e.readable = r.readableBytes(ctx, r.files.inputPath)
	}
	e.grew = e.origin == originStored && r.files.reads.URL == nil && r.files.reads.Format == "" && regularSize(r.files.inputPath) > e.bytes
	if !e.ended() {
		if f := r.limitFailure(r.ffmpeg.Load()); f != nil {
			return e, f
		}
		if f := r.relayFailure(); f != nil {
			return e, f
		}
		if exit.Err == nil && exit.Signal == 0 {
			if e.diskFull = r.diskIsFull(); !e.diskFull && e.found.EncoderError == "" && !e.found.HeaderError {
				e.input = r.checkInput(ctx)
			}
		}
		return e, ctx.Err()
	}
	if e.found.ReadError == "" && r.relay != nil && r.relay.BrokeOff() {
		e.found.ReadError = "the transfer ended early"
		if f := r.relayFailure(); f != nil {
			e.found.ReadError = f.Message
		}
	}
	if f := cmp.Or(r.diskExceeded(), r.outputBytesExceeded(), r.mediaExceeded()); f != nil { // since the last check
		return e, f
	}
	for i := range r.plan.renditions {
		o, err := r.inspect(ctx, i)
		if err != nil {
			return e, err
		}
		e.outputs = append(e.outputs, o)
	}
	e.scan, e.filled = r.scanInput(ctx), r.filled
	return e, ctx.Err()
}

// readableBytes is how much of a file can be read before its end or the first error; 0 where
// that takes long.
func (r *Run) readableBytes(ctx context.Context, path string) int64 {
	ctx, cancel := context.WithTimeout(ctx, probeLocalTimeout)
	defer cancel()
	f, err := reach.OpenRegular(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	n, _ := io.Copy(io.Discard, &stoppable{ctx, f, r.patience.sign})
	if ctx.Err() != nil {
		return 0
	}
	return n
}

func (r *Run) origin() origin {
	switch in := r.files.input; {
	case r.plan.input == "":
		return originSynthetic
	case !in.network:
		return originStored
	case in.finite:
		return originNetwork
	}
	return originLive
}

// inspect finds out what became of one output.
func (r *Run) inspect(ctx context.Context, i int) (output, error) {
	t, last := r.files.targets[i], r.Snapshot().Encode.Progress
	o := output{rendition: r.plan.renditions[i], written: -1, streamed: t.final == ""}
	if i == 0 {
		o.written = last.Frames
	}
	if o.streamed { // only FFmpeg's figures are known
		o.made = product{size: r.sizeOf(i), frames: r.plan.framesOf(i, last.Frames), length: time.Duration(last.OutTime)}
		if i == 0 { // the only one whose size it reports
			o.made.bytes = last.SizeBytes
		}
		return o, nil
	}
	info, err := t.file.Stat()
	if err != nil {
		return o, err
	}
	p, packets, err := r.probeOutput(ctx, t.arg, info.Size())
	if err != nil {
		return o, err
	}
	video, ok := p.video()
	if p.Error != nil {
		o.unread = p.Error.String()
	} else if !ok {
		o.unread = "it has no video"
	}
	o.made = product{size: size{video.Width, video.Height}, frames: packets.count, length: packets.length, bytes: info.Size()}
	return o, nil
}

func (r *Run) sizeOf(i int) size {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sizes()[i]
}

// recordVerdict records what the input lacked.
func (r *Run) recordVerdict(v verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &r.encode
	e.DecodeErrors, e.Duplicated, e.InputMissing = v.decodeErrors, v.duplicated, v.missing
	e.Notes = append(e.Notes, v.notes...)
}

// recordProducts records what a successful attempt wrote.
func (r *Run) recordProducts(made []output) {
	var outputs []string
	renditions := make([]job.Rendition, len(made))
	for i, t := range r.files.targets {
		shown := ""
		switch {
		case t.url != "":
			shown = safetext.URL(t.url)
		case t.kept:
			shown = t.final
		}
		if shown != "" {
			outputs = append(outputs, shown)
		}
		renditions[i] = made[i].asRendition(shown)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &r.encode
	first := made[0].made
	e.Media, e.Width, e.Height = first.length, first.size.width, first.size.height
	e.Frames, e.Pixels, e.SizeBytes = 0, 0, 0
	sized := true
	for _, o := range made {
		p := o.made
		e.Frames += p.frames
		e.Pixels += p.frames * p.size.pixels()
		e.SizeBytes += p.bytes
		sized = sized && p.bytes > 0
	}
	if !sized {
		e.SizeBytes = 0 // the sum is unknown
	}
	e.Progress.Percent, e.Progress.Frames = 100, first.frames
	e.Output, e.Renditions = strings.Join(outputs, ", "), renditions
}

// asRendition describes an output for its result; shown is where it is.
func (o *output) asRendition(shown string) job.Rendition {
	p := o.made
	made := job.Rendition{
		Output: shown, Encoder: o.rendition.encoder, Width: p.size.width, Height: p.size.height,
		Frames: p.frames, SizeBytes: p.bytes, Seconds: math.Round(p.length.Seconds()*1e6) / 1e6,
	}
	if made.Seconds > 0 {
		made.BitrateKbps = math.Round(float64(p.bytes)*8/made.Seconds) / 1000
	}
	return made
}
