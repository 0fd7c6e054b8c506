package supervision

import (
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// StopStep is the stop of one child.
type StopStep struct {
	Child *Ref
	// Prepare, where given, is called first, in the parent's turn: it may tell the
	// child to finish what it has begun. The child is stopped when ready is called, by any goroutine.
	Prepare func(ready func())
	// Deadline bounds the whole step; 0 for no bound.
	Deadline time.Duration
}

// The phases of a StopStep.
const (
	PhasePrepare = "prepare"
	PhaseStop    = "stop"
)

// StopReport is how a StopStep went.
type StopReport struct {
	Name     string // of the child; "" where its Ref was never bound
	Took     time.Duration
	TimedOut bool   // the deadline passed before the child ended
	Phase    string // in which the step ended: PhasePrepare or PhaseStop
}

// StopInOrder stops children of the actor one after another: the next step begins
// when the child of the present one has ended, or its deadline has passed. A child
// that did not get ready in time is told to stop and not waited for; one that did
// not stop in time is abandoned, so that nothing later waits for it. In the end done is called in
// the actor's turn. The actor gets no *actor.Terminated for these children. If it
// restarts meanwhile, done is not called. An actor that is stopping itself already
// stops all its children at once: there it does nothing.
func StopInOrder(ctx actor.Context, steps []StopStep, done func(actor.Context, []StopReport)) {
	s := &stopper{parent: cellOf(ctx), steps: steps, done: done}
	if s.parent.alive() {
		s.next(ctx)
	}
}

// stopper works off the steps of a StopInOrder, in the parent's turn.
type stopper struct {
	parent  *cell
	steps   []StopStep
	done    func(actor.Context, []StopReport)
	reports []StopReport

	// The step under way.
	child *cell
	phase string
	began time.Time
	timer *Timer
}

func (s *stopper) next(ctx actor.Context) {
	for len(s.reports) < len(s.steps) {
		if s.begin(ctx, s.steps[len(s.reports)]) {
			return
		}
		s.reports = append(s.reports, StopReport{Name: s.steps[len(s.reports)].Child.Name(), Phase: PhaseStop})
	}
	s.done(ctx, s.reports)
}

// begin begins a step; false where there is nothing to stop.
func (s *stopper) begin(ctx actor.Context, step StopStep) bool {
	s.child = s.parent.sys.childOf(s.parent, step.Child)
	if s.child == nil {
		return false
	}
	s.began, s.phase, s.timer = time.Now(), PhasePrepare, nil
	number := len(s.reports)
	s.await(s.child.role)
	if step.Deadline > 0 {
		s.timer = After(ctx, step.Deadline, s.timedOut)
	}
	if step.Prepare == nil {
		s.stop()
		return true
	}
	post := Poster(ctx)
	step.Prepare(sync.OnceFunc(func() {
		post(func(actor.Context) {
			if len(s.reports) == number {
				s.stop()
			}
		})
	}))
	return true
}

func (s *stopper) await(r *role) {
	if s.parent.awaited == nil {
		s.parent.awaited = make(map[*role]func(actor.Context))
	}
	r.hushed = true
	s.parent.awaited[r] = func(ctx actor.Context) { s.ended(ctx, false) }
}

func (s *stopper) stop() {
	s.phase = PhaseStop
	s.child.role.stop()
}

func (s *stopper) timedOut(ctx actor.Context) {
	delete(s.parent.awaited, s.child.role)
	s.child.role.stop()
	if s.phase == PhaseStop {
		s.parent.sys.abandonRole(s.child.role, "it did not stop in time")
	}
	s.ended(ctx, true)
}

func (s *stopper) ended(ctx actor.Context, timedOut bool) {
	s.timer.Stop()
	s.reports = append(s.reports, StopReport{
		Name:     s.child.role.name,
		Took:     time.Since(s.began),
		TimedOut: timedOut,
		Phase:    s.phase,
	})
	s.next(ctx)
}

// childOf returns the cell behind a Ref if it is a child of parent that has not ended.
func (s *System) childOf(parent *cell, ref *Ref) *cell {
	r := ref.role.Load()
	if r == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := r.cell.Load()
	if c == nil || c.parent != parent || parent.children[c.id] == nil {
		return nil
	}
	return c
}

// abandonRole abandons whoever plays a role.
func (s *System) abandonRole(r *role, why string) {
	if c := r.cell.Load(); c != nil {
		s.abandon(c, why)
	}
}
