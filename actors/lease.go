package actors

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
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
			case <-time.After(a.settings().CancelCheckInterval):
				a.catchPanic(func() { a.checkLease(ctx) })
			}
		}
	})
	return func() { cancel(); watching.Wait() }
}

func (a *attempt) checkLease(ctx context.Context) {
	asked := time.Now()
	lease := a.currentLease()
	status, err := a.Master.Extend(ctx, lease)
	if err != nil || ctx.Err() != nil {
		return // no answer is no reason to stop
	}
	if status == job.LeaseHeld || status == job.LeaseCanceled {
		a.confirm(lease, asked)
	}
	if a.run.Snapshot().Stopped != "" {
		return
	}
	why := lossOf(status)
	switch {
	case status == job.LeaseCanceled:
		a.log.Info("the job was canceled; stopping ffmpeg")
		a.run.Stop(job.StopCanceled)
	case why == "", takesCompleted(status) && a.survivesRequeue(lease, why):
	default:
		a.drop(why)
	}
}

// lossOf is why a lease with this status is lost; empty where it is not.
func lossOf(status job.LeaseStatus) string {
	switch status {
	case job.LeaseEnded:
		return "the job was completed at the master"
	case job.LeaseFailed:
		return "the job has failed at the master"
	case job.LeaseTimedOut:
		return "the job has timed out at the master"
	case job.LeaseRejected:
		return "the master rejected the job"
	case job.LeaseReassigned:
		return "the master re-queued or reassigned the job"
	case job.LeaseOver:
		return "the master re-queued or reassigned the job, and it has ended since"
	}
	return ""
}

// takesCompleted reports whether a master that does not fence takes a completed result for a
// job whose lease has this status.
func takesCompleted(status job.LeaseStatus) bool {
	return status == job.LeaseFailed || status == job.LeaseReassigned
}

// drop stops the attempt, which is then discarded.
func (a *attempt) drop(why string) {
	a.mu.Lock()
	if a.dropped == "" {
		a.dropped = why
	}
	a.mu.Unlock()
	a.log.Warn("stopping the attempt", zap.String("reason", why))
	a.run.Stop(job.StopSuperseded)
}

// confirm notes that the master confirmed a lease, unless the attempt has taken another since.
func (a *attempt) confirm(lease job.Lease, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lease.Key() == lease.Key() {
		a.confirmed = at
	}
}

// survivesRequeue reports whether the attempt goes on although the lease is lost: masters in
// use re-queue long jobs of live nodes, and take the first completed result. An attempt that
// has taken another lease since goes on under that.
func (a *attempt) survivesRequeue(lease job.Lease, why string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.requeued || a.lease.Key() != lease.Key() {
		return true
	}
	if !a.mayComplete(lease) {
		return false
	}
	a.requeued = true
	a.requeues++
	a.log.Warn("lost the lease, but the master accepts a completed result; continuing the job", zap.String("reason", why))
	return true
}

// mayComplete reports whether the master may take a completed result under a lease that is
// lost: it does not fence, and has answered our heartbeats since it gave the lease.
func (s *shared) mayComplete(lease job.Lease) bool {
	return !lease.Job.Fenced() && s.contact.unbrokenSince(lease.AcquiredAt, s.settings().UnavailableAfter)
}

// take makes the attempt answer for a later lease of its job: the encode goes on. false: it
// cannot, and the lease needs an attempt of its own. An error means that the journal could not
// be written, and nothing has changed.
func (a *attempt) take(lease job.Lease) (taken bool, err error) {
	a.finishing.Lock()
	defer a.finishing.Unlock()
	if a.finished || a.run.Snapshot().Stopped != "" {
		return false, nil
	}
	// Only once: the end of the attempt waits for finishing.
	err = a.Journal.Transfer(a.currentKey(), lease)
	if errors.Is(err, job.ErrUnknownAttempt) || errors.Is(err, job.ErrNotTransferable) {
		a.log.Warn("the attempt cannot continue under the new lease", zap.Error(err))
		return false, nil
	}
	if err != nil {
		return false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.requeued {
		a.requeues++
	}
	a.lease, a.requeued, a.confirmed = lease, false, lease.AcquiredAt
	a.log.Info("the master assigned the running job here again; continuing under the new lease", zap.Int("new_attempt", lease.Key().Attempt))
	return true, nil
}

// canTake reports whether a later lease of the job asks for what the attempt does.
func (a *attempt) canTake(lease job.Lease) bool {
	current := a.currentLease()
	return !lease.Job.Fenced() && sameWork(&current.Job, &lease.Job)
}

// sameWork reports whether two jobs ask for the same encode.
func sameWork(a, b *protocol.Job) bool {
	return a.Scenario == b.Scenario && a.Engine == b.Engine &&
		reflect.DeepEqual(a.Parameters, b.Parameters) && reflect.DeepEqual(a.WrapperConstraints, b.WrapperConstraints)
}

func (a *attempt) currentLease() job.Lease {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lease
}

// currentKey names the attempt in the journal and to the master.
func (a *attempt) currentKey() job.Key {
	lease := a.currentLease()
	return lease.Key()
}

func (a *attempt) isRequeued() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requeued
}

func (a *attempt) requeueCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requeues
}
