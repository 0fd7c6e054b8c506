package supervision

import (
	"context"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// pending is work, a timer or a posted function that an incarnation owns.
type pending struct {
	owner  *incarnation
	what   string
	cancel func()
}

// turn is a message that calls run in the actor's turn, unless it was cancelled or its owner has ended.
type turn struct {
	*pending
	run func(actor.Context)
}

// add registers p with its owner. It returns false if the owner is ending: nothing may be started.
func (i *incarnation) add(p *pending) bool {
	i.ref.mu.Lock()
	defer i.ref.mu.Unlock()
	if !i.closed {
		i.pending[p] = struct{}{}
	}
	return !i.closed
}

// take removes p from what i owns, and reports whether i owned it.
func (p *pending) take(i *incarnation) bool {
	i.ref.mu.Lock()
	defer i.ref.mu.Unlock()
	_, ok := i.pending[p]
	delete(i.pending, p)
	return ok
}

func (p *pending) drop() {
	if p != nil && p.take(p.owner) {
		p.cancel()
	}
}

// cut cancels all that the incarnation owns. It calls no code of the actor and may be called from any
// goroutine.
func (i *incarnation) cancelOwned() {
	i.ref.mu.Lock()
	i.closed = true
	pending := i.pending
	i.pending = nil
	i.ref.mu.Unlock()
	i.cancel()
	for p := range pending {
		p.cancel()
	}
}

// Task is work started by Go.
type Task pending

// Go runs work on a goroutine owned by the current incarnation of the actor: its context is
// cancelled when the incarnation restarts, stops or is abandoned. When work has returned, then
// is called in the actor's turn with the result, unless the incarnation has ended or the task
// was cancelled. A panic or runtime.Goexit in work is logged with its stack, counted, and
// passed to then as an error. then may be nil. Go must be called in the actor's turn. If the
// incarnation has already ended, Go starts nothing and returns nil.
func Go[T any](ctx actor.Context, work func(context.Context) (T, error), then func(actor.Context, T, error)) *Task {
	var (
		result T
		err    error
	)
	i := incarnationOf(ctx)
	c, cancel := context.WithCancel(i.ctx)
	p := &pending{owner: i, what: "result", cancel: cancel}
	if !i.add(p) {
		cancel()
		return nil
	}
	i.goroutine(+1)
	go guard(func() { result, err = work(c) }, func(panicked *panicError) {
		cancel()
		if panicked != nil {
			err = panicked
			i.report("goroutine", panicked)
		}
		i.ref.Tell(turn{p, func(ctx actor.Context) {
			if then != nil {
				then(ctx, result, err)
			}
		}})
		i.goroutine(-1)
	})
	return (*Task)(p)
}

// Cancel cancels the context of the work. After a call in the actor's turn, then is not
// called. Cancel may be repeated, and may be called on nil.
func (t *Task) Cancel() { (*pending)(t).drop() }

// Timer is a call scheduled by After.
type Timer pending

// After calls then once in the actor's turn after d, unless the timer was stopped or the
// incarnation has ended. After must be called in the actor's turn. Calling it again in then
// makes a ticker whose ticks cannot pile up in a busy actor's queue.
func After(ctx actor.Context, d time.Duration, then func(actor.Context)) *Timer {
	i := incarnationOf(ctx)
	p := &pending{owner: i, what: "timer"}
	timer := time.AfterFunc(d, func() { i.ref.Tell(turn{p, then}) })
	p.cancel = func() { timer.Stop() }
	if !i.add(p) {
		timer.Stop()
		return nil
	}
	return (*Timer)(p)
}

// Stop stops the timer. After a call in the actor's turn, then is not called. Stop may be
// repeated, and may be called on nil.
func (t *Timer) Stop() { (*pending)(t).drop() }

// Poster returns a function that any goroutine may call to run a function in the actor's
// turn. Posts are dropped once the current incarnation has ended.
func Poster(ctx actor.Context) func(func(actor.Context)) {
	i := incarnationOf(ctx)
	return func(run func(actor.Context)) {
		p := &pending{owner: i, what: "post", cancel: func() {}}
		if i.add(p) {
			i.ref.Tell(turn{p, run})
		}
	}
}

// goroutine counts a goroutine that starts (+1) or ends (-1).
func (i *incarnation) goroutine(change int) {
	i.sys.mu.Lock()
	i.goroutines += change
	i.sys.dropEnded(i)
	i.sys.mu.Unlock()
}
