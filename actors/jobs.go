package actors

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// jobs holds the slots: it starts an attempt for each lease that a slot is free for,
// with an actor below it, and hands its result to the uploader. The attempts themselves
// are in the registry, so that a restart of jobs costs them nothing.
type jobs struct {
	*shared
	log         *zap.Logger
	children    map[job.Key]*supervision.Ref
	waiting     []job.Lease // ours, but no slot is free: the master held more than one
	taking      []job.Lease // offered while an earlier attempt at the job runs, which may take them
	early       []job.Lease // offered before what an earlier process left was reported
	recovered   bool        // it is
	returning   int         // leases being returned
	undelivered map[job.Key]*supervision.Timer
	untried     map[string]bool // IDs of completed jobs whose result has not been sent yet
	lookDue     bool            // a lease was left to the delivery of a result
	drain       *messages.Drain
	drainEnd    *supervision.Timer // stops the running jobs
	spawned     int
	disk        outage
}

// deliveryWait is how long the slot of an ended job waits for the first sending of its
// result: the master frees the node when it gets that.
const deliveryWait = time.Second

func newJobs(s *shared) *jobs {
	log := s.log.Named("jobs")
	return &jobs{
		shared: s, log: log, children: map[job.Key]*supervision.Ref{}, undelivered: map[job.Key]*supervision.Timer{},
		untried: map[string]bool{},
		disk:    journalOutage(log),
	}
}

func (j *jobs) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		j.adopt(ctx)
		j.recover(ctx)
		if drain := j.stop.drainOf("jobs"); drain != nil {
			j.startDrain(ctx, drain)
		}
		if j.stop.jobsNow.Load() {
			j.stopAll()
		}
		j.refs.poller.Tell(&messages.FindLeases{})
		j.sendState()
	case *messages.SendState:
		j.sendState()
	case *messages.Offer:
		for _, lease := range m.Leases {
			j.offered(ctx, lease)
		}
		j.sendState()
	case *messages.AttemptEnded:
		j.ended(ctx, m.Key)
	case *messages.ResultTried:
		j.delivered(m.Key)
		delete(j.untried, m.Key.JobID)
		j.look()
	case *messages.SettingsChanged:
		j.startWaiting(ctx)
		j.sendState()
	case *messages.Drain:
		j.startDrain(ctx, m)
	case *messages.UndoDrain:
		j.undoDrain()
	case *messages.StopJobs:
		j.stopAll()
	}
}

// adopt takes over the attempts of an earlier incarnation.
func (j *jobs) adopt(ctx actor.Context) {
	for _, a := range j.attempts.list() {
		if !a.ended() {
			j.log.Info("adopting a running job", jobFields(a.currentKey())...)
		}
		j.spawn(ctx, a)
	}
}

// sendState sends what poller, uploader and meter need to know of the leases.
func (j *jobs) sendState() {
	var held []job.Key
	for _, lease := range slices.Concat(j.waiting, j.taking, j.early) {
		held = append(held, lease.Key())
	}
	var running []messages.RunningAttempt
	for _, a := range j.attempts.list() {
		held = append(held, a.currentKey())
		r := messages.RunningAttempt{Key: a.key, Since: a.since}
		if encode := a.run.Snapshot().Encode; encode.Exited == nil {
			r.Started = encode.Started
		}
		running = append(running, r)
	}
	free := j.free() - len(j.waiting) - len(j.early) - len(j.undelivered)
	if j.draining() {
		free = 0
	}
	j.refs.uploader.Tell(&messages.HeldLeases{Keys: held})
	j.refs.meter.Tell(&messages.RunningAttempts{Attempts: running})
	j.refs.poller.Tell(&messages.Slots{Free: max(0, free)})
}

// recover reports as failed what an earlier process of the agent left unfinished, so
// that the master re-queues it now. An attempt of this process is in the registry until
// its result is in the journal.
func (j *jobs) recover(ctx actor.Context) {
	supervision.Go(ctx, func(work context.Context) ([]job.Key, error) {
		unfinished, err := j.Journal.Unfinished()
		if err != nil {
			return nil, fmt.Errorf("reading unfinished attempts from the journal: %w", err)
		}
		unfinished = slices.DeleteFunc(unfinished, func(r job.Record) bool { return j.attempts.find(r.Key()) != nil })
		if len(unfinished) == 0 {
			return nil, nil
		}
		if err := j.Janitor.Reap(work, unfinished); err != nil {
			j.log.Error("could not kill a process left by a previous run of the agent", zap.Error(err))
		}
		var reported []job.Key
		for _, r := range unfinished {
			fresh, err := j.recordFailed(r.Lease, job.Encode{}, "interrupted: the agent ended while the job ran", false)
			if err != nil {
				return reported, err
			}
			if fresh {
				reported = append(reported, r.Key())
			}
		}
		return reported, nil
	}, func(ctx actor.Context, reported []job.Key, err error) {
		for _, key := range reported {
			j.log.Warn("reporting a job interrupted by the end of the previous run", jobFields(key)...)
			j.refs.uploader.Tell(&messages.ResultReady{Key: key})
		}
		if err != nil {
			j.disk.failed(err)
			supervision.After(ctx, diskRetry, j.recover)
			return
		}
		j.disk.recovered()
		j.recovered = true
		early := j.early
		j.early = nil
		for _, lease := range early {
			j.offered(ctx, lease)
		}
		j.sendState()
		j.checkDrained()
	})
}

