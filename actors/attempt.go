package actors

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

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

const (
	// lastReadingWait is how long the account of a job waits for its last power reading.
	lastReadingWait = 250 * time.Millisecond
	// meterDeadline is how long an attempt waits for an answer of the meter, which may
	// crash with the request.
	meterDeadline = 4 * lastReadingWait
	// diskRetry is the pause between attempts to write to the journal.
	diskRetry = time.Second
)

// attempt is one attempt at a job: a goroutine that takes it from its lease to its
// result in the journal. No restart of an actor touches it; actors start it, observe
// it and stop it.
type attempt struct {
	*shared
	log   *zap.Logger
	key   job.Key // under which it began; the meter's name for it
	run   Run
	since time.Time // when work for it began
	disk  outage

	fetchEnergy *energy.Account // of fetching the input; nil: nothing was fetched

	recording sync.WaitGroup // the write of FFmpeg's process to the journal
	closeOnce sync.Once

	done chan struct{} // closed when the goroutine has ended
	end  attemptEnd    // valid once done is closed

	// finishing is held while the record in the journal changes its lease or gets its result.
	finishing sync.Mutex
	finished  bool        // no other lease is taken; guarded by finishing
	completed atomic.Bool // its result is a completed one, and is being recorded or is in the journal

	mu        sync.Mutex
	lease     job.Lease // that it answers for
	dropped   string    // why the attempt is discarded; empty: it is not
	requeued  bool      // the lease is lost; a completed result is all that the master takes
	requeues  int       // how often the master re-queued the job
	confirmed time.Time
}

// attemptEnd is how an attempt ended.
type attemptEnd struct {
	reported bool // its result is in the journal
	repeated bool // it had ended here before this lease was offered
}

func newAttempt(s *shared, lease job.Lease) *attempt {
	key := lease.Key()
	log := s.log.Named("job").With(append(jobFields(key), zap.String("node", lease.NodeID))...)
	return &attempt{
		shared: s, log: log, key: key, lease: lease, run: s.Runner.Begin(lease), since: time.Now(), confirmed: lease.AcquiredAt,
		disk: journalOutage(log), done: make(chan struct{}),
	}
}

// perform carries out the attempt: accept → prepare → start → wait → check → measure →
// compose → journal, the last two in finish. An error means that the agent is closing. Then
// the journal has no result, and the next start reports the attempt as interrupted.
func (a *attempt) perform(ctx context.Context) (attemptEnd, error) {
	record, err := a.accept(ctx)
	if errors.Is(err, errNotAccepted) {
		a.log.Warn("abandoning the job before its start: could not write the journal; the master will reassign it after its timeout")
		return attemptEnd{}, nil
	}
	if err != nil {
		return attemptEnd{}, err
	}
	if !record.State.Unfinished() {
		return a.repeated(record), nil
	}
	stopWatching := a.watchLease(ctx)
	defer stopWatching()
	account, quality, failure := a.transcode(ctx)
	stopWatching()
	a.recording.Wait()
	if ctx.Err() != nil {
		return attemptEnd{}, ctx.Err()
	}
	return a.finish(ctx, account, quality, failure)
}

// finish records the attempt's result, or discards the attempt where discardReason says so.
func (a *attempt) finish(ctx context.Context, account func() *energy.Account, quality job.Quality, failure error) (attemptEnd, error) {
	a.finishing.Lock()
	defer a.finishing.Unlock()
	a.finished = true
	if why := a.discardReason(failure); why != "" {
		a.close()
		return attemptEnd{}, a.supersede(ctx, why)
	}
	outcome := a.compose(account, quality, failure)
	a.completed.Store(outcome.Status() == protocol.StatusCompleted)
	samples := a.samples(&outcome)
	a.close() // frees its disk space before the journal needs some
	if err := a.journal(ctx, &outcome, samples); err != nil {
		return attemptEnd{}, err
	}
	logOutcome(a.log, &outcome)
	if a.Traces != nil {
		a.catchPanic(func() { a.Traces.Ended(&outcome, a.run.Snapshot().Phases) })
	}
	return attemptEnd{reported: true}, nil
}

// transcode makes the output. The account is asked for at FFmpeg's exit and waited for
// by compose; it is nil where FFmpeg did not run.
func (a *attempt) transcode(ctx context.Context) (account func() *energy.Account, quality job.Quality, err error) {
	a.run.MeterFetch(a.meterFetch)
	if err := a.run.Prepare(ctx); err != nil {
		return noAccount, quality, err
	}
	if err := a.start(ctx); err != nil {
		return noAccount, quality, err
	}
	err = a.run.Wait(ctx)
	account = a.closeWindow()
	if err != nil {
		return account, quality, err
	}
	if err := a.run.Check(ctx); err != nil {
		return account, quality, err
	}
	return account, a.run.Measure(ctx), nil
}

// errNotAccepted: the attempt was stopped before its lease could be recorded.
var errNotAccepted = errors.New("stopped before it was accepted")

