package supervision

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"
)

// phase of an incarnation.
type phase int

const (
	running phase = iota
	crashed       // waiting for its restart; its children keep running
	ending        // Restarting or Stopping was sent; its children are stopping
	ended         // no code of it runs except goroutines of Go
)

// incarnation is one instance of an actor, made by Spec.New, and the protoactor process that runs it.
//
// It is the process's mailbox: the queue stays with the Ref when the process ends, and after a panic or
// runtime.Goexit in a turn the stack is logged and later messages are handled. It is also the process's actor and
// forwards messages to the instance.
type incarnation struct {
	sys        *System
	ref        *Ref
	supervisor *incarnation
	build      func() actor.Actor
	ctx        context.Context // parent of its goroutines' contexts
	cancel     context.CancelFunc
	process    process

	// Owned by the actor's turn.
	instance     actor.Actor
	sentStopping bool
	restart      *time.Timer

	// Guarded by ref.mu.
	system  []any // system messages, handled before user messages
	busy    bool  // a goroutine handles messages
	closed  bool  // no more goroutines, timers or posts
	pending map[*pending]struct{}

	// Guarded by System.mu.
	phase      phase // written in the actor's turn only
	stopped    bool  // ends without a restart
	abandoned  bool  // written with ref.mu held as well
	children   map[*incarnation]struct{}
	goroutines int

	probeSent atomic.Pointer[time.Time] // nil when the last probe was answered
	missed    int                       // sweeps without an answer; used by the prober only
}

var (
	_ actor.Actor   = (*incarnation)(nil)
	_ actor.Mailbox = (*incarnation)(nil)
)

// process is protoactor's side of an incarnation.
type process interface {
	actor.Context
	actor.MessageInvoker
}

// System messages of this package.
type (
	probe      struct{}
	end        struct{} // restart or stop now
	childEnded struct{}
)

func newIncarnation(s *System, r *Ref, supervisor *incarnation) *incarnation {
	i := &incarnation{
		sys: s, ref: r, supervisor: supervisor, build: r.build,
		children: make(map[*incarnation]struct{}),
		pending:  make(map[*pending]struct{}),
	}
	i.ctx, i.cancel = context.WithCancel(context.Background())
	return i
}

func incarnationOf(ctx actor.Context) *incarnation {
	i, ok := ctx.Actor().(*incarnation)
	if !ok {
		panic(fmt.Sprintf("actor %v was not spawned by this package", ctx.Self()))
	}
	return i
}

// supervises reports whether children may start below it. It is called with System.mu held.
func (i *incarnation) acceptsChildren() bool { return i.phase < ending && !i.abandoned }

// stopChildren is called with System.mu held.
func (i *incarnation) stopChildren() {
	for child := range i.children {
		child.stop()
	}
}

// stop asks the incarnation to stop. It is called with System.mu held.
func (i *incarnation) stop() {
	i.stopped = true
	i.post(end{})
}

// PostUserMessage implements actor.Mailbox.
func (i *incarnation) PostUserMessage(msg any) { i.ref.Tell(msg) }

// PostSystemMessage implements actor.Mailbox.
func (i *incarnation) PostSystemMessage(msg any) { i.post(msg) }

// RegisterHandlers implements actor.Mailbox.
func (i *incarnation) RegisterHandlers(invoker actor.MessageInvoker, _ actor.Dispatcher) {
	i.process = invoker.(process)
}

// Start implements actor.Mailbox.
func (i *incarnation) Start() {}

// UserMessageCount implements actor.Mailbox.
func (i *incarnation) UserMessageCount() int {
	i.ref.mu.Lock()
	defer i.ref.mu.Unlock()
	return len(i.ref.queue)
}

// post queues a system message.
func (i *incarnation) post(msg any) {
	i.ref.mu.Lock()
	defer i.ref.mu.Unlock()
	i.system = append(i.system, msg)
	i.wake()
}

// wake starts the handling of messages unless it is running. It is called with ref.mu held.
func (i *incarnation) wake() {
	if !i.busy {
		i.busy = true
		go i.run()
	}
}

// run handles messages until none is left. After a panic or Goexit it continues on a new goroutine.
func (i *incarnation) run() {
	var current any
	guard(func() {
		for {
			msg, isSystem, ok := i.next()
			if !ok {
				return
			}
			current = msg
			if isSystem {
				i.handleSystem(msg)
			} else {
				i.handleUser(msg)
			}
		}
	}, func(p *panicError) {
		if p != nil {
			i.failed(current, p)
			go i.run()
		}
	})
}

