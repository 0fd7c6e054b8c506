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
	// ProbeInterval is the time between two probes of an actor. Default 5 s; negative disables probes.
	ProbeInterval time.Duration
	// HangAfter is how long a probe may stay unanswered before the actor counts as hung. Default 30 s.
	HangAfter time.Duration
	// MaxAbandoned is the number of abandoned actors at which the System gives up. Default 3.
	MaxAbandoned int
	// Critical lists actors, by name or path, whose hang makes the System give up at once.
	Critical []string
	// OnFatal is called once, on its own goroutine, when the System has given up and the process should
	// exit.
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

	// mu is locked when an actor starts, fails or ends, but not to send a message. It is never held while
	// code of an actor or the logger runs. Lock order: mu, then Ref.mu.
	mu           sync.Mutex
	root         *incarnation // supervisor of the actors started by Spawn; runs until Stop
	children     map[string]*Ref
	incarnations map[*incarnation]struct{} // those with a turn or goroutines still running
	changed      chan struct{}             // closed when an incarnation has ended
	started      uint64                    // number of incarnations so far
	closed       bool
	lastSweep    time.Time
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
		lastSweep:    time.Now(),
	}
	s.root = newIncarnation(s, NewRef(), nil)
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

// Spawn starts an actor at the root of the tree. It fails if the name is taken, the System was stopped, or the
// Spec is invalid.
func (s *System) Spawn(spec Spec) (*Ref, error) { return s.spawn(s.root, spec) }

// Stop stops all actors and waits until they and their goroutines have ended, or ctx is done. The error names
// those that have not ended, including abandoned actors whose turn has not returned. Stop releases the System's
// resources and may be repeated.
func (s *System) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.root.phase = ending
	s.root.stopChildren()
	s.mu.Unlock()
	err := s.await(ctx)
	s.close()
	return err
}

// await waits until all incarnations except abandoned ones have ended, or ctx is done.
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
			return fmt.Errorf("stopping actors: still running: %s", strings.Join(left, ", "))
		case ctx.Err() != nil:
			return fmt.Errorf("stopping actors: still running: %s: %w", strings.Join(left, ", "), ctx.Err())
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
		i.cancelOwned()
	}
	s.prober.Wait()
}
