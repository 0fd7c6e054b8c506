package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/internal/fetch"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Run is one attempt at a job, from its checks to its clean-up. One goroutine calls
// Prepare, Start, Wait, Check and Measure, each once and in this order, as far as none
// fails. Stop, Snapshot, CPUTime and Close may be called by any goroutine at any time.
// Every error is a *job.Failure, or the context's.
type Run struct {
	runner    *Runner
	settings  Settings
	fetcher   *fetch.Fetcher
	lease     job.Lease
	log       *zap.Logger
	name      string // of the attempt, as a file name
	workspace string

	// ctx ends with Stop and with Close.
	ctx    context.Context
	cancel context.CancelFunc

	// Set by one step, read by those after it.
	tools tools
	// withoutLayers are the layers of the sandbox that encoders work only without.
	withoutLayers map[string][]proc.Layer
	caps          Capabilities
	plan          plan
	source        media // of the input, once it was probed
	cutOff        bool  // the input ends before all of the media that it declares
	lacks         int64 // how many bytes of it are missing; 0 if unknown
	files         jobFiles
	limiter       limiter
	relay         *fetch.Relay // nil: FFmpeg reads nothing over http
	timeUp        bool         // FFmpeg was asked to end a stream at the job's timeout
	helpers       atomic.Int32 // processes beside the encode, to name their cgroups

	meterFetch func(fetch func()) // nil: it is not metered

	stderr     logBuffer
	found      findings                // of FFmpeg's log, once it has exited
	input      lazy[probed]            // what ffprobe reports of the input
	ffmpeg     atomic.Pointer[process] // nil before Start
	progressAt atomic.Int64            // of the last progress that FFmpeg reported, Unix ns
	writtenAt  atomic.Int64            // likewise, or of its last write to an output where that is later
	fullAt     atomic.Int64            // when the disk of an output was last seen full, Unix ns

	closeOnce sync.Once
	closeDone chan struct{}
	closeErr  error // valid once closeDone is closed

	patience patience
	placing  atomic.Int32 // undecided, placed or givenUp
	stuck    atomic.Bool  // a step, or the closing, was given up and has not ended

	redactor *redactor

	mu       sync.Mutex
	closed   bool
	working  sync.WaitGroup // steps and goroutines that Close waits for
	phases   []job.PhaseSpan
	cause    job.StopCause
	encode   job.Encode
	process  *job.Process
	expected time.Duration // media to be written; 0 while unknown
	filled   int64         // frames that FFmpeg repeated outside of filters
	learned  []size        // of the outputs; nil while one is not known
}

var errClosed = failure(protocol.ReasonPlatformError, "the run is closed")

func newRun(r *Runner, lease job.Lease) *Run {
	key, with := lease.Key(), r.configured.Load()
	run := &Run{
		runner: r, settings: with.settings, fetcher: with.fetcher, lease: lease, name: attemptName(key),
		log:       r.log.With(zap.String("job", key.JobID), zap.Int("attempt", key.Attempt)),
		phases:    []job.PhaseSpan{{Phase: job.PhasePrepare, From: time.Now()}},
		closeDone: make(chan struct{}), redactor: newRedactor(lease, with.settings.DataDir),
	}
	run.workspace = r.work.path(run.name)
	run.ctx, run.cancel = context.WithCancel(context.Background())
	return run
}

// step does a step's work under a context that ends with the caller's, with Stop and
// with Close, and makes its error a failure. Where the work gives no sign for longer than it may
// (patience), the run is stopped: no call to a file system that does not answer can be ended. Work
// that goes on for long after the end of its context is given up, and Close waits for it.
func (r *Run) step(ctx context.Context, work func(context.Context) error) error {
	if !r.enterStep() {
		return errClosed
	}
	r.patience.allow(0)
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	if r.ctx.Err() != nil {
		cancel() // AfterFunc does it only soon
	}
	ended := make(chan error, 1)
	go func() {
		defer r.working.Done()
		var err error
		defer func() { ended <- err }()
		defer r.recovered("working on a job", &err)
		err = work(within)
	}()
	if done, err := r.await(within, ended); done {
		return r.failure(ctx, err)
	}
	select {
	case err := <-ended:
		return r.failure(ctx, err)
	case <-time.After(r.settings.StopGrace + r.settings.StopSlack):
	}
	r.placing.CompareAndSwap(undecided, givenUp)
	r.stuck.Store(true)
	return r.failure(ctx, context.Canceled)
}

// await waits for the end of a step; false: its context ended first. It stops the run when the
// step gives no sign for too long.
func (r *Run) await(ctx context.Context, ended <-chan error) (done bool, err error) {
	stall := newStallDetector(r.settings.StallTimeout, time.Now())
	next := time.NewTimer(stall.every)
	defer next.Stop()
	for {
		select {
		case err := <-ended:
			return true, err
		case <-ctx.Done():
			return false, nil
		case <-next.C:
			next.Reset(stall.every)
			moved, extra := r.patience.get()
			if stall.observe(time.Now(), moved) && stall.still >= r.settings.StallTimeout+extra {
				r.Stop(job.StopUnanswered)
			}
		}
	}
}

