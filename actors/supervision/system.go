package supervision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"
)

// Config of a System. A zero field takes its default.
type Config struct {
	Logger  *zap.Logger // default: none
	Backoff Backoff     // of restarts
	// ProbeInterval is how often each actor is probed. Default 5 s; negative: never.
	ProbeInterval time.Duration
	// HangAfter is how long a probe may go unanswered until the actor counts as hung. Default 30 s.
	HangAfter time.Duration
	// MaxAbandoned is how many abandoned actors make the System give up. Default 3.
	MaxAbandoned int
	// Critical names actors (by name or path) whose hang makes the System give up at once.
	Critical []string
	// OnFatal is called once, on a goroutine of its own, when the System has given up and the process
	// should end.
	OnFatal func(reason string)
	// FaultInjection has Crash and Hang messages honoured.
	FaultInjection bool
	// OnFailure is called for each failure, on whatever goroutine it came up. It must not block.
	OnFailure func(Failure)
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	c.Backoff = c.Backoff.withDefaults()
	if c.ProbeInterval == 0 {
		c.ProbeInterval = 5 * time.Second
	}
	if c.HangAfter <= 0 {
		c.HangAfter = 30 * time.Second
	}
	if c.MaxAbandoned <= 0 {
		c.MaxAbandoned = 3
	}
	return c
}

// System runs a tree of supervised actors. Its methods are safe for concurrent use.
type System struct {
	cfg    Config
	log    *zap.Logger
	actors *actor.ActorSystem
	epoch  time.Time
	quit   chan struct{}
	prober sync.WaitGroup

	mu        sync.Mutex // taken on spawns, failures and ends; never for a message
	roles     map[string]*role
	cells     map[*cell]struct{} // whose turn or goroutines are not at their end
	changed   chan struct{}      // closed when a cell is gone
	stopping  bool
	closed    bool
	swept     time.Time
	abandoned []string
	gaveUp    *GaveUp
}

// NewSystem returns a System without actors. It is released by Stop.
func NewSystem(cfg Config) *System {
	cfg = cfg.withDefaults()
	s := &System{
		cfg:     cfg,
		log:     cfg.Logger,
		actors:  newActorSystem(cfg.Logger),
		epoch:   time.Now(),
		quit:    make(chan struct{}),
		roles:   make(map[string]*role),
		cells:   make(map[*cell]struct{}),
		changed: make(chan struct{}),
		swept:   time.Now(),
	}
	if cfg.ProbeInterval > 0 {
		s.prober.Go(s.probe)
	}
	return s
}

// Spawn starts a root actor. It fails with ErrNameTaken, with ErrStopped, or for an invalid Spec.
func (s *System) Spawn(spec Spec) (*Ref, error) { return s.spawn(nil, spec) }

// Stop stops all actors and waits until they and the goroutines they own have ended,
// or ctx is done; the error names those that have not, and hung ones that were abandoned and never came
// back. It releases all that the System holds. It may be repeated.
func (s *System) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	var roots []*cell
	for c := range s.cells {
		if c.parent == nil {
			roots = append(roots, c)
		}
	}
	s.mu.Unlock()
	for _, c := range roots {
		c.mailbox.PostSystemMessage(&actor.Stop{})
	}
	err := s.await(ctx)
	s.close()
	return err
}