func (j *jobs) offered(ctx actor.Context, lease job.Lease) {
	key := lease.Key()
	same := func(l job.Lease) bool { return l.Key() == key }
	earlier := j.attempts.earlier(key)
	switch {
	case j.attempts.find(key) != nil || slices.ContainsFunc(slices.Concat(j.waiting, j.taking, j.early), same):
	case earlier != nil && earlier.canTake(lease):
		j.take(ctx, earlier, lease)
	case j.completing(lease):
		j.log.Info("the master reassigned the job to this node while its result is being delivered", jobFields(key)...)
		j.lookDue = true
	case !j.recovered: // what an earlier process left of this very attempt is reported first
		j.early = append(j.early, lease)
	default:
		if earlier != nil && !lease.Job.Fenced() {
			earlier.drop("the master assigned the job here again, and it has changed")
		}
		j.startOrWait(ctx, lease)
	}
}

func (j *jobs) startOrWait(ctx actor.Context, lease job.Lease) {
	switch {
	case j.draining():
		j.returnLease(ctx, lease)
	case j.free() <= 0:
		j.waiting = append(j.waiting, lease)
	default:
		j.start(ctx, lease)
	}
}

// take has a running attempt go on under a later lease of its job, or else starts an attempt
// for the lease.
func (j *jobs) take(ctx actor.Context, running *attempt, lease job.Lease) {
	j.taking = append(j.taking, lease)
	supervision.Go(ctx, func(context.Context) (bool, error) {
		return running.take(lease)
	}, func(ctx actor.Context, taken bool, err error) {
		j.taking = slices.DeleteFunc(j.taking, func(l job.Lease) bool { return l.Key() == lease.Key() })
		switch {
		case taken:
			j.disk.recovered()
		case err != nil:
			// The master lists the lease as ours, so the next look for leases finds it.
			wait := j.settings().ReconcileInterval
			j.disk.failed(err, zap.Duration("next_try", wait))
			j.refs.janitor.Tell(&messages.JournalFailed{})
			supervision.After(ctx, wait, func(actor.Context) { j.refs.poller.Tell(&messages.FindLeases{}) })
		case running.completed.Load() && !j.draining():
			j.log.Info("the master reassigned the job to this node while its result is being delivered", jobFields(lease.Key())...)
			j.lookDue = true
			j.look()
		default:
			running.drop("the master assigned the job here again, and the attempt could not go on under the new lease")
			j.startOrWait(ctx, lease)
		}
		j.sendState()
		j.checkDrained()
	})
}

// completing reports whether an attempt at the job of a lease has completed here, and its
// result has not been sent yet. A master that does not fence takes it, and then no longer
// waits for an attempt under the lease.
func (j *jobs) completing(lease job.Lease) bool {
	if lease.Job.Fenced() || j.draining() {
		return false
	}
	return j.untried[lease.Job.ID] || slices.ContainsFunc(j.attempts.list(), func(a *attempt) bool {
		return a.key.JobID == lease.Job.ID && a.completed.Load()
	})
}

// look looks for leases that were left to the delivery of a result.
func (j *jobs) look() {
	if j.lookDue && len(j.untried) == 0 {
		j.lookDue = false
		j.refs.poller.Tell(&messages.FindLeases{})
	}
}

// returnLease returns a lease unstarted, through the journal like every result, so that
// it does not get lost either.
func (j *jobs) returnLease(ctx actor.Context, lease job.Lease) {
	key := lease.Key()
	j.returning++
	supervision.Go(ctx, func(context.Context) (bool, error) {
		return j.recordFailed(lease, job.Encode{}, "returned unstarted: the agent is shutting down", true)
	}, func(_ actor.Context, report bool, err error) {
		defer j.checkDrained()
		j.returning--
		if err != nil {
			j.log.Error("could not return the job; the master will reassign it after its timeout", append(jobFields(key), zap.Error(err))...)
			return
		}
		if report {
			j.log.Info("returning the job unstarted: the agent is shutting down", jobFields(key)...)
			j.refs.uploader.Tell(&messages.ResultReady{Key: key, ConfirmedAt: lease.AcquiredAt})
		}
	})
}

func (j *jobs) start(ctx actor.Context, lease job.Lease) {
	j.spawn(ctx, j.attempts.begin(j.shared, lease))
}

