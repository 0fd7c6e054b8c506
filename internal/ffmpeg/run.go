package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Run is one attempt at a job, from its checks to its clean-up. Prepare, Start,
// Check and Measure each do their work once, in this order; a repeated call waits
// for, or returns, what the first came to. Their work runs on goroutines of the
// run's own: giving up a context stops the waiting and not the work. All methods
// are safe for concurrent use.
type Run struct {
	runner    *Runner
	settings  Settings
	lease     job.Lease
	log       *zap.Logger
	name      string // of the attempt, as a file's name
	workspace string

	// ctx ends the work of the steps: by Stop and by Close.
	ctx    context.Context
	cancel context.CancelFunc
	gone   chan struct{} // closed when Close begins

	prepare, start, check, measure, closing step

	// Set by a step's work, read by those after it.
	tools  tools
	caps   Capabilities
	plan   plan
	place  place
	secret secrets
	proc   *process
	stderr headTail

	confined confinement  // how the attempt is held within its limits
	helpers  atomic.Int32 // processes beside FFmpeg's encode, for the names of their cgroups

	stopping chan struct{} // closed by the first Stop
	exited   chan struct{} // closed when FFmpeg has exited and been looked after

	mu       sync.Mutex
	closed   bool
	working  sync.WaitGroup  // goroutines of the run
	phases   []job.PhaseSpan // the last is the present one
	cause    job.StopCause
	encode   job.Encode
	quality  job.Quality
	expected time.Duration // media that is to come; 0 while unknown

	input lazy[probed] // what ffprobe says of the job's input
	moved atomic.Int64 // when FFmpeg last came forward, Unix ns
	full  atomic.Int64 // when an output's disk was last seen without room while FFmpeg ran, Unix ns
}

// step is work that is done once, however often it is asked for.
type step struct {
	once sync.Once
	done chan struct{}
	err  error // valid once done is closed
}

func newRun(r *Runner, lease job.Lease) *Run {
	key := lease.Key()
	run := &Run{
		runner: r, settings: r.settings, lease: lease, name: attemptName(key),
		log:    r.log.With(zap.String("job", key.JobID), zap.Int("attempt", key.Attempt)),
		phases: []job.PhaseSpan{{Phase: job.PhasePrepare, From: time.Now()}}, gone: make(chan struct{}), stopping: make(chan struct{}), exited: make(chan struct{}),
	}
	run.workspace = r.work.path(run.name)
	run.ctx, run.cancel = context.WithCancel(context.Background())
	for _, s := range []*step{&run.prepare, &run.start, &run.check, &run.measure, &run.closing} {
		s.done = make(chan struct{})
	}
	return run
}

// refuse makes a run that does nothing: its runner is closed.
func (r *Run) refuse() {
	r.cancel()
	r.closed = true
	close(r.gone)
}

// Lease is what the run is for.
func (r *Run) Lease() job.Lease { return r.lease }

// Prepare checks the job and makes its workspace and input. The error is a
// *job.Failure, or the context's.
func (r *Run) Prepare(ctx context.Context) error {
	return r.do(ctx, &r.prepare, r.prepareWork)
}

// Start starts FFmpeg and returns its identity.
func (r *Run) Start(ctx context.Context) (job.Process, error) {
	if err := r.do(ctx, &r.start, r.startWork); err != nil {
		return job.Process{}, err
	}
	return r.proc.id, nil
}