// accept records the lease before anything is done for it.
func (a *attempt) accept(ctx context.Context) (record job.Record, err error) {
	lease := a.currentLease()
	err = a.persist(ctx, func() (err error) {
		record, err = a.Journal.Accept(lease)
		if err != nil && a.run.Snapshot().Stopped != "" {
			return errNotAccepted
		}
		return err
	})
	if err == nil && record.State == job.RecordAccepted {
		a.log.Info("job accepted", zap.String("scenario", lease.Job.Scenario))
	}
	return record, err
}

// repeated is the end of an attempt whose result the journal has: the master lost what
// we reported, or has not yet been told. The uploader decides what to send.
func (a *attempt) repeated(record job.Record) attemptEnd {
	const again = "not running the job again: this attempt has already ended here; "
	switch record.State {
	case job.RecordResult: // normal after a restart
		a.log.Info(again + "its result is being delivered")
	case job.RecordSent:
		a.log.Warn(again + "the master has already accepted its result; sending it again if the master still expects it")
	default:
		a.log.Warn(again+"its result cannot be delivered", zap.String("reason", record.Why))
	}
	return attemptEnd{
		reported: record.State == job.RecordResult || record.State == job.RecordSent,
		repeated: true,
	}
}

// start starts FFmpeg between two extra readings of the power sensors, and records its
// process, so that the next start of the agent can end exactly that one. The record is
// written beside the encode: a slow disk must not keep FFmpeg from being stopped.
func (a *attempt) start(ctx context.Context) error {
	a.refs.samplers.Tell(&messages.TakeReading{})
	process, err := a.run.Start(ctx)
	if err != nil {
		return err
	}
	a.refs.meter.Tell(&messages.OpenWindow{Key: a.key, Phase: job.PhaseRun, At: *a.run.Snapshot().Encode.Started})
	a.log.Info("ffmpeg started", zap.Int("pid", process.PID))
	a.recording.Go(func() {
		a.catchPanic(func() {
			// Not worth failing for: FFmpeg is killed with the agent by its parent-death signal.
			if err := a.recordProcess(process); err != nil {
				a.log.Warn("could not record ffmpeg's process", zap.Error(err))
			}
		})
	})
	return nil
}

func (a *attempt) recordProcess(process job.Process) error {
	a.finishing.Lock()
	defer a.finishing.Unlock()
	return a.Journal.Running(a.currentKey(), process)
}

// meterFetch accounts for the energy of fetching the input, which is outside of FFmpeg's window.
func (a *attempt) meterFetch(fetch func()) {
	a.refs.samplers.Tell(&messages.TakeReading{})
	begun := time.Now()
	a.refs.meter.Tell(&messages.OpenWindow{Key: a.key, Phase: job.PhaseFetch, At: begun})
	fetch()
	a.fetchEnergy = a.account(job.PhaseFetch, begun, time.Now())()
}

// closeWindow asks the meter for the energy between FFmpeg's start and exit, and returns
// the function that waits for the answer.
func (a *attempt) closeWindow() func() *energy.Account {
	encode := a.run.Snapshot().Encode
	if encode.Exited == nil {
		return noAccount
	}
	return a.account(job.PhaseRun, *encode.Started, *encode.Exited)
}

// account asks the meter for the energy of a phase.
func (a *attempt) account(phase job.Phase, start, end time.Time) func() *energy.Account {
	answer := request(a.refs.meter, meterDeadline, func(reply func(energy.Account)) any {
		return &messages.CloseWindow{Key: a.key, Phase: phase, Start: start, At: end, Within: lastReadingWait, Reply: reply}
	})
	return func() *energy.Account {
		account, answered := answer()
		if !answered {
			account = energy.UnknownAccount(start, end, "the meter did not answer")
		}
		return &account
	}
}

func noAccount() *energy.Account { return nil }

// compose makes the outcome of what is known.
func (a *attempt) compose(account func() *energy.Account, quality job.Quality, err error) job.Outcome {
	state := a.run.Snapshot()
	outcome := job.Outcome{
		Lease: a.currentLease(), Requeued: a.isRequeued(), Canceled: state.Stopped == job.StopCanceled, Encode: state.Encode,
		Energy: account(), Quality: quality, At: time.Now(),
	}
	if state.Encode.Fetch != nil {
		outcome.FetchEnergy = a.fetchEnergy
	}
	if n := a.requeueCount(); n > 0 {
		outcome.Encode.Notes = append(slices.Clip(outcome.Encode.Notes), fmt.Sprintf("the master re-queued the job while it ran here: %d times; the encode was not interrupted", n))
	}
	if err != nil && !errors.As(err, &outcome.Failure) {
		outcome.Failure = job.PlatformFailure(err.Error())
	}
	return outcome
}

