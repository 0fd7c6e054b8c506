package actors

import (
	"context"
	"errors"
	"time"

	"ffmpeg-agent/messages/job"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
)

const (
	// accountPatience is how long a finished job waits for its last power reading.
	accountPatience = 250 * time.Millisecond
	// diskRetry is the pause between tries to write to the journal.
	diskRetry = time.Second
)

// jobActor leads one attempt through its phases: accept → prepare → run → check →
// measure quality → journal. Each step of the Run is done once however often it is
// asked for, so an actor that takes over another's run walks the same way.
type jobActor struct {
	*env
	log     *zap.Logger
	run     Run
	lease   job.Lease
	key     job.Key
	failure *job.Failure
	checked bool
	account *energy.Account
	quality job.Quality
	watch   *supervision.Timer
	stood   time.Time // when the master last said that the lease stands
	ended   bool      // FFmpeg is through: no cancellation check any more
	disk    outage
}

func newJob(e *env, run Run) *jobActor {
	lease := run.Lease()
	key := lease.Key()
	log := e.log.Named("job").With(append(jobFields(key), zap.String("node", lease.NodeID))...)
	return &jobActor{
		env: e, log: log, run: run, lease: lease, key: key, stood: lease.AcquiredAt,
		disk: outage{log: log, what: "writing to the journal"},
	}
}

func (j *jobActor) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(*actor.Started); ok {
		j.accept(ctx)
	}
}

// accept records the lease before anything is done for it.
func (j *jobActor) accept(ctx actor.Context) {
	supervision.Go(ctx, func(context.Context) (job.Record, error) {
		return j.Journal.Accept(j.lease)
	}, func(ctx actor.Context, record job.Record, err error) {
		if err != nil {
			j.retry(ctx, err, j.accept)
			return
		}
		j.disk.over()
		switch {
		case !record.State.Unfinished():
			// Adopted on its last steps, or held by a master that lost what we reported:
			// the uploader knows what to do with the result.
			j.log.Warn("the attempt has ended here already", zap.String("state", string(record.State)))
			j.end(ctx, messages.JobFinished{
				Reported: record.State == job.RecordResult || record.State == job.RecordSent, Stale: true,
			})
		default:
			if record.State == job.RecordAccepted {
				j.log.Info("job accepted", zap.String("scenario", j.lease.Job.Scenario))
			}
			j.watchLease(ctx)
			j.refs.meter.Tell(&messages.JobTaken{Key: j.key, At: time.Now()})
			j.prepare(ctx)
		}
	})
}

func (j *jobActor) prepare(ctx actor.Context) {
	supervision.Go(ctx, discard(j.run.Prepare), func(ctx actor.Context, _ struct{}, err error) {
		if err != nil {
			j.fail(ctx, err)
			return
		}
		j.start(ctx)
	})
}

// start opens the energy window as close around FFmpeg's start as can be: one
// reading before, one after, neither waited for.
func (j *jobActor) start(ctx actor.Context) {
	adopted := j.run.Encode().Started != nil
	if !adopted {
		j.refs.meter.Tell(&messages.JobStarting{Key: j.key})
	}
	supervision.Go(ctx, j.run.Start, func(ctx actor.Context, process job.Process, err error) {
		if err != nil {
			j.fail(ctx, err)
			return
		}
		if started := j.run.Encode().Started; started != nil {
			j.refs.meter.Tell(&messages.JobStarted{Key: j.key, At: *started})
		}
		if !adopted {
			j.log.Info("ffmpeg started", zap.Int("pid", process.PID))
		}
		j.recordProcess(ctx, process)
		j.awaitExit(ctx)
	})
}

// recordProcess lets a later life of the agent end exactly this process. It runs
// beside the job: were the agent to die first, the parent-death signal ends FFmpeg.
func (j *jobActor) recordProcess(ctx actor.Context, process job.Process) {
	supervision.Go(ctx, func(context.Context) (struct{}, error) {
		return struct{}{}, j.Journal.Running(j.key, process)
	}, func(_ actor.Context, _ struct{}, err error) {
		if err != nil && !j.ended {
			j.log.Warn("ffmpeg's process could not be recorded", zap.Error(err))
		}
	})
}

