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
	// Name is the last element of the actor's path, unique among its running siblings.
	// It must not contain "/" or "~".
	Name string
	// New returns a new instance for each incarnation. It is called in the actor's first turn. Work that can
	// fail belongs in the handling of *actor.Started.
	New func() actor.Actor
	// Ref is bound to the actor; optional. A Ref cannot be bound to another path later.
	Ref *Ref
}

func (s Spec) check() error {
	if s.Name == "" || strings.ContainsAny(s.Name, "/~") {
		return fmt.Errorf("actor name %q: must not be empty or contain / or ~", s.Name)
	}
	if s.New == nil {
		return errors.New("Spec.New is missing")
	}
	return nil
}

// Ref addresses a child by its path: messages go to its current incarnation. It outlives crashes and hangs of
// the actor, and a restart of a supervisor that spawns it again. It is safe for concurrent use.
type Ref struct {
	mu      sync.Mutex
	sys     *System // nil while the Ref is unbound
	name    string
	path    string
	open    bool         // messages are queued
	queue   []any        // waiting messages; kept across incarnations
	current *incarnation // writes also require System.mu
	dropped int

	// Guarded by System.mu.
	build     func() actor.Actor
	stopped   bool   // the current incarnation is the last one
	forget    bool   // remove it once it has stopped
	onStopped func() // set by StopInOrder
	backoff   *backoff.ExponentialBackOff
	startedAt time.Time
	stats     ActorStats
}

// NewRef returns an unbound Ref. Spawning a Spec binds its Ref, so siblings can hold each other's Refs before
// they run.
func NewRef() *Ref { return &Ref{} }

// bind binds a Ref to a path. It is called with System.mu held.
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

// close drops the queued and all later messages.
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

// Stop stops the actor after the message that it is handling; queued messages are dropped. The actor is not
// restarted, and its counters are removed. Its supervisor may spawn it again at once: the new incarnation
// starts when the old one has ended.
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

// incarnation returns the current incarnation, nil if there is none.
func (r *Ref) incarnation() *incarnation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// Backoff of a crashed actor.
const (
	minRestartWait = 50 * time.Millisecond // upper limit after the first crash
	maxRestartWait = 30 * time.Second
	healthyAfter   = time.Minute // time without a crash that resets the backoff
)

// newBackoff returns the backoff of one actor. Jitter shortens each wait by up to a third, so that actors
// that crash for the same reason restart at different times. The intervals are scaled because the library
// applies jitter in both directions.
func newBackoff() *backoff.ExponentialBackOff {
	const jitter = 0.2
	return &backoff.ExponentialBackOff{
		InitialInterval:     minRestartWait * 10 / 12,
		MaxInterval:         maxRestartWait * 10 / 12,
		Multiplier:          2,
		RandomizationFactor: jitter,
	}
}

// restartWait returns the backoff of an actor that has just crashed. It is called with System.mu held.
func (r *Ref) restartWait(now time.Time) time.Duration {
	if now.Sub(r.startedAt) >= healthyAfter {
		r.backoff.Reset()
	}
	return min(r.backoff.NextBackOff(), maxRestartWait)
}
