package supervision

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/ctxext"
	"go.uber.org/zap"
)

// phase is where a cell stands in its life.
type phase int32

const (
	starting   phase = iota
	running          // the incarnation takes messages
	failed           // it crashed and waits for its restart, or its end
	restarting       // it was torn down; its children end, then the next one starts
	stopping
	stopped
)

// cell is one protoactor process: it plays a role until it stops or is abandoned.
// It stands between mailbox and actor and makes sure that only a living incarnation
// gets messages and that every failure has a consequence.
type cell struct {
	sys       *System
	role      *role
	ref       *Ref
	parent    *cell  // nil for a root
	parentInc int    // incarnation of the parent that it belongs to
	process   string // name of the process below its parent's
	id        string // of the process
	temporary bool
	build     func() actor.Actor
	mailbox   *mailbox

	ctx       actor.Context
	phase     atomic.Int32
	abandoned atomic.Bool // set with System.mu held
	scope     atomic.Pointer[scope]
	probeSent atomic.Int64 // nanoseconds since System.epoch; 0 when none is under way

	// Owned by the actor's turn.
	incarnation  int
	retry        *time.Timer
	toldStopping bool
	awaited      map[*role]func(actor.Context) // by StopInOrder

	missed int // sweeps without an answer to the probe; owned by the prober

	// Guarded by System.mu.
	children   map[string]*cell // by process id
	cause      *ChildFailed     // why a temporary one ended
	wanted     bool             // it was abandoned, and not on its way out
	goroutines int
	finished   bool
}

// Private system messages.
type (
	probe   struct{}
	restart struct{ incarnation int }
	replace struct{ hung *cell }
)

// newCell is called with System.mu held.
func newCell(r *role, parent *cell, process string) *cell {
	c := &cell{
		sys:       r.sys,
		role:      r,
		ref:       r.ref,
		parent:    parent,
		process:   process,
		id:        process,
		temporary: r.spec.Temporary,
		build:     r.spec.New,
		children:  make(map[string]*cell),
	}
	c.mailbox = &mailbox{owner: c}
	if parent != nil {
		c.parentInc = parent.incarnation
		c.id = parent.id + "/" + process
	}
	return c
}

var cellID = ctxext.NextContextExtensionID()

// ExtensionID makes the cell findable from its actor.Context.
func (c *cell) ExtensionID() ctxext.ContextExtensionID { return cellID }

func cellOf(ctx actor.Context) *cell {
	c, ok := ctx.Get(cellID).(*cell)
	if !ok {
		panic(fmt.Sprintf("actor %v was not spawned by this package", ctx.Self()))
	}
	return c
}

func (c *cell) props() *actor.Props {
	return actor.PropsFromProducer(c.produce,
		actor.WithOnInit(func(ctx actor.Context) {
			c.ctx = ctx
			ctx.Set(c)
		}),
		actor.WithMailbox(func() actor.Mailbox { return c.mailbox }),
		actor.WithReceiverMiddleware(c.middleware),
		actor.WithSupervisor(strangers{}),
	)
}

// current reports whether the cell plays its role: it may be waiting for a restart, but it is
// not on its way out.
func (c *cell) current() bool {
	return phase(c.phase.Load()) < stopping && !c.abandoned.Load()
}

func (c *cell) alive() bool {
	return phase(c.phase.Load()) == running && !c.abandoned.Load()
}

// produce makes an instance. One that cannot be made fails as it starts.
func (c *cell) produce() actor.Actor {
	var instance actor.Actor
	p := contained(func() { instance = c.build() })
	if p == nil && instance == nil {
		p = &PanicError{Value: errors.New("Spec.New returned nil")}
	}
	if p != nil {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if _, ok := ctx.Message().(*actor.Started); ok {
				panic(p)
			}
		})
	}
	return instance
}

// strangers is the strategy for children that were not spawned by Child, and
// so cannot be supervised: stopped at their first failure, and not silently.
type strangers struct{}

func (strangers) HandleFailure(system *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, reason, _ any) {
	system.Logger().Error("an unsupervised actor failed and is stopped", "actor", child.Id, "reason", fmt.Sprint(reason))
	supervisor.StopChildren(child)
}

// handleUser implements owner.
func (c *cell) handleUser(msg any) {
	if !c.alive() {
		c.dropped(msg)
		return
	}
	switch m := msg.(type) {
	case *turn:
		if c.scope.Load().take(m.token) {
			m.run(c.ctx)
		}
	case Crash:
		c.crash(m)
	case *Crash:
		c.crash(*m)
	case Hang:
		c.hang(m)
	case *Hang:
		c.hang(*m)
	default:
		c.inner().InvokeUserMessage(msg)
	}
}

// handleSystem implements owner.
func (c *cell) handleSystem(msg any) {
	switch m := msg.(type) {
	case probe:
		c.probeSent.Store(0)
	case restart:
		if phase(c.phase.Load()) == failed && m.incarnation == c.incarnation {
			c.inner().InvokeSystemMessage(&actor.Restart{})
		}
	case replace:
		c.sys.replaceChild(c, m.hung)
	case *actor.Restart, *actor.SuspendMailbox, *actor.ResumeMailbox:
		// A cell does these by itself: from outside they would hit any incarnation.
	default:
		c.inner().InvokeSystemMessage(msg)
	}
}

// inner is protoactor's side of the actor.
func (c *cell) inner() actor.MessageInvoker { return c.ctx.(actor.MessageInvoker) }

// dropped implements owner.
func (c *cell) dropped(msg any) {
	if _, private := msg.(*turn); !private {
		c.role.drops.Add(1)
	}
}