func (j *jobActor) awaitExit(ctx actor.Context) {
	supervision.Go(ctx, discard(j.run.Wait), func(ctx actor.Context, _ struct{}, err error) {
		if err != nil {
			j.fail(ctx, err)
			return
		}
		j.closeWindow(ctx)
		j.check(ctx)
	})
}

func (j *jobActor) closeWindow(ctx actor.Context) {
	enc := j.run.Encode()
	if enc.Started == nil || enc.Exited == nil {
		return
	}
	post := supervision.Poster(ctx)
	j.refs.meter.Tell(&messages.JobExited{
		Key: j.key, Start: *enc.Started, At: *enc.Exited, Within: accountPatience,
		Reply: func(a energy.Account) {
			post(func(ctx actor.Context) {
				if j.account == nil {
					j.account = &a
					j.report(ctx)
				}
			})
		},
	})
	// The meter may die with the question.
	supervision.After(ctx, 4*accountPatience, func(ctx actor.Context) {
		if j.account == nil {
			unknown := energy.UnknownAccount(*enc.Started, *enc.Exited, "the meter did not answer")
			j.account = &unknown
			j.report(ctx)
		}
	})
}

func (j *jobActor) check(ctx actor.Context) {
	supervision.Go(ctx, discard(j.run.Check), func(ctx actor.Context, _ struct{}, err error) {
		if err != nil {
			j.fail(ctx, err)
			return
		}
		supervision.Go(ctx, j.run.Measure, func(ctx actor.Context, q job.Quality, err error) {
			if err != nil {
				q.Note = err.Error()
			}
			j.quality = q
			j.checked = true
			j.report(ctx)
		})
	})
}

func (j *jobActor) fail(ctx actor.Context, err error) {
	if !errors.As(err, &j.failure) {
		j.failure = job.PlatformFailure(err.Error())
	}
	j.checked = true
	j.report(ctx)
}

// report composes the result once the verdict is in and, where FFmpeg ran, the account.
func (j *jobActor) report(ctx actor.Context) {
	enc := j.run.Encode()
	if !j.checked || (enc.Exited != nil && j.account == nil) {
		return
	}
	j.ended = true
	ending := job.Outcome{
		Lease: j.lease, Failure: j.failure, Canceled: j.run.Stopped() == job.StopCanceled,
		Encode: enc, Energy: j.account, Quality: j.quality, At: time.Now(),
	}
	if j.run.Stopped() == job.StopSuperseded {
		j.counts.superseded.Add(1)
		j.supersede(ctx)
		return
	}
	j.logEnding(&ending)
	j.counts.count(&ending)
	body, err := ending.Body()
	if err != nil {
		// Nothing of the measured can be unfit for JSON; the actor's failure is reported by jobs.
		panic(err)
	}
	if enc.Exited == nil {
		j.record(ctx, body)
		return
	}
	j.keepSamples(ctx, func(ctx actor.Context) { j.record(ctx, body) })
}

// keepSamples puts the attempt's power over time on disk, if it can be had, and goes on. A
// result is good without it.
func (j *jobActor) keepSamples(ctx actor.Context, next func(actor.Context)) {
	done := false
	once := func(ctx actor.Context) {
		if !done {
			done = true
			next(ctx)
		}
	}
	post := supervision.Poster(ctx)
	j.refs.meter.Tell(&messages.CurveWanted{Key: j.key, Reply: func(curve *energy.Curve) {
		post(func(ctx actor.Context) {
			if curve == nil {
				once(ctx)
				return
			}
			supervision.Go(ctx, func(context.Context) (struct{}, error) {
				return struct{}{}, j.Journal.SaveSamples(j.key, job.Samples{Curve: *curve, Phases: j.run.Phases()})
			}, func(ctx actor.Context, _ struct{}, err error) {
				if err != nil {
					j.log.Warn("the job's power over time could not be kept", zap.Error(err))
				}
				once(ctx)
			})
		})
	}})
	// The meter may die with the question.
	supervision.After(ctx, 4*accountPatience, once)
}

func (j *jobActor) logEnding(e *job.Outcome) {
	fields := []zap.Field{zap.String("status", string(e.Status())), zap.Duration("wall", e.Encode.Wall()), zap.Int64("frames", e.Encode.Frames)}
	if e.Energy != nil && e.Energy.Total.Energy != nil {
		fields = append(fields, zap.Float64("joules", float64(*e.Energy.Total.Energy)), zap.String("energy_source", string(e.Energy.Total.Source)))
	}
	if e.Failure != nil && !e.Canceled {
		fields = append(fields, zap.String("failure_reason", string(e.Failure.Reason)), zap.String("error", e.Failure.Message))
		j.log.Warn("job ended", fields...)
		return
	}
	j.log.Info("job ended", fields...)
}

