package actors

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages/job"
)

// attempts is the registry of the attempts under way. It is made once and outlives
// every incarnation of every actor, so that a restarted jobs goes on with what runs.
type attempts struct {
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu  sync.Mutex
	all []*attempt // in order of their start; with those that ended until jobs has removed them
}

func newAttempts() *attempts {
	r := &attempts{}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// begin starts an attempt, or returns the one under way for this key.
func (r *attempts) begin(s *shared, lease job.Lease) *attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.findLocked(lease.Key()); a != nil {
		return a
	}
	a := newAttempt(s, lease)
	r.all = append(r.all, a)
	r.running.Go(func() { a.supervise(r.ctx) })
	return a
}

func (r *attempts) find(key job.Key) *attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.findLocked(key)
}

// earlier returns the attempt under way at the same job that answers for an earlier lease.
func (r *attempts) earlier(key job.Key) *attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.all {
		if current := a.currentKey(); current.JobID == key.JobID && current.Attempt < key.Attempt && !a.ended() {
			return a
		}
	}
	return nil
}

func (r *attempts) findLocked(key job.Key) *attempt {
	for _, a := range r.all {
		if a.key == key || a.currentKey() == key {
			return a
		}
	}
	return nil
}

// list returns the attempts under way, in order of their start.
func (r *attempts) list() []*attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

func (r *attempts) remove(a *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = slices.DeleteFunc(r.all, func(b *attempt) bool { return a == b })
}

// close stops all attempts without recording a result and waits for their goroutines.
func (r *attempts) close(ctx context.Context) error {
	r.cancel()
	ended := make(chan struct{})
	go func() { r.running.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stopping the jobs: %w", ctx.Err())
	}
}

// request sends a request to an actor and returns the function that waits for its reply:
// false where none came within a deadline, for the actor may have crashed with it.
func request[T any](to *supervision.Ref, within time.Duration, message func(reply func(T)) any) func() (T, bool) {
	replies := make(chan T, 1)
	deadline := time.Now().Add(within)
	to.Tell(message(func(reply T) { replies <- reply }))
	return func() (reply T, ok bool) {
		select {
		case reply = <-replies:
			return reply, true
		default: // a reply that is there counts though the deadline has passed
		}
		select {
		case reply = <-replies:
			return reply, true
		case <-time.After(time.Until(deadline)):
			return reply, false
		}
	}
}
