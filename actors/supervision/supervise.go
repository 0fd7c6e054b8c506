package supervision

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// Child spawns a child of the actor whose turn it is and returns its Ref, which is Spec.Ref
// if that is set. It panics if the Spec is invalid or a running sibling has the name. An actor
// that is stopping or was abandoned gets no child: the returned Ref is left as it was.
func Child(ctx actor.Context, spec Spec) *Ref {
	i := incarnationOf(ctx)
	ref, err := i.sys.spawn(i, spec)
	switch {
	case err == nil:
		return ref
	case !errors.Is(err, errStopped):
		panic(err)
	case spec.Ref != nil:
		return spec.Ref
	}
	return NewRef()
}

// spawn starts a child below an incarnation.
func (s *System) spawn(supervisor *incarnation, spec Spec) (*Ref, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !supervisor.acceptsChildren() {
		return nil, fmt.Errorf("spawning %s: %w", spec.Name, errStopped)
	}
	path := spec.Name
	if supervisor != s.root {
		path = supervisor.ref.path + "/" + spec.Name
	}
	r := s.children[path]
	if r != nil && r.current != nil && !r.stopped {
		return nil, fmt.Errorf("spawning %s: %w", path, errNameTaken)
	}
	if spec.Ref != nil {
		r = spec.Ref
	} else if r == nil {
		r = NewRef()
	}
	if err := r.bind(s, supervisor.ref.path, spec.Name, path); err != nil {
		return nil, err
	}
	r.build, r.stopped, r.forget, r.onStopped = spec.New, false, false, nil
	r.mu.Lock()
	r.open = true
	r.mu.Unlock()
	if r.current == nil { // else replaceOrRemove starts it when the old incarnation has ended
		s.start(r, supervisor)
	}
	return r, nil
}

// start starts an incarnation, with a process id that was not used before. It is called with mu held.
func (s *System) start(r *Ref, supervisor *incarnation) {
	i := newIncarnation(s, r, supervisor)
	supervisor.children[i] = struct{}{}
	s.incarnations[i] = struct{}{}
	s.started++
	r.startedAt = time.Now()
	props := actor.PropsFromProducer(func() actor.Actor { return i }, actor.WithMailbox(func() actor.Mailbox { return i }))
	if _, err := s.actors.Root.SpawnNamed(props, fmt.Sprintf("%s~%d", r.path, s.started)); err != nil {
		panic(err) // the process id is in use
	}
	r.mu.Lock()
	r.current = i
	i.wake()
	r.mu.Unlock()
}

// replaceOrRemove removes an incarnation that has ended or is abandoned and has no children left. The next
// incarnation replaces it unless it was stopped or its supervisor is ending. It is called with mu held.
func (s *System) replaceOrRemove(i *incarnation) {
	r, supervisor := i.ref, i.supervisor
	if _, attached := supervisor.children[i]; !attached || len(i.children) > 0 || i.phase != ended && !i.abandoned {
		return
	}
	delete(supervisor.children, i)
	if !r.stopped && supervisor.acceptsChildren() {
		if !i.stopped && !i.abandoned {
			r.stats.Restarts++
		}
		s.start(r, supervisor)
		return
	}
	r.close()
	r.mu.Lock()
	r.current = nil
	r.mu.Unlock()
	if r.forget && s.children[r.path] == r {
		s.forget(r.path)
	}
	if r.onStopped != nil {
		r.onStopped()
	}
	switch {
	case supervisor.abandoned:
		s.replaceOrRemove(supervisor)
	case supervisor.phase == ending && supervisor != s.root:
		supervisor.post(childEnded{})
	}
}

// dropEnded removes an ended incarnation once none of its goroutines runs. It is called with mu held.
func (s *System) dropEnded(i *incarnation) {
	if i.phase != ended || i.goroutines > 0 {
		return
	}
	delete(s.incarnations, i)
	close(s.changed)
	s.changed = make(chan struct{})
}

// prune removes the children of earlier incarnations that the actor has not spawned again while handling Started.
func (s *System) prune(i *incarnation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i.abandoned {
		return
	}
	for path, r := range s.children {
		if r.stats.Parent == i.ref.path && r.current == nil {
			s.forget(path)
		}
	}
}

// forget removes a child and its descendants from Stats. It is called with mu held.
func (s *System) forget(path string) {
	for p := range s.children {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(s.children, p)
		}
	}
}

// abandon gives up an incarnation whose turn does not return. Its supervisor no longer waits for it, and what it
// owns is cancelled; it is replaced when its children have ended or are abandoned, too. It returns false if the
// incarnation had already ended or was abandoned.
func (s *System) abandon(i *incarnation) bool {
	s.mu.Lock()
	if i.phase == ended || i.abandoned {
		s.mu.Unlock()
		return false
	}
	i.ref.mu.Lock()
	i.abandoned = true
	i.ref.mu.Unlock()
	i.ref.stats.Abandoned++
	s.mu.Unlock()
	i.cancelOwned()
	i.post(end{}) // handled if the turn returns

	s.mu.Lock()
	defer s.mu.Unlock()
	i.stopChildren()
	s.replaceOrRemove(i)
	return true
}
