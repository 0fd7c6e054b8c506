package ffmpeg

import (
	"context"
	"io"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/messages/job"
)

// Start starts FFmpeg and returns its identity. Wait must follow: it is what ends
// FFmpeg at a stop, a stall, a timeout and an exceeded limit.
func (r *Run) Start(ctx context.Context) (job.Process, error) {
	if err := r.step(ctx, r.start); err != nil {
		return job.Process{}, err
	}
	return r.proc.Load().id, nil
}

func (r *Run) start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var destinations []string
	for _, t := range r.place.targets {
		destinations = append(destinations, t.name)
	}
	args := r.plan.args(r.place.input, destinations)
	shown := r.secret.hideAll(append([]string{r.tools.ffmpeg}, args...))
	r.update(func(e *job.Encode) { e.Args = shown })
	proc, err := r.launch("encode", command{
		path: r.tools.ffmpeg, args: args, dir: r.workspace, files: r.place.files(),
		stderr:   func(in io.Reader) { _, _ = io.Copy(&r.stderr, in) },
		progress: func(in io.Reader) { _ = readProgress(in, r.progressed) },
	})
	if err != nil {
		return err
	}
	r.proc.Store(proc)
	r.moved.CompareAndSwap(0, proc.started.UnixNano())
	r.mu.Lock()
	r.enterPhase(job.PhaseRun, proc.started)
	r.encode.Started, r.process = &proc.started, &proc.id
	r.mu.Unlock()
	r.log.Debug("started FFmpeg", zap.Int("pid", proc.id.PID), zap.Strings("args", shown))
	if r.place.input.finite && r.plan.input != "" {
		r.background("probing the input", r.learnLength)
	}
	return nil
}

// learnLength asks for the length of the input, which progress in percent needs, while
// FFmpeg runs.
func (r *Run) learnLength(ctx context.Context) {
	p, err := r.probeInput(ctx)
	if err != nil || p.Error != nil {
		return // FFmpeg's own exit says what is wrong with it
	}
	length := p.length(r.plan.sound)
	r.mu.Lock()
	defer r.mu.Unlock()
	if length > 0 && (r.expected == 0 || length < r.expected) {
		r.expected = length
	}
}

// progressed takes in a block of FFmpeg's progress.
func (r *Run) progressed(p progressReport) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &r.encode
	if e.Progress.Frames != p.frames || e.Progress.OutTime != p.outTime || e.Progress.SizeBytes != p.size {
		r.moved.Store(now.UnixNano())
	}
	percent := 0.0
	if r.expected > 0 {
		percent = min(100, 100*p.outTime.Seconds()/r.expected.Seconds())
	}
	e.Progress = job.Progress{
		At: now, Percent: max(percent, e.Progress.Percent), Frames: p.frames, Dropped: p.dropped, FPS: p.fps, Speed: p.speed,
		BitrateKbps: p.kbps, OutTime: p.outTime, SizeBytes: p.size,
	}
	e.Dropped, e.Media = p.dropped, p.outTime
	if len(r.plan.renditions) == 1 {
		e.SizeBytes = p.size
	}
	e.Frames, e.Pixels = 0, 0
	for i, rd := range r.plan.renditions {
		frames := r.plan.framesOf(i, p.frames)
		e.Frames += frames
		e.Pixels += frames * int64(rd.width) * int64(rd.height)
	}
}

// Wait returns when FFmpeg has exited. Until then it stops FFmpeg when the run is
// stopped or its time is up, when it makes no progress, and when it exceeds a limit.
func (r *Run) Wait(ctx context.Context) error {
	return r.step(ctx, r.wait)
}

func (r *Run) wait(ctx context.Context) error {
	proc := r.proc.Load()
	defer r.exited(proc)
	stall := newStallDetector(min(r.plan.timeout, r.settings.StallTimeout), time.Now())
	next := time.NewTimer(stall.every)
	defer next.Stop()
	look, stop := r.confined.look()
	defer stop()
	for {
		select {
		case <-proc.done:
			return nil
		case <-ctx.Done():
			r.log.Debug("stopping FFmpeg", zap.String("cause", string(r.stopCause())))
			proc.stop(r.settings.StopGrace)
			if r.stopCause() != "" {
				return nil // Check says how it ended
			}
			return ctx.Err()
		case <-next.C:
			next.Reset(stall.every) // unlike a ticker's, a late tick is not followed by another at once
			if r.outputsLookFull() {
				r.full.Store(time.Now().UnixNano())
			}
			switch now := time.Now(); {
			case !stall.observe(now, r.lastProgress()):
			case now.Sub(proc.started) >= r.plan.timeout:
				r.Stop(job.StopTimeout)
			case stall.still >= r.settings.StallTimeout:
				r.Stop(job.StopStalled)
			}
		case <-look:
			if f := r.exceeded(proc); f != nil {
				proc.exceed(f)
			}
		}
	}
}

// lastProgress is when FFmpeg last made progress. While it finishes a file (moving the
// index of a large one to its front takes minutes) it reports none, but writes.
func (r *Run) lastProgress() time.Time {
	last := time.Unix(0, r.moved.Load())
	for _, t := range r.place.targets {
		if t.file == nil {
			continue
		}
		if info, err := t.file.Stat(); err == nil && info.ModTime().After(last) && info.ModTime().Before(time.Now()) {
			last = info.ModTime()
		}
	}
	return last
}

// exited records how FFmpeg ended.
func (r *Run) exited(proc *process) {
	<-proc.done
	exit := proc.exit
	size, sized := r.place.written()
	said := r.stderr.String()
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &r.encode
	e.Exited, e.CPUTime, e.Log = &exit.at, exit.cpu, r.secret.hide(said)
	if sized {
		e.SizeBytes = size
	}
	if exit.signal != 0 {
		e.Signal = signalName(exit.signal)
	} else if exit.err == nil {
		e.ExitCode = &exit.code
	}
	r.enterPhase(job.PhaseCheck, exit.at)
	r.log.Debug("FFmpeg exited", zap.Int("pid", proc.id.PID), zap.Stringer("exit", exit))
}
