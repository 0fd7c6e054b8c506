package supervision

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// StopStep stops one child.
type StopStep struct {
	Child *Ref
	// Prepare, if not nil, is called first, in the supervisor's turn. It may ask the child to finish its work.
	// The child is stopped when ready is called, from any goroutine.
	Prepare func(ready func())
	// Deadline of the whole step; 0 for none.
	Deadline time.Duration
}

// The phases of a StopStep.
const (
	phasePrepare = "prepare"
	phaseStop    = "stop"
)

// StopReport is the outcome of a StopStep.
type StopReport struct {
	Name     string // of the child; "" if its Ref was never bound
	Took     time.Duration
	TimedOut bool   // the deadline passed before the child ended
	Phase    string // last phase: "prepare" or "stop"
}

// StopInOrder stops children of the actor one after another: the next step begins when the
// child of the current one has ended, or its deadline has passed. A child that was not ready in
// time is stopped without waiting for it; one that did not stop in time is abandoned. After the
// last step, done is called in the actor's turn. Stats still includes the children, as stopped.
// If the actor restarts meanwhile, done is not called. In an actor that is already stopping,
// StopInOrder does nothing: all children are being stopped.
//
// The returned function may be called in the actor's turn. While the current step is being
// prepared, it ends the stopping: done is not called, and what Prepare asked of the child is for
// the caller to undo. Otherwise ok is false. stopped is how many children have been stopped.
func StopInOrder(ctx actor.Context, steps []StopStep, done func(actor.Context, []StopReport)) (cancel func() (stopped int, ok bool)) {
	i := incarnationOf(ctx)
	i.sys.mu.Lock()
	proceed := i.acceptsChildren()
	i.sys.mu.Unlock()
	if proceed {
		s := &stopper{supervisor: i, steps: steps, done: done, post: Poster(ctx)}
		s.next(ctx)
		return s.cancel
	}
	return func() (int, bool) { return 0, false }
}

func (s *stopper) cancel() (stopped int, ok bool) {
	if s.canceled || len(s.reports) == len(s.steps) || s.phase != phasePrepare {
		return len(s.reports), false
	}
	s.canceled = true
	s.timer.Stop()
	s.supervisor.onStopped(s.child, nil)
	return len(s.reports), true
}

// stopper runs the steps of a StopInOrder in the supervisor's turn.
type stopper struct {
	supervisor *incarnation
	steps      []StopStep
	done       func(actor.Context, []StopReport)
	post       func(func(actor.Context))
	reports    []StopReport
	canceled   bool

	// The current step.
	child *Ref
	phase string
	began time.Time
	timer *Timer
}

// next begins the next step whose child is running.
func (s *stopper) next(ctx actor.Context) {
	for len(s.reports) < len(s.steps) {
		step := s.steps[len(s.reports)]
		s.child, s.phase, s.began = step.Child, phasePrepare, time.Now()
		if s.supervisor.onStopped(s.child, s.inStep(func(ctx actor.Context) { s.ended(ctx, false) })) {
			s.begin(ctx, step)
			return
		}
		s.reports = append(s.reports, StopReport{Name: s.child.Name(), Phase: phaseStop})
	}
	s.done(ctx, s.reports)
}

func (s *stopper) begin(ctx actor.Context, step StopStep) {
	s.timer = nil
	if step.Deadline > 0 {
		s.timer = After(ctx, step.Deadline, s.timedOut)
	}
	if step.Prepare == nil {
		s.stop(ctx)
		return
	}
	step.Prepare(s.inStep(s.stop))
}

// inStep returns a function that any goroutine may call to run f in the supervisor's turn, unless the current
// step is over by then.
func (s *stopper) inStep(f func(actor.Context)) func() {
	number := len(s.reports)
	return func() {
		s.post(func(ctx actor.Context) {
			if len(s.reports) == number && !s.canceled {
				f(ctx)
			}
		})
	}
}

func (s *stopper) stop(actor.Context) {
	s.phase = phaseStop
	s.child.stop(false)
}

func (s *stopper) timedOut(ctx actor.Context) {
	if s.phase == phasePrepare {
		s.child.stop(false)
	} else if i := s.child.incarnation(); i != nil && s.supervisor.sys.abandon(i) {
		defer s.supervisor.sys.logAbandoned(i, "did not stop in time")
	}
	s.ended(ctx, true)
}

func (s *stopper) ended(ctx actor.Context, timedOut bool) {
	s.timer.Stop()
	s.reports = append(s.reports, StopReport{
		Name:     s.child.Name(),
		Took:     time.Since(s.began),
		TimedOut: timedOut,
		Phase:    s.phase,
	})
	s.next(ctx)
}

// onStopped registers f to be called when a child has stopped. f must not block. It returns false if the child is
// not running.
func (i *incarnation) onStopped(r *Ref, f func()) bool {
	i.sys.mu.Lock()
	defer i.sys.mu.Unlock()
	if child := r.incarnation(); child == nil || child.supervisor != i {
		return false
	}
	r.onStopped = f
	return true
}
