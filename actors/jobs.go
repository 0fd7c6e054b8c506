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
)

// jobs holds the slots. Each running attempt has an actor of its own below it; the
// attempt's FFmpeg is held by the Runner, so that a restart of jobs finds its runs
// and goes on with them.
type jobs struct {
	*env
	log      *zap.Logger
	attempts map[messages.AttemptKey]*attempt
	waiting  []messages.Lease // ours, but no slot is free: more than one was held for us
	drain    *messages.Drain
	spawned  int
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
	return &jobs{env: e, log: e.log.Named("jobs"), attempts: map[messages.AttemptKey]*attempt{}}
}

func (j *jobs) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		j.adopt(ctx)
		j.clearUp(ctx)
		if drain := j.stop.jobs.Load(); drain != nil {
			j.startDrain(ctx, drain)
		}
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
	supervision.Go(ctx, func(work context.Context) ([]messages.AttemptKey, error) {
		unfinished, err := j.Journal.Unfinished()
		if err != nil {
			return nil, fmt.Errorf("reading unfinished attempts from the journal: %w", err)
		}
		unfinished = slices.DeleteFunc(unfinished, func(r messages.Record) bool { return j.hasRun(r.Key()) })
		if len(unfinished) == 0 {
			return nil, nil
		}
		if err := j.Janitor.Reap(work, unfinished); err != nil {
			j.log.Error("a process of an earlier life could not be ended", zap.Error(err))
		}
		var reported []messages.AttemptKey
		for _, r := range unfinished {
			if _, err := j.recordFailed(r.Lease, messages.Encode{}, "interrupted: the agent ended while the job ran", false); err != nil {
				return reported, err
			}
			reported = append(reported, r.Key())
		}
		return reported, nil
	}, func(ctx actor.Context, reported []messages.AttemptKey, err error) {
		for _, key := range reported {
			j.log.Warn("a job that an earlier life of the agent left is reported as failed", jobFields(key)...)
			j.refs.uploader.Tell(&messages.ResultReady{Key: key})
		}
		if err != nil {
			j.log.Error("clearing up after an earlier life failed; trying again", zap.Error(err))
			supervision.After(ctx, time.Second, j.clearUp)
		}
	})
}

func (j *jobs) hasRun(key messages.AttemptKey) bool {
	return slices.ContainsFunc(j.Runner.Runs(), func(r Run) bool {
		lease := r.Lease()
		return lease.Key() == key
	})
}

// recordFailed puts a failed result on disk for an attempt that has no actor (any
// more); false when it has a result already. release: it was never started.
func (j *jobs) recordFailed(lease messages.Lease, encode messages.Encode, why string, release bool) (bool, error) {
	record, err := j.Journal.Accept(lease)
	if err != nil || !record.State.Unfinished() {
		return false, err
	}
	ending := messages.Ending{Lease: lease, Failure: messages.PlatformFailure(why), Encode: encode, At: time.Now()}
	body, err := ending.Body()
	if err != nil {
		return false, err
	}
	if err := j.Journal.Finish(lease.Key(), body, release); err != nil {
		return false, fmt.Errorf("recording the result of job %s: %w", lease.Job.ID, err)
	}
	j.counts.ended(&ending)
	return true, nil
}

func (j *jobs) offered(ctx actor.Context, lease messages.Lease) {
	key := lease.Key()
	if _, known := j.attempts[key]; known || slices.ContainsFunc(j.waiting, func(l messages.Lease) bool { return l.Key() == key }) {
		return
	}
	if j.drain != nil {
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
func (j *jobs) handBack(ctx actor.Context, lease messages.Lease) {
	key := lease.Key()
	supervision.Go(ctx, func(context.Context) (bool, error) {
		return j.recordFailed(lease, messages.Encode{}, "handed back unstarted: the agent is shutting down", true)
	}, func(_ actor.Context, report bool, err error) {
		if err != nil {
			j.log.Error("a job could not be handed back; the master gives it away by itself", append(jobFields(key), zap.Error(err))...)
			return
		}
		if report {
			j.log.Info("handing a job back: the agent is shutting down", jobFields(key)...)
			j.refs.uploader.Tell(&messages.ResultReady{Key: key})
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
	a, ok := j.attempts[m.Key]
	if !ok || a.finished {
		return
	}
	a.finished = true
	if m.Reported {
		// The poller first, so that it knows what to wait for when the uploader has tried.
		j.refs.poller.Tell(&messages.JobEnded{Key: m.Key})
		j.refs.uploader.Tell(&messages.ResultReady{Key: m.Key})
	}
	j.startWaiting(ctx)
	j.postSlots()
	j.checkDrained()
}

func (j *jobs) closed(key messages.AttemptKey) {
	if a, ok := j.attempts[key]; ok {
		a.ref.Stop()
		delete(j.attempts, key)
	}
	j.checkDrained()
}

// crashed reports an attempt whose actor failed: it never ends without a result.
func (j *jobs) crashed(ctx actor.Context, m *supervision.ChildFailed) {
	for key, a := range j.attempts {
		if a.name == m.Name {
			j.log.Error("the actor of a job failed; the attempt is reported as failed", jobFields(key)...)
			j.bury(ctx, key, a, fmt.Sprintf("the agent failed while it ran the job: %v", m.Reason))
			return
		}
	}
}

// bury stops a run whose actor is gone, reports it, and closes it.
func (j *jobs) bury(ctx actor.Context, key messages.AttemptKey, a *attempt, why string) {
	a.run.Stop(messages.StopShutdown)
	j.refs.meter.Tell(&messages.JobAbandoned{Key: key})
	wasFinished := a.finished
	supervision.Go(ctx, func(work context.Context) (struct{}, error) {
		if !wasFinished {
			if _, err := j.recordFailed(a.run.Lease(), a.run.Encode(), why, false); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, a.run.Close(work)
	}, func(ctx actor.Context, _ struct{}, err error) {
		if err != nil {
			j.log.Error("reporting a failed job did not succeed; trying again", append(jobFields(key), zap.Error(err))...)
			supervision.After(ctx, time.Second, func(ctx actor.Context) { j.bury(ctx, key, a, why) })
			return
		}
		j.finished(ctx, &messages.JobFinished{Key: key, Reported: true})
		j.closed(key)
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
	supervision.After(ctx, m.Timeout, func(actor.Context) {
		j.log.Warn("the drain's time is up; stopping the running jobs")
		j.stopAll()
	})
	j.postSlots()
	j.checkDrained()
}

func (j *jobs) checkDrained() {
	if j.drain != nil && len(j.attempts) == 0 {
		j.drain.Ready()
	}
}

func (j *jobs) stopAll() {
	for _, a := range j.attempts {
		a.run.Stop(messages.StopShutdown)
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

func jobFields(key messages.AttemptKey) []zap.Field {
	return []zap.Field{zap.String("job", key.JobID), zap.Int("attempt", key.Attempt)}
}
