package supervision

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// tokens numbers everything asynchronous, uniquely in the process, so that no
// answer is ever taken for another's.
var tokens atomic.Uint64

// scope is what one incarnation of an actor owns: its context, its work in
// progress, its timers and what is to be released. When it ends, all of it goes and
// whatever is still on its way is dropped on arrival.
type scope struct {
	cell   *cell
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	over     bool
	pending  map[uint64]func() // by token: how to let go of what is under way
	releases []func()
}

func newScope(c *cell) *scope {
	s := &scope{cell: c, pending: make(map[uint64]func())}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// turn is a private message: run is called in the actor's turn if its token is
// still pending there.
type turn struct {
	what  string
	token uint64
	run   func(actor.Context)
}

// add registers something under way under a new token. start is called with it and
// returns how to let go. false: the scope is over and nothing was started.
func (s *scope) add(start func(token uint64) (letGo func())) (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return 0, false
	}
	token := tokens.Add(1)
	s.pending[token] = start(token)
	return token, true
}

// take reports whether the token is pending, and makes it not so.
func (s *scope) take(token uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.pending[token]
	delete(s.pending, token)
	return ok
}

// drop lets go of what goes by the token.
func (s *scope) drop(token uint64) {
	s.mu.Lock()
	letGo := s.pending[token]
	delete(s.pending, token)
	s.mu.Unlock()
	if letGo != nil {
		letGo()
	}
}

// cut cancels the context and all that is pending. It calls no code of the actor
// and may come from any goroutine.
func (s *scope) cut() {
	s.mu.Lock()
	s.over = true
	pending := s.pending
	s.pending = nil
	s.mu.Unlock()
	s.cancel()
	for _, letGo := range pending {
		letGo()
	}
}

// end cuts the scope and calls the releases, the last one first.
func (s *scope) end() {
	s.cut()
	s.mu.Lock()
	releases := s.releases
	s.releases = nil
	s.mu.Unlock()
	for _, release := range slices.Backward(releases) {
		s.cell.contain("release", release)
	}
}

// Task is work started by Go.
type Task struct {
	scope *scope
	token uint64
}

// Go runs work on a goroutine that the present incarnation of the actor owns: its
// context is cancelled when the incarnation restarts or stops. When work has
// returned, then is called in the actor's turn with what it returned, unless the
// incarnation is gone or the task was cancelled. A panic in work is logged with its
// stack, counted, and reaches then as a *PanicError, as does a runtime.Goexit.
// A nil then ignores the outcome. Go is called in the actor's turn; where the
// incarnation is gone already it starts nothing.
func Go[T any](ctx actor.Context, work func(context.Context) (T, error), then func(actor.Context, T, error)) *Task {
	var (
		result T
		err    error
	)
	run := func(ctx context.Context) { result, err = work(ctx) }
	after := func(ctx actor.Context, p *PanicError) {
		if p != nil {
			err = p
		}
		if then != nil {
			then(ctx, result, err)
		}
	}
	return cellOf(ctx).goWork(run, after)
}

func (c *cell) goWork(work func(context.Context), then func(actor.Context, *PanicError)) *Task {
	s := c.scope.Load()
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(s.ctx)
	token, ok := s.add(func(uint64) func() { return cancel })
	if !ok {
		cancel()
		return nil
	}
	c.sys.goroutineBegins(c)
	go watched(func() { work(ctx) }, func(p *PanicError) {
		cancel()
		if p != nil {
			c.goroutineFailed(p)
		}
		c.mailbox.PostUserMessage(&turn{what: "result", token: token, run: func(ctx actor.Context) { then(ctx, p) }})
		c.sys.goroutineEnds(c)
	})
	return &Task{scope: s, token: token}
}

// Cancel cancels the context of the work. Called in the actor's turn it guarantees
// that then is not called any more. It may be repeated; a nil Task is none.
func (t *Task) Cancel() {
	if t != nil {
		t.scope.drop(t.token)
	}
}

// Timer is a call that After has put off.
type Timer struct {
	scope *scope
	token uint64
}

// After calls then once, in the actor's turn, when d has passed, unless the timer was
// stopped or the incarnation has ended. It is called in the actor's turn. A tick
// that then arms again cannot pile up, however busy the actor is.
func After(ctx actor.Context, d time.Duration, then func(actor.Context)) *Timer {
	c := cellOf(ctx)
	s := c.scope.Load()
	if s == nil {
		return nil
	}
	token, ok := s.add(func(token uint64) func() {
		timer := time.AfterFunc(d, func() {
			c.mailbox.PostUserMessage(&turn{what: "timer", token: token, run: then})
		})
		return func() { timer.Stop() }
	})
	if !ok {
		return nil
	}
	return &Timer{scope: s, token: token}
}

// Stop stops the timer. Called in the actor's turn it guarantees that then is not
// called any more. It may be repeated; a nil Timer is none.
func (t *Timer) Stop() {
	if t != nil {
		t.scope.drop(t.token)
	}
}

// Poster returns a function by which any goroutine has a function called in the
// actor's turn. What is posted is dropped once the present incarnation has ended.
func Poster(ctx actor.Context) func(func(actor.Context)) {
	c := cellOf(ctx)
	s := c.scope.Load()
	return func(run func(actor.Context)) {
		if s == nil {
			return
		}
		token, ok := s.add(func(uint64) func() { return func() {} })
		if ok {
			c.mailbox.PostUserMessage(&turn{what: "post", token: token, run: run})
		}
	}
}

// OnRelease has release called when the present incarnation has ended, after the
// actor handled Restarting or Stopping; what was registered last is called first. A panic in it is
// contained. Where the incarnation has ended already, release is called at once.
func OnRelease(ctx actor.Context, release func()) {
	c := cellOf(ctx)
	s := c.scope.Load()
	if s != nil && s.keep(release) {
		return
	}
	c.contain("release", release)
}

func (s *scope) keep(release func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A cut scope whose actor is still in its turn has its end before it.
	if s.over && !s.cell.abandoned.Load() {
		return false
	}
	s.releases = append(s.releases, release)
	return true
}
