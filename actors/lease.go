package actors

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/messages/job"
)

// watchLease asks the master now and then whether the job is still ours, beside the
// attempt, and stops the run where it is not. The returned function ends that.
func (a *attempt) watchLease(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(a.settings.Load().CancelCheckInterval):
				a.contain(func() { a.checkLease(ctx) })
			}
		}
	})
	return func() { cancel(); watching.Wait() }
}

func (a *attempt) checkLease(ctx context.Context) {
	asked := time.Now()
	status, err := a.Master.Extend(ctx, a.lease)
	if err != nil || ctx.Err() != nil {
		return // no answer is no reason to stop
	}
	if status == job.LeaseHeld || status == job.LeaseCanceled {
		a.mu.Lock()
		a.confirmed = asked
		a.mu.Unlock()
	}
	if a.run.Snapshot().Stopped != "" {
		return
	}
	switch status {
	case job.LeaseCanceled:
		a.log.Info("the job was canceled; stopping ffmpeg")
		a.run.Stop(job.StopCanceled)
	case job.LeaseEnded, job.LeaseReassigned:
		a.log.Warn("the master reassigned the job; stopping ffmpeg and discarding the attempt", zap.Stringer("lease", status))
		a.run.Stop(job.StopSuperseded)
	}
}
