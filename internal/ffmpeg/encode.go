package ffmpeg

import (
	"context"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/job"
)

// Start starts FFmpeg and returns its identity. Wait must follow: it is what ends
// FFmpeg at a stop, a stall, a timeout and an exceeded limit.
func (r *Run) Start(ctx context.Context) (job.Process, error) {
	if err := r.step(ctx, r.start); err != nil {
		return job.Process{}, err
	}
	return job.Process(r.ffmpeg.Load().ID()), nil
}

func (r *Run) start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var destinations []string
	for _, t := range r.files.targets {
		destinations = append(destinations, t.arg)
	}
	args := r.plan.args(r.files.input, destinations)
	shown := r.redactor.redactAll(append([]string{r.tools.ffmpeg}, args...))
	r.update(func(e *job.Encode) { e.Args = shown })
	c := r.command(r.tools.ffmpeg, args, r.writable()...)
	r.noteSandbox()
	if c.Sandbox != nil {
		c.Sandbox.Network = union(c.Sandbox.Network, r.outputNetwork())
	}
	log := newLogReader(&r.stderr, r.files.input.url, r.source)
	c.Stderr = func(in io.Reader) {
		log.read(in)
		r.found = log.found
	}
	c.FD3 = func(in io.Reader) { _ = readProgress(in, r.progressed) }
	p, err := r.launch(encodeProcess, c)
	if err != nil {
		return err
	}
	r.ffmpeg.Store(p)
	started, id := p.Started(), job.Process(p.ID())
	r.progressAt.CompareAndSwap(0, started.UnixNano())
	r.mu.Lock()
	r.enterPhase(job.PhaseRun, started)
	r.encode.Started, r.process = &started, &id
	r.mu.Unlock()
	r.log.Debug("started FFmpeg", zap.Int("pid", id.PID), zap.Strings("args", shown))
	return nil
}

// progressed takes in a block of FFmpeg's progress.
func (r *Run) progressed(p progressReport) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &r.encode
	if e.Progress.Frames != p.frames || time.Duration(e.Progress.OutTime) != p.outTime || e.Progress.SizeBytes != p.size {
		r.progressAt.Store(now.UnixNano())
	}
	if len(r.plan.renditions) == 1 { // else it is of all outputs
		r.filled = p.duplicated
	}
	percent := 0.0
	if r.expected > 0 {
		percent = min(100, 100*p.outTime.Seconds()/r.expected.Seconds())
	}
	e.Progress = job.Progress{
		At: now, Percent: max(percent, e.Progress.Percent), Frames: p.frames, Dropped: p.dropped, FPS: p.fps, Speed: p.speed,
		BitrateKbps: p.kbps, OutTime: job.Seconds(p.outTime), SizeBytes: p.size,
	}
	e.Dropped, e.Media = p.dropped, p.outTime
	if len(r.plan.renditions) == 1 {
		e.SizeBytes = p.size
	}
	e.Frames, e.Pixels = 0, 0
	sizes := r.sizes()
	for i, s := range sizes {
		frames := r.plan.framesOf(i, p.frames)
		e.Frames += frames
		e.Pixels += frames * s.pixels()
	}
	e.Width, e.Height = sizes[0].width, sizes[0].height
}

// sizes are those of the outputs; zero while one is not known. It is called with r.mu held.
func (r *Run) sizes() []size {
	if r.learned != nil {
		return r.learned
	}
	sizes, known := make([]size, len(r.plan.renditions)), true
	for i, rd := range r.plan.renditions {
		sizes[i] = rd.size
		known = known && rd.size.known()
	}
	if !known {
		known = learnSizes(r.stderr.String(), sizes)
	}
	if known {
		r.learned = sizes
	}
	return sizes
}

var (
	outputLine = regexp.MustCompile(`^\[info\] Output #(\d{1,2}), `)
	videoLine  = regexp.MustCompile(`^\[info\]   Stream #\d+:\d+.*: Video: .*, (\d{1,5})x(\d{1,5})[ ,]`)
)