// middleware sees all that protoactor delivers to the actor.
func (c *cell) middleware(next actor.ReceiverFunc) actor.ReceiverFunc {
	return func(ctx actor.ReceiverContext, envelope *actor.MessageEnvelope) {
		switch msg := envelope.Message.(type) {
		case *actor.Started:
			if c.begin() {
				next(ctx, envelope)
			}
		case *actor.Restarting:
			c.tearDown(restarting, "Restarting", func() { next(ctx, envelope) })
		case *actor.Stopping:
			c.tearDown(stopping, "Stopping", func() { next(ctx, envelope) })
		case *actor.Stopped:
			c.close(func() { next(ctx, envelope) })
		case *actor.Terminated:
			if news := c.childEnded(msg); news != nil {
				next(ctx, &actor.MessageEnvelope{Message: news})
			}
		default:
			next(ctx, envelope)
		}
	}
}

// begin opens the life of an incarnation.
func (c *cell) begin() bool {
	s := newScope(c)
	c.scope.Store(s)
	if c.abandoned.Load() { // and the scope may have come too late to be cut by that
		s.cut()
		return false
	}
	c.incarnation++
	c.awaited = nil
	c.phase.Store(int32(running))
	c.mailbox.suspend(false)
	c.sys.started(c, c.incarnation > 1)
	return true
}

// tearDown ends the life of an incarnation: the actor hears of it, then its scope ends.
func (c *cell) tearDown(to phase, message string, deliver func()) {
	was := phase(c.phase.Swap(int32(to)))
	if c.retry != nil {
		c.retry.Stop()
	}
	if was != running && was != failed {
		return // told before, or never started
	}
	if !c.abandoned.Load() {
		c.toldStopping = to == stopping
		c.contain(message, deliver)
	}
	c.scope.Load().end()
}

// close ends the life of the cell, before its parent hears of it.
func (c *cell) close(deliver func()) {
	c.phase.Store(int32(stopped))
	if c.toldStopping && !c.abandoned.Load() {
		c.contain("Stopped", deliver)
	}
	c.mailbox.close()
	c.sys.finish(c)
}

// childEnded says what the actor is to hear of the end of a child: nil for nothing.
func (c *cell) childEnded(msg *actor.Terminated) any {
	child, cause := c.sys.forgetChild(c, msg.Who.Id)
	if child == nil && strings.HasPrefix(msg.Who.Id, c.id+"/") {
		return nil // a child abandoned before
	}
	if !c.alive() {
		return nil
	}
	if child == nil {
		return msg
	}
	if then := c.awaited[child.role]; then != nil {
		delete(c.awaited, child.role)
		then(c.ctx)
		return nil
	}
	switch {
	case cause != nil:
		return cause
	case child.temporary, child.role.hushed, c.sys.replaceable(child):
		return nil
	}
	return msg
}

// failed implements owner: it ends the incarnation and sees to the next.
func (c *cell) failed(msg any, p *PanicError) {
	if made, ok := p.Value.(*PanicError); ok { // by produce
		p = made
	}
	what := fmt.Sprintf("%T", msg)
	switch m := msg.(type) {
	case restart:
		what = fmt.Sprintf("%T", &actor.Started{})
	case *turn:
		what = m.what
	}
	failure := c.failure(what, p)
	if phase(c.phase.Load()) != running || c.abandoned.Load() {
		c.sys.failed(c, failure)
		return
	}
	c.phase.Store(int32(failed))
	c.mailbox.suspend(true)
	if c.temporary {
		c.sys.mu.Lock()
		c.cause = &ChildFailed{Name: c.role.name, Reason: p.Value, Stack: p.Stack}
		c.sys.mu.Unlock()
		c.sys.failed(c, failure)
		c.mailbox.PostSystemMessage(&actor.Stop{})
		return
	}
	c.sys.mu.Lock()
	wait := c.role.pacer.crashed(failure.At, rand.Float64())
	c.sys.mu.Unlock()
	again := restart{c.incarnation}
	c.retry = time.AfterFunc(wait, func() { c.mailbox.PostSystemMessage(again) })
	c.sys.failed(c, failure, zap.Duration("restart_in", wait))
}

// contain runs code of the actor whose failure has no consequence but to be known.
func (c *cell) contain(what string, f func()) {
	if p := contained(f); p != nil {
		c.sys.failed(c, c.failure(what, p))
	}
}

func (c *cell) failure(what string, p *PanicError) Failure {
	return Failure{Actor: c.role.path, Reason: p.Value, Stack: p.Stack, Message: what, At: time.Now()}
}

// Crash makes the actor that gets it panic, where Config.FaultInjection is on.
type Crash struct{ Reason string }

// Hang makes the actor that gets it block its turn for so long, or until the System
// is stopped where For is not positive; where Config.FaultInjection is on.
type Hang struct{ For time.Duration }

func (c *cell) crash(m Crash) {
	if c.mayFail("crash") {
		panic(m.Reason)
	}
}

func (c *cell) hang(m Hang) {
	if !c.mayFail("hang") {
		return
	}
	if m.For <= 0 {
		<-c.sys.quit
		return
	}
	timer := time.NewTimer(m.For)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.sys.quit:
	}
}

func (c *cell) mayFail(what string) bool {
	if !c.sys.cfg.FaultInjection {
		c.sys.log.Warn("fault injection is off: ignored a request", zap.String("actor", c.role.path), zap.String("fault", what))
	}
	return c.sys.cfg.FaultInjection
}
