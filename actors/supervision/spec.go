package supervision

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// Spec describes an actor to spawn.
type Spec struct {
	// Name is the actor's element of its path, unique among its running siblings.
	// It holds neither "/" nor "~".
	Name string
	// New makes the state of an incarnation, afresh each time. It does no work that
	// could fail: that belongs into the handling of *actor.Started.
	New func() actor.Actor
	// Temporary actors end when they crash; their parent then gets *ChildFailed.
	// They are for names that come and go: no trace of them is kept.
	Temporary bool
	// Ref is bound to the actor, where it is given.
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

// Child spawns a child of the actor whose turn it is and returns its Ref, which is
// Spec.Ref where given. An invalid Spec or the name of a sibling that runs is a
// panic. An actor that is stopping, or that hung and was replaced meanwhile, gets no child: the
// Ref stays as it was.
func Child(ctx actor.Context, spec Spec) *Ref {
	parent := cellOf(ctx)
	if parent.current() {
		ref, err := parent.sys.spawn(parent, spec)
		if err == nil {
			return ref
		}
		if !errors.Is(err, ErrStopped) {
			panic(err)
		}
	}
	if spec.Ref != nil {
		return spec.Ref
	}
	return NewRef()
}

// role is a place in the tree, by its path. It outlives the cells that play it. The
// roles of Temporary actors go with them.
type role struct {
	sys    *System
	name   string
	path   string
	parent string               // path
	cell   atomic.Pointer[cell] // who plays it; nil when stopped
	drops  atomic.Int64
	hushed bool // the parent's actor hears nothing of its end; owned by the parent's turn

	// The rest is guarded by System.mu.
	spec              Spec
	ref               *Ref
	stopped           bool // somebody asked for its end
	pacer             pacer
	restarts          int
	abandoned         int
	failures          int
	goroutineFailures int
	lastFailure       string
	lastFailureAt     time.Time
}

func (r *role) stop() {
	r.sys.mu.Lock()
	r.stopped = true
	c := r.cell.Load()
	r.sys.mu.Unlock()
	if c != nil {
		c.mailbox.PostSystemMessage(&actor.Stop{})
	}
}

// cast returns the role for a spec below parent (nil for a root), free to be played.
// It is called with mu held.
func (s *System) cast(parent *cell, spec Spec) (*role, error) {
	path, above := spec.Name, ""
	if parent != nil {
		above = parent.role.path
		path = above + "/" + spec.Name
	}
	r := s.roles[path]
	if r != nil {
		if c := r.cell.Load(); c != nil && c.current() {
			return nil, fmt.Errorf("spawning %s: %w", path, ErrNameTaken)
		}
	}
	if r == nil || r.spec.Temporary || spec.Temporary {
		r = &role{sys: s, name: spec.Name, path: path, parent: above, pacer: pacer{policy: s.cfg.Backoff}}
		s.roles[path] = r
	}
	r.spec, r.stopped, r.hushed = spec, false, false
	switch {
	case spec.Ref != nil:
		r.ref = spec.Ref
	case r.ref == nil:
		r.ref = NewRef()
	}
	return r, nil
}

// spawn starts an actor below parent, in the parent's turn; nil for a root.
func (s *System) spawn(parent *cell, spec Spec) (*Ref, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.barred(parent) {
		s.mu.Unlock()
		return nil, fmt.Errorf("spawning %s: %w", spec.Name, ErrStopped)
	}
	r, err := s.cast(parent, spec)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	c := s.enter(r, parent)
	s.mu.Unlock()
	if err := s.launch(c); err != nil {
		return nil, err
	}
	return c.ref, nil
}

// barred reports whether nothing may be spawned below parent any more. It is called with mu held.
func (s *System) barred(parent *cell) bool {
	return parent == nil && s.stopping || parent != nil && parent.abandoned.Load()
}

// enter gives a role to a new cell. It is called with mu held, before the actor runs.
// No process id is used twice: what is still on its way about an old
// process must not be taken for news of another.
func (s *System) enter(r *role, parent *cell) *cell {
	c := newCell(r, parent, fmt.Sprintf("%s~%d", r.name, tokens.Add(1)))
	if parent != nil {
		parent.children[c.id] = c
	}
	s.cells[c] = struct{}{}
	r.cell.Store(c)
	r.ref.role.Store(r)
	return c
}

// launch starts the actor of a cell, in the parent's turn.
func (s *System) launch(c *cell) error {
	spawn := s.actors.Root.SpawnNamed
	if c.parent != nil {
		spawn = c.parent.ctx.SpawnNamed
	}
	if _, err := spawn(c.props(), c.process); err != nil {
		s.leave(c)
		return fmt.Errorf("spawning %s: %w", c.role.path, err)
	}
	return nil
}