func (j *jobs) spawn(ctx actor.Context, a *attempt) {
	j.spawned++
	j.children[a.key] = supervision.Child(ctx, supervision.Spec{
		Name: fmt.Sprintf("job-%s-%d", actorName(a.key.JobID), j.spawned),
		New:  func() actor.Actor { return &jobActor{shared: j.shared, attempt: a} },
	})
}

// ended hands the result of an attempt to the uploader and frees its slot.
func (j *jobs) ended(ctx actor.Context, key job.Key) {
	a := j.attempts.find(key)
	if a == nil || !a.ended() {
		return
	}
	if a.end.repeated {
		j.refs.poller.Tell(&messages.OfferRepeated{Key: key})
	}
	if a.end.reported {
		result := a.currentKey()
		j.undelivered[result] = supervision.After(ctx, deliveryWait, func(actor.Context) { j.delivered(result) })
		ready := &messages.ResultReady{Key: result, ConfirmedAt: a.confirmedAt()}
		if a.completed.Load() {
			j.untried[result.JobID] = true
		}
		if a.end.repeated {
			ready.ConfirmedAt = time.Time{} // it may have been sent already
		}
		j.refs.uploader.Tell(ready)
	}
	j.counts.left(a.run.Snapshot().Encode)
	j.children[a.key].Stop()
	delete(j.children, a.key)
	j.attempts.remove(a)
	j.look()
	j.startWaiting(ctx)
	j.sendState()
	j.checkDrained()
}

// startWaiting starts as many waiting leases as there are free slots.
func (j *jobs) startWaiting(ctx actor.Context) {
	for len(j.waiting) > 0 && j.free() > 0 && !j.draining() {
		j.start(ctx, j.waiting[0])
		j.waiting = j.waiting[1:]
	}
}

// delivered frees the slot of a job whose result was sent, or could not be sent in time.
func (j *jobs) delivered(key job.Key) {
	if timer, ok := j.undelivered[key]; ok {
		timer.Stop()
		delete(j.undelivered, key)
		j.sendState()
	}
}

// free is how many slots have no attempt; negative where a reload took slots away.
func (j *jobs) free() int { return j.settings().Slots - len(j.attempts.list()) }

// draining reports whether no more jobs are started. The snapshots say so before jobs is
// asked to drain, which waits for the poller.
func (j *jobs) draining() bool { return j.drain != nil || j.snapshots.Draining() }

func (j *jobs) startDrain(ctx actor.Context, m *messages.Drain) {
	j.drain = m
	for _, lease := range j.waiting {
		j.returnLease(ctx, lease)
	}
	j.waiting = nil
	j.drainEnd = supervision.After(ctx, time.Until(m.Until), func(actor.Context) {
		j.log.Warn("drain timeout reached; stopping the running jobs")
		j.stopAll()
	})
	j.sendState()
	j.checkDrained()
}

// undoDrain takes jobs again.
func (j *jobs) undoDrain() {
	j.drainEnd.Stop()
	j.drain, j.drainEnd = nil, nil
	j.sendState()
}

func (j *jobs) checkDrained() {
	if j.drain != nil && len(j.attempts.list())+len(j.taking)+j.returning == 0 && j.recovered {
		j.drain.Ready()
	}
}

func (j *jobs) stopAll() {
	for _, a := range j.attempts.list() {
		a.run.Stop(job.StopShutdown)
	}
}

// recordFailed records a failed result for an attempt that has no goroutine; false when it
// has a result already. release: it was never started.
func (s *shared) recordFailed(lease job.Lease, encode job.Encode, why string, release bool) (bool, error) {
	return s.record(&job.Outcome{Lease: lease, Failure: job.PlatformFailure(why), Encode: encode, At: time.Now()}, release)
}

// record puts the result of an attempt on disk and counts it; false when it has one
// already. A journal that was replaced meanwhile as damaged gets the attempt anew.
func (s *shared) record(outcome *job.Outcome, release bool) (bool, error) {
	record, err := s.Journal.Accept(outcome.Lease)
	if err != nil || !record.State.Unfinished() {
		return false, err
	}
	body, err := outcome.Body()
	if err != nil {
		panic(err) // an outcome holds nothing that JSON does not
	}
	if outcome.Requeued {
		if err := s.Journal.Requeued(outcome.Lease.Key()); err != nil {
			return false, err
		}
	}
	if err := s.Journal.Finish(outcome.Lease.Key(), body, release); err != nil {
		return false, fmt.Errorf("recording the result of job %s: %w", outcome.Lease.Job.ID, err)
	}
	s.counts.count(outcome, release)
	return true, nil
}

// actorName makes a job's id fit to be an element of an actor's path.
func actorName(id string) string {
	const longest = 40
	if len(id) > longest {
		id = id[:longest]
	}
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == '.' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return '_'
	}, id)
}

func jobFields(key job.Key) []zap.Field {
	return []zap.Field{zap.String("job", key.JobID), zap.Int("attempt", key.Attempt)}
}