// samples are the attempt's power over time; nil where there is none.
func (a *attempt) samples(outcome *job.Outcome) *job.Samples {
	if outcome.Energy == nil {
		return nil
	}
	curve, _ := request(a.refs.meter, meterDeadline, func(reply func(*energy.Curve)) any {
		return &messages.GetCurve{Key: a.key, Reply: reply}
	})()
	if curve == nil {
		return nil
	}
	return &job.Samples{Curve: *curve, Phases: a.run.Snapshot().Phases}
}

// journal puts the result on disk. The samples are written before it and are optional. A
// journal that was replaced meanwhile as damaged gets the attempt anew.
func (a *attempt) journal(ctx context.Context, outcome *job.Outcome, samples *job.Samples) error {
	if samples != nil {
		a.catchPanic(func() {
			if err := a.Journal.SaveSamples(outcome.Lease.Key(), *samples); err != nil {
				a.log.Warn("could not save the power over time of the job", zap.Error(err))
			}
		})
	}
	return a.persist(ctx, func() error {
		_, err := a.record(outcome, false)
		return err
	})
}

// discardReason is why the attempt is discarded without a result; empty where one is due.
func (a *attempt) discardReason(failure error) string {
	switch {
	case a.run.Snapshot().Stopped == job.StopSuperseded:
		return a.supersedeReason()
	case failure != nil && a.isRequeued():
		return "the master re-queued the job while it ran, and it failed here: " + failure.Error()
	}
	return ""
}

func (a *attempt) supersedeReason() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dropped
}

// supersede discards the attempt.
func (a *attempt) supersede(ctx context.Context, why string) error {
	key := a.currentKey()
	a.log.Warn("discarding the attempt", zap.String("reason", why))
	a.counts.superseded.Add(1)
	return a.persist(ctx, func() error {
		err := a.Journal.Settle(key, job.RecordSuperseded, why)
		if errors.Is(err, job.ErrUnknownAttempt) {
			return nil // the journal was replaced meanwhile as damaged
		}
		if err == nil {
			return nil
		}
		if record, found, readErr := a.Journal.Record(key); readErr == nil && found && record.State.Settled() {
			return nil // by the uploader
		}
		return err
	})
}

// persist repeats a write until it succeeds: a full disk costs time, and no result. It
// gives up only when ctx ends, and at errNotAccepted.
func (a *attempt) persist(ctx context.Context, write func() error) error {
	for {
		err := write()
		if err == nil {
			a.disk.recovered()
			return nil
		}
		if errors.Is(err, errNotAccepted) {
			return err
		}
		a.disk.failed(err, zap.Duration("next_try", diskRetry))
		a.refs.janitor.Tell(&messages.JournalFailed{})
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(diskRetry):
		}
	}
}

// closeDeadline bounds the clean-up of a job. Longer than stopping FFmpeg may take, it is
// for processes and file systems that hang: they must not hold back a result.
const closeDeadline = 30 * time.Second

// close ends FFmpeg where it still runs and removes what the attempt has left outside
// the journal. It may be repeated.
func (a *attempt) close() {
	a.closeOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeDeadline)
		defer cancel()
		if err := a.run.Close(ctx); err != nil {
			a.log.Warn("could not remove all files of the job; the next sweep retries", zap.Error(err))
		}
	})
}

// supervise performs the attempt and reports it as failed where that panics.
func (a *attempt) supervise(ctx context.Context) {
	defer close(a.done)
	defer a.close()
	p := a.catchPanic(func() {
		if end, err := a.perform(ctx); err == nil {
			a.end = end
		}
	})
	if p == nil {
		return
	}
	a.catchPanic(func() {
		a.run.Stop(job.StopShutdown)
		failure := job.PlatformFailure(fmt.Sprintf("the agent failed while it ran the job: %v", p))
		if end, err := a.finish(ctx, noAccount, job.Quality{}, failure); err == nil {
			a.end = end
		}
	})
}

// catchPanic calls f, and logs and returns its panic; nil where it returned.
func (a *attempt) catchPanic(f func()) (p any) {
	defer func() {
		if p = recover(); p != nil {
			a.log.Error("panic in the goroutine of a job", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		}
	}()
	f()
	return nil
}

// ended reports whether the goroutine has ended.
func (a *attempt) ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// confirmedAt is when the master last confirmed the lease.
func (a *attempt) confirmedAt() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.confirmed
}

func logOutcome(log *zap.Logger, o *job.Outcome) {
	fields := []zap.Field{zap.String("status", string(o.Status())), zap.Duration("wall", o.Encode.Wall()), zap.Int64("frames", o.Encode.Frames)}
	if o.Energy != nil && o.Energy.Total.Energy != nil {
		fields = append(fields, zap.Float64("joules", float64(*o.Energy.Total.Energy)), zap.String("energy_source", string(o.Energy.Total.Source)))
	}
	if o.Failure != nil && !o.Canceled {
		fields = append(fields, zap.String("failure_reason", string(o.Failure.Reason)), zap.String("error", o.Failure.Message))
		log.Warn("job ended", fields...)
		return
	}
	log.Info("job ended", fields...)
}
