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

// jobs holds the slots. Each running attempt has an actor of its own below it; the
// attempt's FFmpeg is held by the Runner, so that a restart of jobs finds its runs
// and goes on with them.
type jobs struct {
	*env
	log      *zap.Logger
	attempts map[job.Key]*attempt
	waiting  []job.Lease // ours, but no slot is free: more than one was held for us
	early    []job.Lease // offered before an earlier life's leavings were cleared up
	clear    bool        // they are
	handing  int         // leases being handed back
	drain    *messages.Drain
	spawned  int
	disk     outage
}

// attempt is one that has an actor: it takes a slot until it has finished, and an
// entry until it is closed.
type attempt struct {
	name     string
	ref      *supervision.Ref
	run      Run
	finished bool
}

func newJobs(e *env) *jobs {
	log := e.log.Named("jobs")
	return &jobs{
		env: e, log: log, attempts: map[job.Key]*attempt{},
		disk: outage{log: log, what: "writing to the journal"},
	}
}

func (j *jobs) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		j.adopt(ctx)
		j.clearUp(ctx)
		if drain := j.stop.jobs.Load(); drain != nil {
			j.startDrain(ctx, drain)
		}
		if j.stop.jobsNow.Load() {
			j.stopAll()
		}
		j.refs.poller.Tell(&messages.JobsStarted{})
		j.postSlots()
	case *messages.PollerStarted:
		j.postSlots()
	case *messages.MeterStarted:
		j.announceWindows()
	case *messages.Offer:
		for _, lease := range m.Leases {
			j.offered(ctx, lease)
		}
		j.postSlots()
	case *messages.JobFinished:
		j.finished(ctx, m)
	case *messages.JobClosed:
		j.closed(m.Key)
	case *supervision.ChildFailed:
		j.crashed(ctx, m)
	case *messages.Drain:
		j.startDrain(ctx, m)
	case *messages.StopJobs:
		j.stopAll()
	}
}

// adopt takes over the runs that an earlier incarnation left running.
func (j *jobs) adopt(ctx actor.Context) {
	for _, run := range j.Runner.Runs() {
		lease := run.Lease()
		j.log.Info("going on with a running job", zap.String("job", lease.Job.ID), zap.Int("attempt", lease.Key().Attempt))
		j.spawn(ctx, run)
	}
}

// clearUp reports as failed what an earlier life of the agent left unfinished, so
// that the master re-queues it now. Every attempt of this life has a run until its
// result is on disk.
func (j *jobs) clearUp(ctx actor.Context) {
	supervision.Go(ctx, func(work context.Context) ([]job.Key, error) {
		unfinished, err := j.Journal.Unfinished()
		if err != nil {
			return nil, fmt.Errorf("reading unfinished attempts from the journal: %w", err)
		}
		unfinished = slices.DeleteFunc(unfinished, func(r job.Record) bool { return j.hasRun(r.Key()) })
		if len(unfinished) == 0 {
			return nil, nil
		}
		if err := j.Janitor.Reap(work, unfinished); err != nil {
			j.log.Error("a process of an earlier life could not be ended", zap.Error(err))
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
			j.log.Warn("a job that an earlier life of the agent left is reported as failed", jobFields(key)...)
			j.refs.uploader.Tell(&messages.ResultReady{Key: key}) // how the lease stands is not known
		}
		if err != nil {
			j.disk.failed(err)
			supervision.After(ctx, diskRetry, j.clearUp)
			return
		}
		j.disk.over()
		j.clear = true
		early := j.early
		j.early = nil
		for _, lease := range early {
			j.offered(ctx, lease)
		}
		j.postSlots()
		j.checkDrained()
	})
}

func (j *jobs) hasRun(key job.Key) bool {
	return slices.ContainsFunc(j.Runner.Runs(), func(r Run) bool {
		lease := r.Lease()
		return lease.Key() == key
	})
}

// recordFailed puts a failed result on disk for an attempt that has no actor (any
// more); false when it has a result already. release: it was never started.
func (j *jobs) recordFailed(lease job.Lease, encode job.Encode, why string, release bool) (bool, error) {
	record, err := j.Journal.Accept(lease)
	if err != nil || !record.State.Unfinished() {
		return false, err
	}
	ending := job.Outcome{Lease: lease, Failure: job.PlatformFailure(why), Encode: encode, At: time.Now()}
	body, err := ending.Body()
	if err != nil {
		return false, err
	}
	if err := j.Journal.Finish(lease.Key(), body, release); err != nil {
		return false, fmt.Errorf("recording the result of job %s: %w", lease.Job.ID, err)
	}
	j.counts.count(&ending)
	return true, nil
}

func (j *jobs) offered(ctx actor.Context, lease job.Lease) {
	key := lease.Key()
	j.refs.uploader.Tell(&messages.LeaseGiven{Key: key})
	same := func(l job.Lease) bool { return l.Key() == key }
	if _, known := j.attempts[key]; known || slices.ContainsFunc(j.waiting, same) {
		return
	}
	// What an earlier life left of this very attempt must be reported first.
	if !j.clear {
		if !slices.ContainsFunc(j.early, same) {
			j.early = append(j.early, lease)
		}
		return
	}
	if j.drain != nil || j.board.Draining() {
		j.handBack(ctx, lease)
		return
	}
	if j.free() <= 0 {
		j.waiting = append(j.waiting, lease)
		return
	}
	j.spawn(ctx, j.Runner.Begin(lease))
}

