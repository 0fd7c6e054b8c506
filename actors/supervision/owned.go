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

// turn is the message by which run is called in the actor's turn, if its owner runs and it was not cancelled.
type turn struct {
	*pending
	run func(actor.Context)
}

// add makes p owned. false: the owner is ending, and nothing may be started.
func (i *incarnation) add(p *pending) bool {
	i.ref.mu.Lock()
	defer i.ref.mu.Unlock()
	if !i.cutOff {
		i.pending[p] = struct{}{}
	}
	return !i.cutOff
}

// take reports whether i owns p, and ends that.
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
func (i *incarnation) cut() {
	i.ref.mu.Lock()
	i.cutOff = true
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

// Go runs work on a goroutine that the present incarnation of the actor owns: its
// context is cancelled when the incarnation restarts, stops or is abandoned. When work has
// returned, then is called in the actor's turn with what it returned, unless the
// incarnation has ended or the task was cancelled. A panic in work is logged with its
// stack, counted, and reaches then as an error, as does a runtime.Goexit.
// A nil then ignores the outcome. Go is called in the actor's turn; if the
// incarnation has ended already it starts nothing.
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

// Cancel cancels the context of the work. Called in the actor's turn it guarantees
// that then is not called any more. It may be repeated; a nil Task is none.
func (t *Task) Cancel() { (*pending)(t).drop() }

// Timer is a call put off by After.
type Timer pending

// After calls then once, in the actor's turn, when d has passed, unless the timer was
// stopped or the incarnation has ended. It is called in the actor's turn. A tick
// that then arms again cannot pile up, however busy the actor is.
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

// Stop stops the timer. Called in the actor's turn it guarantees that then is not
// called any more. It may be repeated; a nil Timer is none.
func (t *Timer) Stop() { (*pending)(t).drop() }

// Poster returns a function by which any goroutine has a function called in the
// actor's turn. What is posted is dropped once the present incarnation has ended.
func Poster(ctx actor.Context) func(func(actor.Context)) {
	i := incarnationOf(ctx)
	return func(run func(actor.Context)) {
		p := &pending{owner: i, what: "post", cancel: func() {}}
		if i.add(p) {
			i.ref.Tell(turn{p, run})
		}
	}
}

// goroutine counts goroutines that start or end.
func (i *incarnation) goroutine(change int) {
	i.sys.mu.Lock()
	i.goroutines += change
	i.sys.settle(i)
	i.sys.mu.Unlock()
}
