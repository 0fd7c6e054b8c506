package chaos

import (
	"context"
	"sync"
	"time"
)

// recorder collects facts from many goroutines.
type recorder struct {
	mu      sync.Mutex
	h       History
	changed chan struct{}
}

func newRecorder(interval time.Duration) *recorder {
	return &recorder{h: History{HeartbeatInterval: interval, Jobs: map[string]*Job{}, RequestedOutputs: map[string]int{}}, changed: make(chan struct{})}
}

// update edits the history under its lock.
func (r *recorder) update(change func(*History)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.h)
}

// addExchange records an exchange and wakes those that wait for one.
func (r *recorder) addExchange(x Exchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Exchanges = append(r.h.Exchanges, x)
	close(r.changed)
	r.changed = make(chan struct{})
}

// awaitExchange returns the first exchange from a moment on that fits, or false at the context's end.
func (r *recorder) awaitExchange(ctx context.Context, from time.Time, match func(*Exchange) bool) (Exchange, bool) {
	r.mu.Lock()
	next := len(r.h.Exchanges)
	for next > 0 && r.h.Exchanges[next-1].To.After(from) {
		next--
	}
	r.mu.Unlock()
	for {
		r.mu.Lock()
		fresh := r.h.Exchanges[next:]
		changed := r.changed
		r.mu.Unlock()
		for i := range fresh {
			if match(&fresh[i]) {
				return fresh[i], true
			}
		}
		next += len(fresh)
		select {
		case <-ctx.Done():
			return Exchange{}, false
		case <-changed:
		}
	}
}