func (i *incarnation) next() (msg any, isSystem, ok bool) {
	r := i.ref
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(i.system) > 0:
		return pop(&i.system), true, true
	case i.phase == running && !i.abandoned && len(r.queue) > 0:
		return pop(&r.queue), false, true
	}
	i.busy = false
	return nil, false, false
}

func pop(queue *[]any) any {
	msg := (*queue)[0]
	(*queue)[0] = nil
	*queue = (*queue)[1:]
	return msg
}

func (i *incarnation) handleSystem(msg any) {
	switch msg.(type) {
	case *actor.Started:
		i.process.InvokeSystemMessage(msg)
		i.sys.prune(i)
	case probe:
		i.probeSent.Store(nil)
	case end:
		i.end()
	case childEnded:
		i.finish()
	case *actor.Stop: // of ctx.Stop
		i.ref.Stop()
	}
	// Other system messages of protoactor are ignored: they concern PIDs, and actors are addressed by Refs.
}

func (i *incarnation) handleUser(msg any) {
	switch m := msg.(type) {
	case turn:
		if m.take(i) {
			m.run(i.process)
		}
	case *Crash:
		i.crash(m)
	case *Hang:
		i.hang(m)
	default:
		i.process.InvokeUserMessage(msg)
	}
}

// Receive implements actor.Actor.
func (i *incarnation) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(*actor.Started); ok {
		if i.instance = i.build(); i.instance == nil {
			panic(errors.New("Spec.New returned nil"))
		}
	}
	if i.instance != nil {
		i.instance.Receive(ctx)
	}
}

// failed handles the panic or Goexit of a turn: the incarnation handles no more messages and is restarted
// after the backoff.
func (i *incarnation) failed(msg any, p *panicError) {
	what := fmt.Sprintf("%T", msg)
	if t, ok := msg.(turn); ok {
		what = t.what
	}
	var fields []zap.Field
	i.sys.mu.Lock()
	if i.phase == running && !i.abandoned {
		i.phase = crashed
		wait := i.ref.restartWait(time.Now())
		i.restart = time.AfterFunc(wait, func() { i.post(end{}) })
		fields = append(fields, zap.Duration("restart_in", wait))
	}
	i.sys.mu.Unlock()
	i.report(what, p, fields...)
}

// end ends the incarnation: it notifies the actor, releases what it owns and stops its children.
func (i *incarnation) end() {
	i.sys.mu.Lock()
	if i.phase >= ending {
		i.sys.mu.Unlock()
		return
	}
	restarts := i.phase == crashed && !i.stopped
	abandoned := i.abandoned
	i.phase = ending
	i.sys.mu.Unlock()

	if i.restart != nil {
		i.restart.Stop()
	}
	switch {
	case abandoned || i.instance == nil:
	case restarts:
		i.notify(&actor.Restarting{})
	default:
		i.sentStopping = true
		i.notify(&actor.Stopping{})
	}
	i.cancelOwned()

	i.sys.mu.Lock()
	i.stopChildren()
	i.sys.mu.Unlock()
	i.finish()
}

// finish completes the end once the children have ended. An abandoned incarnation does not wait for them, but the
// next one does; see System.replaceOrRemove.
func (i *incarnation) finish() {
	i.sys.mu.Lock()
	wait := i.phase != ending || len(i.children) > 0 && !i.abandoned
	abandoned := i.abandoned
	i.sys.mu.Unlock()
	if wait {
		return
	}
	if i.sentStopping && !abandoned {
		i.notify(&actor.Stopped{})
	}
	i.instance = nil
	i.process.InvokeSystemMessage(&actor.Stop{})

	i.sys.mu.Lock()
	i.phase = ended
	i.sys.replaceOrRemove(i)
	i.sys.dropEnded(i)
	i.sys.mu.Unlock()
}

// tell has the actor handle a message about its end. A failure there is only reported.
func (i *incarnation) notify(msg any) {
	if p := catchPanic(func() { i.process.InvokeUserMessage(msg) }); p != nil {
		i.report(fmt.Sprintf("%T", msg), p)
	}
}

// report counts a failure and logs it.
func (i *incarnation) report(what string, p *panicError, fields ...zap.Field) {
	reason := fmt.Sprint(p.value)
	i.sys.mu.Lock()
	stats := &i.ref.stats
	stats.Failures++
	stats.LastFailure, stats.LastFailureAt = reason, time.Now()
	restarts := stats.Restarts
	i.sys.mu.Unlock()
	i.sys.log.Error("actor failed", append([]zap.Field{
		zap.String("actor", i.ref.path), zap.String("reason", reason), zap.String("message", what),
		zap.Int("restarts", restarts), zap.String("stack", p.stack),
	}, fields...)...)
}