// Wait returns when FFmpeg has exited, or with the context's error. It fails when
// FFmpeg could not be started, or the run was closed before it was.
func (r *Run) Wait(ctx context.Context) error {
	select {
	case <-r.start.done:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.gone:
		return errClosed
	}
	if r.start.err != nil {
		return r.start.err
	}
	select {
	case <-r.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Check judges what FFmpeg made, once it has exited, and puts the output in its
// place: nil when the attempt is good, a *job.Failure when it is not.
func (r *Run) Check(ctx context.Context) error {
	if err := r.Wait(ctx); err != nil {
		return err
	}
	return r.do(ctx, &r.check, r.checkWork)
}

// Measure measures the quality that the job asks for. What could not be measured is
// nil, with a note; the error is that of an attempt that is not good.
func (r *Run) Measure(ctx context.Context) (job.Quality, error) {
	if err := r.Check(ctx); err != nil {
		return job.Quality{}, err
	}
	if err := r.do(ctx, &r.measure, r.measureWork); err != nil {
		return job.Quality{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.quality, nil
}

// Stop asks FFmpeg to end, and kills it StopGrace later; it ends whatever else the
// run is doing. The first cause counts. It returns at once.
func (r *Run) Stop(cause job.StopCause) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != "" {
		return
	}
	r.cause = cause
	close(r.stopping)
	r.cancel()
}

// Stopped returns the cause of Stop, or "".
func (r *Run) Stopped() job.StopCause {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cause
}

// Phase tells where the run stands. After PhaseQuality it has nothing more to do.
func (r *Run) Phase() job.Phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.phases[len(r.phases)-1].Phase
}

// Phases are those so far, the present one up to now.
func (r *Run) Phases() []job.PhaseSpan {
	r.mu.Lock()
	defer r.mu.Unlock()
	phases := slices.Clone(r.phases)
	phases[len(phases)-1].To = time.Now()
	return phases
}

// Process is FFmpeg; false before it was started.
func (r *Run) Process() (job.Process, bool) {
	if !r.started() {
		return job.Process{}, false
	}
	return r.proc.id, true
}

// Progress is FFmpeg's latest report.
func (r *Run) Progress() job.Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.encode.Progress
}

// Encode is what is known of FFmpeg's run so far.
func (r *Run) Encode() job.Encode {
	r.mu.Lock()
	e, secret := r.encode, r.secret
	r.mu.Unlock()
	e.Args, e.Notes = slices.Clone(e.Args), slices.Clone(e.Notes)
	e.Log = secret.hide(r.stderr.String())
	return e
}

// Usage is the CPU time FFmpeg has used so far; false while it is not known.
func (r *Run) Usage() (time.Duration, bool) {
	if !r.started() {
		return 0, false
	}
	return r.proc.usage()
}

func (r *Run) started() bool {
	select {
	case <-r.start.done:
		return r.start.err == nil
	default:
		return false
	}
}

// Close stops what still runs (with the same patience as Stop), waits for its end, removes the workspace and
// forgets the run.
func (r *Run) Close(ctx context.Context) error {
	r.closing.once.Do(func() {
		r.mu.Lock()
		again := r.closed
		r.closed = true
		r.mu.Unlock()
		if again { // it was refused
			close(r.closing.done)
			return
		}
		close(r.gone)
		go r.closeWork()
	})
	select {
	case <-r.closing.done:
		return r.closing.err
	case <-ctx.Done():
		return fmt.Errorf("closing attempt %s: %w", r.name, ctx.Err())
	}
}

func (r *Run) closeWork() {
	defer close(r.closing.done)
	defer func() {
		if v := recover(); v != nil {
			r.closing.err = r.panicked("close", v)
		}
	}()
	r.cancel()
	r.working.Wait()
	r.place.release()
	r.keepInput()
	if r.proc != nil {
		_ = r.proc.cgroup.remove() // or it goes with the attempt's
	}
	if err := r.confined.group.remove(); err != nil {
		r.log.Warn("a job's cgroup is left to the next sweep", zap.Error(err))
	}
	if err := r.runner.work.remove(r.name); err != nil {
		r.closing.err = fmt.Errorf("closing attempt %s: %w", r.name, err)
	}
	r.runner.forget(r)
}

var errClosed = failure(protocol.ReasonPlatformError, "the run is closed")

// do asks for a step's work and waits for it.
func (r *Run) do(ctx context.Context, s *step, work func(context.Context) error) error {
	s.once.Do(func() {
		begun := r.spawn(func() {
			defer close(s.done)
			defer func() {
				if v := recover(); v != nil {
					s.err = r.panicked("step", v)
				}
			}()
			s.err = r.verdict(work(r.ctx))
		})
		if !begun {
			s.err = errClosed
			close(s.done)
		}
	})
	select {
	case <-s.done: // counts even if the context is done as well
		return s.err
	default:
	}
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spawn runs work on a goroutine that Close waits for; false when Close came first.
func (r *Run) spawn(work func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.working.Go(func() {
		defer func() {
			if v := recover(); v != nil {
				_ = r.panicked("goroutine", v)
			}
		}()
		work()
	})
	return true
}

func (r *Run) panicked(where string, v any) *job.Failure {
	r.log.Error("panic in a run", zap.String("where", where), zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
	return failure(protocol.ReasonPlatformError, "the agent failed: panic in %s: %v", where, v)
}

// verdict makes a step's error a failure: of a stopped run the stop's.
func (r *Run) verdict(err error) error {
	if err == nil {
		return nil
	}
	if cause := r.Stopped(); cause != "" {
		return r.stopFailure(cause)
	}
	var f *job.Failure
	var missing *missingError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &missing):
		return failure(protocol.ReasonPlatformError, "FFmpeg is missing: %v", err)
	case errors.Is(err, context.Canceled):
		return errClosed
	}
	return osFailure(err)
}

func (r *Run) setPhase(p job.Phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.enter(p, time.Now())
}

// enter begins a phase; r.mu is held.
func (r *Run) enter(p job.Phase, at time.Time) {
	r.phases[len(r.phases)-1].To = at
	r.phases = append(r.phases, job.PhaseSpan{Phase: p, From: at})
}

func (r *Run) update(f func(*job.Encode)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.encode)
}

