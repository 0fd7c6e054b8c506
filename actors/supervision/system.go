package supervision

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// Config of a System. A zero field takes its default.
type Config struct {
	Logger *zap.Logger // default: none
	// ProbeInterval is the time between two probes of an actor. Default 5 s; negative: never.
	ProbeInterval time.Duration
	// HangAfter is how long a probe may stay unanswered before the actor counts as hung. Default 30 s.
	HangAfter time.Duration
	// MaxAbandoned is the number of abandoned actors at which the System gives up. Default 3.
	MaxAbandoned int
	// Critical lists actors, by name or path, whose hang makes the System give up at once.
	Critical []string
	// OnFatal is called once, on a goroutine of its own, when the System has given up and the process
	// should end.
	OnFatal func(reason string)
	// FaultInjection enables Crash and Hang messages.
	FaultInjection bool
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
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
	quit   chan struct{}
	prober sync.WaitGroup

	// mu is taken when an actor starts, fails or ends, never to send a message, and is never held while
	// code of an actor or the logger runs. Ref.mu is taken after it.
	mu           sync.Mutex
	top          *incarnation // the supervisor of those that Spawn starts; it runs until Stop
	children     map[string]*Ref
	incarnations map[*incarnation]struct{} // whose last turn or goroutines have not ended
	changed      chan struct{}             // closed when an incarnation has ended
	started      uint64                    // incarnations so far
	closed       bool
	swept        time.Time
	abandoned    []string
	gaveUp       error
}

// NewSystem returns a System without actors. It is released by Stop.
func NewSystem(cfg Config) *System {
	cfg = cfg.withDefaults()
	s := &System{
		cfg:          cfg,
		log:          cfg.Logger,
		actors:       newActorSystem(cfg.Logger),
		quit:         make(chan struct{}),
		children:     make(map[string]*Ref),
		incarnations: make(map[*incarnation]struct{}),
		changed:      make(chan struct{}),
		swept:        time.Now(),
	}
	s.top = newIncarnation(s, NewRef(), nil)
	if cfg.ProbeInterval > 0 {
		s.prober.Go(s.probe)
	}
	return s
}

// newActorSystem returns a protoactor system whose warnings and errors go to log.
func newActorSystem(log *zap.Logger) *actor.ActorSystem {
	core := log.Core()
	if warnings, err := zapcore.NewIncreaseLevelCore(core, zap.WarnLevel); err == nil {
		core = warnings
	}
	library := slog.New(zapslog.NewHandler(core, zapslog.WithName("protoactor")))
	return actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return library }))
}

// Spawn starts an actor at the top of the tree. It fails with errNameTaken, with errStopped, or for an
// invalid Spec.
func (s *System) Spawn(spec Spec) (*Ref, error) { return s.spawn(s.top, spec) }

// Stop stops all actors and waits until they and the goroutines they own have ended,
// or ctx is done. The error names those that have not ended, among them abandoned actors whose turn never
// returned. It releases all that the System holds. It may be repeated.
func (s *System) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.top.phase = ending
	s.top.stopChildren()
	s.mu.Unlock()
	err := s.await(ctx)
	s.close()
	return err
}

// await returns when all incarnations have ended except abandoned ones, or ctx is done.
func (s *System) await(ctx context.Context) error {
	for {
		s.mu.Lock()
		var left []string
		busy := false
		for i := range s.incarnations {
			busy = busy || !i.abandoned
			left = append(left, i.describe())
		}
		changed := s.changed
		s.mu.Unlock()
		slices.Sort(left)
		switch {
		case len(left) == 0:
			return nil
		case !busy:
			return fmt.Errorf("stopping the actors: not ended: %s", strings.Join(left, ", "))
		case ctx.Err() != nil:
			return fmt.Errorf("stopping the actors: not ended: %s: %w", strings.Join(left, ", "), ctx.Err())
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// describe names an incarnation that has not ended. It is called with System.mu held.
func (i *incarnation) describe() string {
	switch {
	case i.abandoned:
		return i.ref.path + " (hung)"
	case i.phase == ended:
		return fmt.Sprintf("%s (goroutines: %d)", i.ref.path, i.goroutines)
	}
	return i.ref.path
}

func (s *System) close() {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	left := slices.Collect(maps.Keys(s.incarnations))
	s.mu.Unlock()
	if first {
		close(s.quit)
		s.actors.Shutdown()
	}
	for _, i := range left {
		i.cut()
	}
	s.prober.Wait()
}