// record puts the result on disk, however long the disk takes to have room for it.
// A journal that was set aside as damaged meanwhile gets the attempt anew.
func (j *jobActor) record(ctx actor.Context, body []byte) {
	supervision.Go(ctx, func(context.Context) (struct{}, error) {
		if _, err := j.Journal.Accept(j.lease); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, j.Journal.Finish(j.key, body, false)
	}, func(ctx actor.Context, _ struct{}, err error) {
		if err != nil {
			j.retry(ctx, err, func(ctx actor.Context) { j.record(ctx, body) })
			return
		}
		j.disk.over()
		j.end(ctx, messages.JobFinished{Reported: true})
	})
}

// retry does again what the disk refused.
func (j *jobActor) retry(ctx actor.Context, err error, step func(actor.Context)) {
	j.disk.failed(err, zap.Duration("next_try", diskRetry))
	j.refs.janitor.Tell(&messages.JournalFailed{})
	supervision.After(ctx, diskRetry, step)
}

// supersede discards the attempt: the master gave it away.
func (j *jobActor) supersede(ctx actor.Context) {
	supervision.Go(ctx, func(context.Context) (struct{}, error) {
		err := j.Journal.Settle(j.key, job.RecordSuperseded, "the master gave the job away while it ran")
		switch {
		case errors.Is(err, job.ErrUnknownAttempt):
			err = nil // the journal was set aside meanwhile: there is nothing to settle
		case err != nil:
			// What was settled otherwise meanwhile is settled.
			if record, found, readErr := j.Journal.Record(j.key); readErr == nil && found && record.State.Settled() {
				err = nil
			}
		}
		return struct{}{}, err
	}, func(ctx actor.Context, _ struct{}, err error) {
		if err != nil {
			j.retry(ctx, err, j.supersede)
			return
		}
		j.disk.over()
		j.end(ctx, messages.JobFinished{})
	})
}

// end frees the slot at once and cleans up beside it.
func (j *jobActor) end(ctx actor.Context, how messages.JobFinished) {
	j.ended = true
	if j.watch != nil {
		j.watch.Stop()
	}
	how.Key, how.Stood = j.key, j.stood
	j.refs.jobs.Tell(&how)
	supervision.Go(ctx, discard(j.run.Close), func(ctx actor.Context, _ struct{}, err error) {
		if err != nil {
			j.log.Warn("what the job left cannot be removed now; the next sweep will try", zap.Error(err))
		}
		j.refs.jobs.Tell(&messages.JobClosed{Key: j.key})
	})
}

// watchLease asks every few seconds whether the job is still ours.
func (j *jobActor) watchLease(ctx actor.Context) {
	j.watch = supervision.After(ctx, j.settings.Load().CancelCheckInterval, func(ctx actor.Context) {
		asked := time.Now()
		supervision.Go(ctx, func(work context.Context) (job.LeaseStatus, error) {
			return j.Master.Extend(work, j.lease)
		}, func(ctx actor.Context, standing job.LeaseStatus, err error) {
			if j.ended {
				return
			}
			if err == nil {
				if standing == job.LeaseHeld || standing == job.LeaseCanceled {
					j.stood = asked
				}
				j.obey(standing)
			}
			j.watchLease(ctx)
		})
	})
}

func (j *jobActor) obey(standing job.LeaseStatus) {
	if j.run.Stopped() != "" {
		return
	}
	switch standing {
	case job.LeaseCanceled:
		j.log.Info("the job was canceled; stopping ffmpeg")
		j.run.Stop(job.StopCanceled)
	case job.LeaseEnded, job.LeaseReassigned:
		j.log.Warn("the master gave the job away; stopping ffmpeg and discarding the attempt", zap.Stringer("standing", standing))
		j.run.Stop(job.StopSuperseded)
	}
}

// discard makes a step that only fails or not fit for supervision.Go.
func discard(step func(context.Context) error) func(context.Context) (struct{}, error) {
	return func(ctx context.Context) (struct{}, error) { return struct{}{}, step(ctx) }
}