// mayTake calls what takes up to this long by itself, to which StallTimeout is added. Calls are
// not nested.
func (r *Run) mayTake(long time.Duration, call func() error) error {
	r.patience.allow(long)
	defer r.patience.allow(0)
	return call()
}

// What has become of the outputs: a check that was given up places none.
const (
	undecided int32 = iota
	placed
	givenUp
)

func (r *Run) enterStep() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.working.Add(1)
	return true
}

// failure makes an error of a step a *job.Failure: where the run was stopped, that of
// the stop.
func (r *Run) failure(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := r.stopCause(); cause != "" {
		return r.redactor.redactFailure(r.stopFailure(cause))
	}
	var f *job.Failure
	var missing *missingError
	switch {
	case errors.As(err, &f):
		return r.redactor.redactFailure(f)
	case errors.As(err, &missing):
		return r.redactor.redactFailure(failure(protocol.ReasonPlatformError, "FFmpeg is missing: %v", err))
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.Canceled):
		return errClosed
	}
	return r.redactor.redactFailure(osFailure(err))
}

// Stop ends the step that is going on: FFmpeg gets SIGTERM, and SIGKILL StopGrace
// later. The first cause counts. It returns at once.
func (r *Run) Stop(cause job.StopCause) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != "" {
		return
	}
	r.cause = cause
	r.cancel()
}

func (r *Run) stopCause() job.StopCause {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cause
}

// Snapshot returns how far the run is, without secrets. It does not block.
func (r *Run) Snapshot() job.Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := job.Snapshot{Encode: r.encode, Phases: slices.Clone(r.phases), Process: r.process, Stopped: r.cause}
	s.Encode.Args, s.Encode.Notes = slices.Clone(s.Encode.Args), r.redactor.redactAll(s.Encode.Notes)
	s.Phases[len(s.Phases)-1].To = time.Now()
	return s
}

// CPUTime is the CPU time FFmpeg has used so far; false while it is unknown. The agent
// fetches the input itself, with no process of the job.
func (r *Run) CPUTime() (time.Duration, bool) {
	if p := r.ffmpeg.Load(); p != nil {
		return p.CPUTime()
	}
	state := r.Snapshot()
	return 0, state.Phase() == job.PhaseFetch
}

// Close stops what still runs, waits for its end and removes what the attempt leaves:
// temporary outputs, open files, cgroup, workspace. Giving up the context stops the
// waiting, not the work.
func (r *Run) Close(ctx context.Context) error {
	r.closeOnce.Do(func() {
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		r.cancel()
		go func() {
			defer close(r.closeDone)
			defer r.recovered("closing", &r.closeErr)
			r.closeErr = r.close()
		}()
	})
	select {
	case <-r.closeDone:
		return r.closeErr
	case <-ctx.Done():
		r.stuck.Store(true)
		return fmt.Errorf("closing attempt %s: %w", r.name, ctx.Err())
	}
}

func (r *Run) close() error {
	r.working.Wait()
	if p := r.ffmpeg.Load(); p != nil {
		p.Stop(r.settings.StopGrace) // had Wait not been called
		_ = p.Cgroup().Remove()      // otherwise it goes with the attempt's
	}
	r.closeRelay()
	r.files.close()
	r.keepInput()
	if err := r.limiter.cgroup.Remove(); err != nil {
		r.log.Warn("could not remove the cgroup of a job; the next sweep will", zap.Error(err))
	}
	defer r.runner.forget(r)
	if err := r.runner.work.remove(r.name); err != nil {
		return fmt.Errorf("closing attempt %s: %w", r.name, err)
	}
	return nil
}

// recovered, deferred, logs a panic and makes it an error.
func (r *Run) recovered(what string, err *error) {
	v := recover()
	if v == nil {
		return
	}
	r.log.Error("panic in a run", zap.String("while", what), zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
	if err != nil {
		*err = failure(protocol.ReasonPlatformError, "the agent failed: panic while %s: %v", what, v)
	}
}

func (r *Run) setPhase(p job.Phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.enterPhase(p, time.Now())
}

// enterPhase is called with r.mu held.
func (r *Run) enterPhase(p job.Phase, at time.Time) {
	r.phases[len(r.phases)-1].To = at
	r.phases = append(r.phases, job.PhaseSpan{Phase: p, From: at})
}

func (r *Run) update(f func(*job.Encode)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.encode)
}

func (r *Run) note(format string, args ...any) {
	r.update(func(e *job.Encode) { e.Notes = append(e.Notes, fmt.Sprintf(format, args...)) })
}
