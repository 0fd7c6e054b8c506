package supervision

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/cenkalti/backoff/v5"
)

// Spec describes an actor to spawn.
type Spec struct {
	// Name is the actor's element of its path, unique among its running siblings.
	// It holds neither "/" nor "~".
	Name string
	// New makes the state of an incarnation, afresh each time. It is called in the actor's first turn and
	// does no work that could fail: that belongs into the handling of *actor.Started.
	New func() actor.Actor
	// Ref is bound to the actor, if it is given. A Ref stays with the first path it is bound to.
	Ref *Ref
}

func (s Spec) check() error {
	if s.Name == "" || strings.ContainsAny(s.Name, "/~") {
		return fmt.Errorf("actor name %q: must be given, without / and ~", s.Name)
	}
	if s.New == nil {
		return errors.New("Spec.New is missing")
	}
	return nil
}

// Ref addresses a child by its place in the tree: messages go to the incarnation that runs there at the
// time. It outlives crashes and hangs of the actor, and a restart of its supervisor that spawns it again.
// It is safe for concurrent use.
type Ref struct {
	mu      sync.Mutex
	sys     *System // nil while the Ref is unbound
	name    string
	path    string
	open    bool         // messages are queued
	queue   []any        // messages to come; it outlives incarnations
	current *incarnation // also written only with System.mu held
	dropped int

	// Guarded by System.mu.
	build     func() actor.Actor
	stopped   bool   // no incarnation follows the current one
	forget    bool   // no trace is kept once it has stopped
	onStopped func() // of StopInOrder
	backoff   *backoff.ExponentialBackOff
	startedAt time.Time
	stats     ActorStats // the counters
}

// NewRef returns an unbound Ref. It is bound when a Spec with it is spawned, so siblings can hold each
// other's Refs before they run.
func NewRef() *Ref { return &Ref{} }

// bind gives a Ref its place. It is called with System.mu held.
func (r *Ref) bind(s *System, supervisor, name, path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sys != nil && (r.sys != s || r.path != path) {
		return fmt.Errorf("spawning %s: its Ref is bound to %s", path, r.path)
	}
	if r.sys == nil {
		r.sys, r.name, r.path = s, name, path
		r.backoff = newBackoff()
		r.stats = ActorStats{Path: path, Parent: supervisor}
	}
	s.children[path] = r
	return nil
}

// Tell queues a message for the actor and returns at once. A message to an unbound Ref or a stopped actor
// is dropped.
func (r *Ref) Tell(msg any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.open {
		r.drop(msg)
		return
	}
	r.queue = append(r.queue, msg)
	if r.current != nil {
		r.current.wake()
	}
}

// drop counts a message that is not handled. It is called with r.mu held.
func (r *Ref) drop(msg any) {
	if _, internal := msg.(turn); !internal {
		r.dropped++
	}
}

// close drops the messages in the queue and those to come.
func (r *Ref) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = false
	for _, msg := range r.queue {
		r.drop(msg)
	}
	r.queue = nil
}

// Name returns the actor's name, "" while the Ref is unbound.
func (r *Ref) Name() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.name
}

// Stop stops the actor after the message it is handling; queued messages are dropped. The actor is neither
// restarted nor replaced, and its name and counters are forgotten. Its supervisor may spawn it again, at
// once: the fresh incarnation starts when the old one has ended.
func (r *Ref) Stop() { r.stop(true) }

func (r *Ref) stop(forget bool) {
	r.mu.Lock()
	s := r.sys
	r.mu.Unlock()
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.stopped, r.forget = true, forget
	r.close()
	if r.current != nil {
		r.current.stop()
	}
}

// incarnation returns the one that runs, nil if none does.
func (r *Ref) incarnation() *incarnation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// Waits of a crashed actor for its restart.
const (
	minRestartWait = 50 * time.Millisecond // at most, after the first crash
	maxRestartWait = 30 * time.Second
	healthyAfter   = time.Minute // without a crash the waits begin anew
)

// newBackoff returns the waits of one actor. Jitter shortens each by up to a third, so that actors
// that crashed for one reason do not restart in step; the library adds it to both sides of its intervals.
func newBackoff() *backoff.ExponentialBackOff {
	const jitter = 0.2
	return &backoff.ExponentialBackOff{
		InitialInterval:     minRestartWait * 10 / 12,
		MaxInterval:         maxRestartWait * 10 / 12,
		Multiplier:          2,
		RandomizationFactor: jitter,
	}
}

// restartWait returns how long an actor that has just crashed waits for its restart. It is called with
// System.mu held.
func (r *Ref) restartWait(now time.Time) time.Duration {
	if now.Sub(r.startedAt) >= healthyAfter {
		r.backoff.Reset()
	}
	return min(r.backoff.NextBackOff(), maxRestartWait)
}
