package supervision

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"
)

// phase of an incarnation.
type phase int

const (
	running phase = iota
	crashed       // it waits for its restart; its children run on
	ending        // it was told Restarting or Stopping; its children are stopping
	ended         // no code of it runs any more except goroutines of Go
)

// incarnation is one life of an actor: one instance that Spec.New made, in one protoactor process. It is
// the process's mailbox, so that the queue of user messages can stay with the Ref, and so that a turn may end in a
// panic or runtime.Goexit without blocking the messages after it. And it is the process's actor, so that a message
// reaches the instance only while it may run.
type incarnation struct {
	sys        *System
	ref        *Ref
	supervisor *incarnation
	build      func() actor.Actor
	ctx        context.Context // of the goroutines it owns
	cancel     context.CancelFunc
	process    process

	// Owned by the actor's turn.
	instance   actor.Actor
	toldToStop bool
	restart    *time.Timer

	// Guarded by ref.mu.
	system []any // system messages; they go first
	busy   bool  // a goroutine handles messages
	takes  bool  // user messages are handled

	// Guarded by System.mu.
	phase      phase // written in the actor's turn only
	stopped    bool  // it is to end for another reason than a crash
	abandoned  bool
	left       bool // its supervisor waits for it no more
	children   map[*incarnation]struct{}
	goroutines int

	probeSent atomic.Int64 // nanoseconds since System.epoch; 0 when the last probe was answered
	missed    int          // sweeps without an answer; owned by the prober

	mu       sync.Mutex
	cutOff   bool // nothing may be started any more
	released bool
	pending  map[*pending]struct{}
	releases []func()
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
	end        struct{} // the restart is due, or the actor is to stop
	childEnded struct{}
)

func newIncarnation(s *System, r *Ref, supervisor *incarnation) *incarnation {
	i := &incarnation{
		sys: s, ref: r, supervisor: supervisor, build: r.build, takes: true,
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
func (i *incarnation) supervises() bool { return i.phase < ending && !i.abandoned }

// stopChildren marks the children as stopped and returns them, to be told so. It is called with System.mu held.
func (i *incarnation) stopChildren() []*incarnation {
	children := make([]*incarnation, 0, len(i.children))
	for child := range i.children {
		child.stopped = true
		children = append(children, child)
	}
	return children
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

// wake has the messages handled. It is called with ref.mu held.
func (i *incarnation) wake() {
	if !i.busy {
		i.busy = true
		go i.run()
	}
}

// run handles messages until none is left. After a panic or Goexit a fresh goroutine goes on.
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
	}, func(p *PanicError) {
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
		return take(&i.system), true, true
	case i.takes && len(r.queue) > 0:
		return take(&r.queue), false, true
	}
	i.busy = false
	return nil, false, false
}

func take(queue *[]any) any {
	msg := (*queue)[0]
	(*queue)[0] = nil
	*queue = (*queue)[1:]
	return msg
}

// suspend leaves user messages in the queue from now on, for the next incarnation.
func (i *incarnation) suspend() {
	i.ref.mu.Lock()
	i.takes = false
	i.ref.mu.Unlock()
}

func (i *incarnation) handleSystem(msg any) {
	switch msg.(type) {
	case *actor.Started:
		i.process.InvokeSystemMessage(msg)
		i.sys.prune(i)
	case probe:
		i.probeSent.Store(0)
	case end:
		i.end()
	case childEnded:
		i.finish()
	case *actor.Stop: // of ctx.Stop
		i.ref.Stop()
	case *actor.Restart, *actor.SuspendMailbox, *actor.ResumeMailbox:
		// Restarts are this package's own business.
	default:
		i.process.InvokeSystemMessage(msg)
	}
}

func (i *incarnation) handleUser(msg any) {
	switch m := msg.(type) {
	case turn:
		if m.take(i) {
			m.run(i.process)
		}
	case Crash:
		i.crash(m)
	case *Crash:
		i.crash(*m)
	case Hang:
		i.hang(m)
	case *Hang:
		i.hang(*m)
	default:
		i.process.InvokeUserMessage(msg)
	}
}

// Receive implements actor.Actor.
func (i *incarnation) Receive(ctx actor.Context) {
	switch ctx.Message().(type) {
	case *actor.Started:
		if i.instance = i.build(); i.instance == nil {
			panic(errors.New("Spec.New returned nil"))
		}
	case *actor.Restarting, *actor.Stopping, *actor.Stopped:
	default:
		if i.phase != running {
			return
		}
	}
	if i.instance != nil {
		i.instance.Receive(ctx)
	}
}

// failed notes that a turn ended in a panic or Goexit. The incarnation takes no more messages until the
// restart is due.
func (i *incarnation) failed(msg any, p *PanicError) {
	what := fmt.Sprintf("%T", msg)
	if t, ok := msg.(turn); ok {
		what = t.what
	}
	f := i.failure(what, p)
	i.sys.mu.Lock()
	restart := i.phase == running && !i.abandoned
	var wait time.Duration
	if restart {
		i.phase = crashed
		wait = i.ref.restartWait(f.At)
	}
	i.sys.mu.Unlock()
	if !restart {
		i.sys.failed(i.ref, f)
		return
	}
	i.suspend()
	i.restart = time.AfterFunc(wait, func() { i.post(end{}) })
	i.sys.failed(i.ref, f, zap.Duration("restart_in", wait))
}

// end ends the incarnation: the actor is told, what it owns is released, its children are stopped.
func (i *incarnation) end() {
	i.sys.mu.Lock()
	if i.phase >= ending {
		i.sys.mu.Unlock()
		return
	}
	restarts := i.phase == crashed && !i.stopped
	abandoned := i.abandoned
	i.phase = ending
	children := i.stopChildren()
	i.sys.mu.Unlock()

	i.suspend()
	if i.restart != nil {
		i.restart.Stop()
	}
	switch {
	case abandoned || i.instance == nil:
	case restarts:
		i.tell("Restarting", &actor.Restarting{})
	default:
		i.toldToStop = true
		i.tell("Stopping", &actor.Stopping{})
	}
	i.release()
	for _, child := range children {
		child.post(end{})
	}
	i.finish()
}

// finish completes the end when the children have ended. Nobody waits for the children of an abandoned
// actor here; see System.leave.
func (i *incarnation) finish() {
	i.sys.mu.Lock()
	wait := i.phase != ending || len(i.children) > 0 && !i.abandoned
	abandoned := i.abandoned
	i.sys.mu.Unlock()
	if wait {
		return
	}
	if i.toldToStop && !abandoned {
		i.tell("Stopped", &actor.Stopped{})
	}
	i.instance = nil
	i.process.InvokeSystemMessage(&actor.Stop{})
	i.sys.ended(i)
}

// tell has the actor handle a message of its end. A failure there has no consequence but to be known.
func (i *incarnation) tell(what string, msg any) {
	i.contain(what, func() { i.process.InvokeUserMessage(msg) })
}

func (i *incarnation) contain(what string, f func()) {
	if p := contain(f); p != nil {
		i.sys.failed(i.ref, i.failure(what, p))
	}
}

func (i *incarnation) failure(what string, p *PanicError) Failure {
	return Failure{Actor: i.ref.path, Reason: p.Value, Stack: p.Stack, Message: what, At: time.Now()}
}