// handBack gives back a lease that came too late: through the journal like every result,
// so that it is not lost either.
func (j *jobs) handBack(ctx actor.Context, lease job.Lease) {
	key := lease.Key()
	j.handing++
	supervision.Go(ctx, func(context.Context) (bool, error) {
		return j.recordFailed(lease, job.Encode{}, "handed back unstarted: the agent is shutting down", true)
	}, func(_ actor.Context, report bool, err error) {
		defer j.checkDrained()
		j.handing--
		if err != nil {
			j.log.Error("a job could not be handed back; the master gives it away by itself", append(jobFields(key), zap.Error(err))...)
			return
		}
		if report {
			j.log.Info("handing a job back: the agent is shutting down", jobFields(key)...)
			j.refs.uploader.Tell(&messages.ResultReady{Key: key, Stood: lease.AcquiredAt})
		}
	})
}

func (j *jobs) spawn(ctx actor.Context, run Run) {
	lease := run.Lease()
	key := lease.Key()
	j.spawned++
	a := &attempt{name: fmt.Sprintf("job-%s-%d", actorName(key.JobID), j.spawned), run: run}
	a.ref = supervision.Child(ctx, supervision.Spec{
		Name:      a.name,
		Temporary: true,
		New:       func() actor.Actor { return newJob(j.env, run) },
	})
	j.attempts[key] = a
}

func (j *jobs) finished(ctx actor.Context, m *messages.JobFinished) {
	if m.Stale {
		j.refs.poller.Tell(&messages.OfferDropped{})
	}
	if m.Reported {
		// The poller first, so that it knows what to wait for when the uploader has tried.
		// An attempt that is no longer known here was finished before a restart.
		j.refs.poller.Tell(&messages.JobEnded{Key: m.Key})
		j.refs.uploader.Tell(&messages.ResultReady{Key: m.Key, Stood: m.Stood})
	}
	if a, ok := j.attempts[m.Key]; ok {
		a.finished = true
	}
	j.startWaiting(ctx)
	j.postSlots()
	j.checkDrained()
}

func (j *jobs) closed(key job.Key) {
	if a, ok := j.attempts[key]; ok {
		j.counts.left(a.run.Encode())
		a.ref.Stop()
		delete(j.attempts, key)
	}
	j.refs.meter.Tell(&messages.JobGone{Key: key})
	j.checkDrained()
}

// crashed reports an attempt whose actor failed: it never ends without a result.
func (j *jobs) crashed(ctx actor.Context, m *supervision.ChildFailed) {
	for key, a := range j.attempts {
		if a.name == m.Name {
			j.log.Error("the actor of a job failed; the attempt is reported as failed", jobFields(key)...)
			a.run.Stop(job.StopShutdown)
			j.bury(ctx, key, a, fmt.Sprintf("the agent failed while it ran the job: %v", m.Reason))
			return
		}
	}
}

// bury reports a run whose actor is gone, and closes it.
func (j *jobs) bury(ctx actor.Context, key job.Key, a *attempt, why string) {
	supervision.Go(ctx, func(context.Context) (bool, error) {
		if a.finished {
			return false, nil
		}
		return j.recordFailed(a.run.Lease(), a.run.Encode(), why, false)
	}, func(ctx actor.Context, fresh bool, err error) {
		if err != nil {
			j.disk.failed(err, jobFields(key)...)
			supervision.After(ctx, diskRetry, func(ctx actor.Context) { j.bury(ctx, key, a, why) })
			return
		}
		j.disk.over()
		j.finished(ctx, &messages.JobFinished{Key: key, Reported: fresh})
		supervision.Go(ctx, discard(a.run.Close), func(_ actor.Context, _ struct{}, err error) {
			if err != nil {
				j.log.Warn("what a job left cannot be removed now; the next sweep will try", append(jobFields(key), zap.Error(err))...)
			}
			j.closed(key)
		})
	})
}

func (j *jobs) startWaiting(ctx actor.Context) {
	for len(j.waiting) > 0 && j.free() > 0 && j.drain == nil {
		lease := j.waiting[0]
		j.waiting = j.waiting[1:]
		j.spawn(ctx, j.Runner.Begin(lease))
	}
}

// free is how many slots have no unfinished attempt; below 0 when fewer slots were set.
func (j *jobs) free() int {
	n := j.settings.Load().Slots
	for _, a := range j.attempts {
		if !a.finished {
			n--
		}
	}
	return n
}

func (j *jobs) postSlots() {
	free := j.free() - len(j.waiting)
	if j.drain != nil {
		free = 0
	}
	j.refs.poller.Tell(&messages.SlotsChanged{Free: max(0, free)})
}

// announceWindows tells a meter that lost its windows which ones are open.
func (j *jobs) announceWindows() {
	for key, a := range j.attempts {
		j.refs.meter.Tell(&messages.JobTaken{Key: key, At: time.Now()})
		if enc := a.run.Encode(); enc.Started != nil && enc.Exited == nil {
			j.refs.meter.Tell(&messages.JobStarted{Key: key, At: *enc.Started})
		}
	}
}

func (j *jobs) startDrain(ctx actor.Context, m *messages.Drain) {
	j.drain = m
	j.stop.jobs.Store(m)
	for _, lease := range j.waiting {
		j.handBack(ctx, lease)
	}
	j.waiting = nil
	supervision.After(ctx, time.Until(m.Until), func(actor.Context) {
		j.log.Warn("the drain's time is up; stopping the running jobs")
		j.stopAll()
	})
	j.postSlots()
	j.checkDrained()
}

func (j *jobs) checkDrained() {
	if j.drain != nil && len(j.attempts)+j.handing == 0 && j.clear {
		j.drain.Ready()
	}
}

func (j *jobs) stopAll() {
	for _, a := range j.attempts {
		a.run.Stop(job.StopShutdown)
	}
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
