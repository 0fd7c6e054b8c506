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
			case <-time.After(a.settings.Load().CancelCheckInterval):
				a.contain(func() { a.checkLease(ctx) })
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
	switch status {
	case job.LeaseCanceled:
		a.log.Info("the job was canceled; stopping ffmpeg")
		a.run.Stop(job.StopCanceled)
	case job.LeaseFailed, job.LeaseReassigned:
		if a.survivesRequeue(lease) {
			return
		}
		fallthrough
	case job.LeaseEnded, job.LeaseOver:
		a.log.Warn("the master reassigned the job; stopping ffmpeg and discarding the attempt", zap.Stringer("lease", status))
		a.run.Stop(job.StopSuperseded)
	}
}

// confirm notes that the master confirmed a lease, unless the attempt has taken another since.
func (a *attempt) confirm(lease job.Lease, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lease.Key() == lease.Key() {
		a.confirmed = at
	}
}

// survivesRequeue reports whether the attempt goes on although the master has re-queued the
// job that a lease was for: masters in use do that with long jobs of live nodes, and take the
// first completed result. An attempt that has taken another lease since goes on under that.
func (a *attempt) survivesRequeue(lease job.Lease) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.requeued || a.lease.Key() != lease.Key() {
		return true
	}
	if !a.takesCompleted(lease) {
		return false
	}
	a.requeued = true
	a.requeues++
	a.log.Warn("the master re-queued the job while it runs here; going on until it is completed or canceled there")
	return true
}

// takesCompleted reports whether the master still takes a completed result under a lease that
// it has ended: it does not fence, and it did not end the lease for want of heartbeats.
func (s *shared) takesCompleted(lease job.Lease) bool {
	return !lease.Job.Fenced() && s.contact.unbrokenSince(lease.AcquiredAt, s.settings.Load().UnavailableAfter)
}

// take makes the attempt answer for a later lease of its job: the encode goes on. false: it
// cannot, and the lease needs an attempt of its own.
func (a *attempt) take(ctx context.Context, lease job.Lease) (taken bool, err error) {
	a.finishing.Lock()
	defer a.finishing.Unlock()
	if a.finished || a.run.Snapshot().Stopped != "" {
		return false, nil
	}
	err = a.persist(ctx, func() error {
		err := a.Journal.Transfer(a.currentKey(), lease)
		taken = err == nil
		if errors.Is(err, job.ErrUnknownAttempt) || errors.Is(err, job.ErrNotTransferable) {
			a.log.Warn("the attempt cannot go on under the new lease", zap.Error(err))
			return nil
		}
		return err
	})
	if !taken || err != nil {
		return false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.requeued {
		a.requeues++
	}
	a.lease, a.requeued, a.confirmed = lease, false, lease.AcquiredAt
	a.log.Info("the master assigned the job here again while it runs; going on under the new lease", zap.Int("new_attempt", lease.Key().Attempt))
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