// prepareWork understands the job and makes its workspace and input.
func (r *Run) prepareWork(ctx context.Context) (err error) {
	begun := time.Now()
	defer func() { r.update(func(e *job.Encode) { e.PrepareFor = time.Since(begun) }) }()
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.tools, err = r.runner.tools(); err != nil {
		return err
	}
	if r.caps, err = r.runner.Capabilities(ctx); err != nil {
		return err
	}
	tried, err := r.runner.tried(ctx, r.caps.Identity, wantsHardware(r.lease.Job))
	if err != nil {
		return err
	}
	if err := r.understand(tried); err != nil {
		return err
	}
	if err := r.runner.work.make(r.name); err != nil {
		return err
	}
	r.confine()
	if err := r.hold(); err != nil {
		return err
	}
	if r.plan.input == "" {
		return r.makeInput(ctx)
	}
	return ctx.Err()
}

// understand makes the plan and places its files, or says what is wrong with the job.
func (r *Run) understand(tried map[string]bool) error {
	p, problems, lacks := newPlan(r.lease.Job, r.caps, tried, r.settings.MasterHost, r.settings.Timeout)
	finder := places{settings: r.settings, workspace: r.workspace, name: r.name}
	where, bad := finder.find(&p)
	if f := refusal(append(problems, unique(finder.problems)...), lacks); f != nil {
		return f
	}
	if bad != nil {
		return bad
	}
	var secret secrets
	for _, rd := range p.renditions {
		if rd.url != "" {
			secret.addURL(rd.url)
		}
	}
	if where.input.network {
		secret.addURL(where.input.url)
	}
	first := p.renditions[0]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan, r.place, r.secret = p, where, secret
	if !p.whole || p.input == "" {
		r.expected = p.duration
	}
	e := &r.encode
	e.Encoder, e.Codec, e.Scenario, e.Bitrate = first.encoder, first.codec, p.scenario, first.bitrate
	e.Width, e.Height = first.width, first.height
	e.Notes = p.notes
	return nil
}

// startWork starts FFmpeg and those who watch it.
func (r *Run) startWork(ctx context.Context) error {
	if err := r.Prepare(ctx); err != nil {
		return err
	}
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
		progress: func(in io.Reader) { _ = readProgress(in, r.report) },
	})
	if err != nil {
		return err
	}
	r.proc = proc
	r.moved.CompareAndSwap(0, proc.started.UnixNano())
	r.mu.Lock()
	r.enter(job.PhaseRun, proc.started)
	r.encode.Started = &proc.started
	r.mu.Unlock()
	r.log.Debug("FFmpeg started", zap.Int("pid", proc.id.PID), zap.Strings("args", shown))
	if !r.spawn(r.watch) { // closed meanwhile
		proc.stop(r.settings.StopGrace)
		close(r.exited)
		return errClosed
	}
	if r.place.input.finite && r.plan.input != "" {
		r.spawn(r.learnLength)
	}
	return nil
}

// launch starts one of the attempt's processes within its limits, in a cgroup of its own
// below the attempt's where one can be had, and without where not: what that cgroup
// serves is worth less than the job, which then says that its limits did not hold.
func (r *Run) launch(name string, c command) (*process, error) {
	c.bounds = r.confined.bounds
	group, err := r.confined.group.child(name)
	if err == nil && group != nil {
		c.cgroup = group
		var proc *process
		if proc, err = start(c, r.runner.bootID); err == nil {
			return proc, nil
		}
		err = errors.Join(err, group.remove())
	}
	if err != nil {
		r.log.Warn("a process of the job gets no cgroup of its own", zap.String("process", name), zap.Error(err))
		r.update(func(e *job.Encode) {
			e.Notes = append(e.Notes, fmt.Sprintf("%s ran outside the job's cgroup, which does not limit it: %v", name, err))
		})
	}
	c.cgroup = nil
	return start(c, r.runner.bootID)
}