// learnSizes fills in the sizes of outputs that follow an input which was not probed, as
// FFmpeg logs them before the first frame. It reports whether all are known.
func learnSizes(log string, sizes []size) bool {
	at := -1
	for line := range strings.Lines(log) {
		if m := outputLine.FindStringSubmatch(line); m != nil {
			at, _ = strconv.Atoi(m[1])
		} else if m := videoLine.FindStringSubmatch(line); m != nil && at >= 0 && at < len(sizes) && !sizes[at].known() {
			sizes[at].width, _ = strconv.Atoi(m[1])
			sizes[at].height, _ = strconv.Atoi(m[2])
		}
	}
	return !slices.Contains(sizes, size{})
}

// Wait returns when FFmpeg has exited. Until then it stops FFmpeg when the run is
// stopped or its time is up, when it makes no progress, and when it exceeds a limit.
func (r *Run) Wait(ctx context.Context) error {
	return r.step(ctx, r.wait)
}

func (r *Run) wait(ctx context.Context) error {
	p := r.ffmpeg.Load()
	stall := newStallDetector(min(r.plan.timeout, r.settings.StallTimeout), time.Now())
	looking, endLooking := context.WithCancel(ctx)
	looked := r.watchFiles(looking, p, stall.every, func() {
		if r.outputDiskFull() {
			r.fullAt.Store(time.Now().UnixNano())
		}
		r.writtenAt.Store(r.lastProgress().UnixNano())
	})
	defer func() {
		endLooking()
		r.exited(p)
		<-looked
	}()
	next := time.NewTimer(stall.every)
	defer next.Stop()
	check := r.limiter.processTimer()
	defer check.Stop()
	for { // asks no file system
		select {
		case <-p.Done():
			return nil
		case <-ctx.Done():
			r.log.Debug("stopping FFmpeg", zap.String("cause", string(r.stopCause())))
			p.Stop(r.settings.StopGrace)
			if r.stopCause() != "" {
				return nil // Check says how it ended
			}
			return ctx.Err()
		case <-next.C:
			next.Reset(stall.every) // unlike a ticker's, a late tick is not followed by another at once
			switch now := time.Now(); {
			case !stall.observe(now, time.Unix(0, max(r.progressAt.Load(), r.writtenAt.Load()))):
			case now.Sub(p.Started()) >= r.plan.timeout && r.plan.endsAtTimeout():
				r.log.Debug("ending the stream at the job's timeout")
				r.timeUp = true
				endLooking() // nor its signs: FFmpeg may be waiting for a file system
				_ = r.mayTake(r.settings.StopGrace, func() error { p.Stop(r.settings.StopGrace); return nil })
			case now.Sub(p.Started()) >= r.plan.timeout:
				r.Stop(job.StopTimeout)
			case stall.still >= r.settings.StallTimeout:
				cause := job.StopStalled
				if answered, _ := r.patience.get(); now.Sub(answered) > r.settings.StallTimeout/2 {
					cause = job.StopUnanswered // by what FFmpeg waits for as well
				}
				r.Stop(cause)
			}
		case <-check.C:
			f, wait := r.processExceeded(p)
			p.enforce(f)
			check.Reset(wait)
		}
	}
}

// lastProgress is when FFmpeg last made progress. While it finishes a file (moving the
// index of a large one to its front takes minutes) it reports none, but writes.
func (r *Run) lastProgress() time.Time {
	last := time.Unix(0, r.progressAt.Load())
	for _, t := range r.files.targets {
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
func (r *Run) exited(p *process) {
	exit := p.Exit()
	log := r.stderr.String()
	r.update(func(e *job.Encode) {
		e.Exited, e.CPUTime, e.Log = &exit.At, exit.CPU, safetext.Lines(r.redactor.redact(log))
		if exit.Signal != 0 {
			e.Signal = proc.SignalName(exit.Signal)
		} else if exit.Err == nil {
			e.ExitCode = &exit.Code
		}
		r.enterPhase(job.PhaseCheck, exit.At)
	})
	if size, sized := r.files.outputSize(); sized { // asked last: a file system may not answer
		r.update(func(e *job.Encode) { e.SizeBytes = size })
	}
	r.log.Debug("FFmpeg exited", zap.Int("pid", p.ID().PID), zap.Stringer("exit", exit))
}