// await returns when all cells have ended but those that were abandoned, or ctx is done.
func (s *System) await(ctx context.Context) error {
	for {
		s.mu.Lock()
		busy, lost := s.remaining()
		changed := s.changed
		s.mu.Unlock()
		switch {
		case len(busy) == 0 && len(lost) == 0:
			return nil
		case len(busy) == 0:
			return fmt.Errorf("stopping the actors: hung and never ended: %s", strings.Join(lost, ", "))
		case ctx.Err() != nil:
			return fmt.Errorf("stopping the actors: not ended: %s: %w", strings.Join(append(busy, lost...), ", "), ctx.Err())
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// remaining is called with mu held.
func (s *System) remaining() (busy, lost []string) {
	for c := range s.cells {
		switch {
		case c.abandoned.Load():
			lost = append(lost, c.role.path)
		case c.finished:
			busy = append(busy, fmt.Sprintf("%s (goroutines: %d)", c.role.path, c.goroutines))
		default:
			busy = append(busy, c.role.path)
		}
	}
	slices.Sort(busy)
	slices.Sort(lost)
	return busy, lost
}

func (s *System) close() {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	var left []*cell
	for c := range s.cells {
		left = append(left, c)
	}
	s.mu.Unlock()
	if first {
		close(s.quit)
		s.actors.Shutdown()
	}
	for _, c := range left {
		if scope := c.scope.Load(); scope != nil {
			scope.cut()
		}
	}
	s.prober.Wait()
}

// leave takes back enter.
func (s *System) leave(c *cell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.parent != nil {
		delete(c.parent.children, c.id)
	}
	c.finished = true
	s.vacate(c)
	s.settle(c)
}

// started notes that an incarnation runs.
func (s *System) started(c *cell, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.role.pacer.started(time.Now())
	if again {
		c.role.restarts++
	}
}

// failed makes a failure known.
func (s *System) failed(c *cell, f Failure, fields ...zap.Field) {
	reason := fmt.Sprint(f.Reason)
	s.mu.Lock()
	r := c.role
	r.failures++
	r.lastFailure, r.lastFailureAt = reason, f.At
	f.Restarts = r.restarts
	s.mu.Unlock()
	s.log.Error("an actor failed", append([]zap.Field{
		zap.String("actor", f.Actor), zap.String("reason", reason), zap.String("message", f.Message),
		zap.Int("restarts", f.Restarts), zap.String("stack", f.Stack),
	}, fields...)...)
	if s.cfg.OnFailure != nil {
		if p := contained(func() { s.cfg.OnFailure(f) }); p != nil {
			s.log.Error("OnFailure failed", zap.Any("reason", p.Value), zap.String("stack", p.Stack))
		}
	}
}

// finish notes that a cell has stopped.
func (s *System) finish(c *cell) {
	s.mu.Lock()
	c.finished = true
	s.vacate(c)
	s.settle(c)
	orphaned := false
	if p := c.parent; p != nil && p.abandoned.Load() { // it will not look after its children any more
		delete(p.children, c.id)
		orphaned = len(p.children) == 0
	}
	s.mu.Unlock()
	if orphaned {
		s.replace(c.parent)
	}
}

// vacate is called with mu held, when a cell no longer plays its role. An abandoned
// one whose replacement is to come keeps it until then, though it may return before.
func (s *System) vacate(c *cell) {
	if c.wanted {
		return
	}
	r := c.role
	r.cell.CompareAndSwap(c, nil)
	if r.spec.Temporary && s.roles[r.path] == r {
		delete(s.roles, r.path)
	}
}

// settle forgets a cell of which nothing runs any more. It is called with mu held.
func (s *System) settle(c *cell) {
	if !c.finished || c.goroutines > 0 {
		return
	}
	delete(s.cells, c)
	if s.stopping {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

func (s *System) goroutineBegins(c *cell) {
	s.mu.Lock()
	c.goroutines++
	s.mu.Unlock()
}

func (s *System) goroutineEnds(c *cell) {
	s.mu.Lock()
	c.goroutines--
	s.settle(c)
	s.mu.Unlock()
}

func (c *cell) goroutineFailed(p *PanicError) {
	c.sys.mu.Lock()
	c.role.goroutineFailures++
	c.sys.mu.Unlock()
	c.sys.failed(c, c.failure("goroutine", p))
}

// forgetChild takes a child that has ended off its parent, in the parent's turn.
func (s *System) forgetChild(parent *cell, id string) (*cell, *ChildFailed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	child := parent.children[id]
	if child == nil {
		return nil, nil
	}
	if !parent.abandoned.Load() { // else finish does it
		delete(parent.children, id)
	}
	return child, child.cause
}

// Live reports nil while every actor answers its probe in time; else the error names
// those that do not. It is an error for ever once the System has given up. It is what a watchdog is
// fed by; after Stop it is nil.
func (s *System) Live() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gaveUp != nil:
		return s.gaveUp
	case s.closed || s.cfg.ProbeInterval < 0:
		return nil
	case time.Since(s.swept) > s.cfg.HangAfter+2*s.cfg.ProbeInterval:
		return errors.New("the probe of the actors is late")
	}
	var hung []string
	for c := range s.cells {
		if !c.abandoned.Load() && !c.finished && s.overdue(c) {
			hung = append(hung, c.role.path)
		}
	}
	if len(hung) == 0 {
		return nil
	}
	slices.Sort(hung)
	return fmt.Errorf("%w: %s", ErrHung, strings.Join(hung, ", "))
}

// GaveUp returns the report of why the System gave up, nil while it has not.
func (s *System) GaveUp() *GaveUp {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gaveUp
}