// finish runs one of the attempt's commands beside the encode to its end, or kills it when the
// context is done. That it was ended for a limit is an error.
func (r *Run) finish(ctx context.Context, c command) (exitStatus, error) {
	if err := ctx.Err(); err != nil {
		return exitStatus{}, err
	}
	p, err := r.launch(fmt.Sprintf("helper-%d", r.helpers.Add(1)), c)
	if err != nil {
		return exitStatus{}, err
	}
	defer func() { _ = p.cgroup.remove() }() // or it goes with the attempt's
	look, stop := r.confined.look()
	defer stop()
	for {
		select {
		case <-p.done:
			if f := r.overrun(p); f != nil {
				return p.exit, f
			}
			return p.exit, p.exit.err
		case <-ctx.Done():
			p.signal(syscall.SIGKILL)
			<-p.done
			return p.exit, ctx.Err()
		case <-look:
			if f := r.exceeded(p); f != nil {
				p.exceed(f)
			}
		}
	}
}

// learnLength finds out how long the input is, for the progress in percent, while
// FFmpeg runs already.
func (r *Run) learnLength() {
	p, err := r.probeInput(r.ctx)
	if err != nil || p.Error != nil {
		return // FFmpeg's own end tells what is wrong with it
	}
	length := p.length(r.plan.sound)
	r.mu.Lock()
	defer r.mu.Unlock()
	if length > 0 && (r.expected == 0 || length < r.expected) {
		r.expected = length
	}
}

// report takes in a block of FFmpeg's progress.
func (r *Run) report(p progressReport) {
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

// watch sees FFmpeg to its end: it stops FFmpeg when it is told to, when the time
// is up, when nothing moves any more, and when a limit is exceeded.
func (r *Run) watch() {
	defer close(r.exited)
	defer r.ended()
	attention := newAttention(min(r.plan.timeout, r.settings.StallTimeout), time.Now())
	next := time.NewTimer(attention.every)
	defer next.Stop()
	look, stop := r.confined.look()
	defer stop()
	for {
		select {
		case <-r.proc.done:
			return
		case <-r.stopping:
			r.log.Debug("stopping FFmpeg", zap.String("cause", string(r.Stopped())))
			r.proc.stop(r.settings.StopGrace)
			return
		case <-r.gone:
			r.proc.stop(r.settings.StopGrace)
			return
		case <-next.C:
			next.Reset(attention.every) // never two looks in a row, as a ticker that is late gives
			if r.outputsLookFull() {
				r.full.Store(time.Now().UnixNano())
			}
			switch now := time.Now(); {
			case !attention.paid(now, r.lastMove()):
			case now.Sub(r.proc.started) >= r.plan.timeout:
				r.Stop(job.StopTimeout)
			case attention.still >= r.settings.StallTimeout:
				r.Stop(job.StopStalled)
			}
		case <-look:
			if f := r.exceeded(r.proc); f != nil {
				r.proc.exceed(f)
			}
		}
	}
}

// lastMove is when FFmpeg last came forward. While it finishes a file (moving the
// index of a large one to its front takes minutes) it reports nothing, but writes.
func (r *Run) lastMove() time.Time {
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

// ended notes how FFmpeg ended.
func (r *Run) ended() {
	<-r.proc.done
	exit := r.proc.exit
	size, sized := r.place.written()
	r.mu.Lock()
	e := &r.encode
	e.Exited, e.CPUTime = &exit.at, exit.cpu
	if sized {
		e.SizeBytes = size
	}
	if exit.signal != 0 {
		e.Signal = signalName(exit.signal)
	} else if exit.err == nil {
		e.ExitCode = &exit.code
	}
	if r.phases[len(r.phases)-1].Phase == job.PhaseRun {
		r.enter(job.PhaseCheck, *r.encode.Exited)
	}
	r.mu.Unlock()
	r.log.Debug("FFmpeg ended", zap.Int("pid", r.proc.id.PID), zap.Stringer("exit", exit))
}

// removeTemps removes what a failed attempt has written beside its targets.
func (r *Run) removeTemps() {
	for _, t := range r.place.targets {
		if t.dir != nil {
			_ = t.dir.Remove(filepath.Base(t.temp)) // what is left goes with the workspace
		}
	}
}
