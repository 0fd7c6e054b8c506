package supervision

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/eventstream"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
)

// newActorSystem returns a protoactor system that logs into ours: what it thinks
// worth knowing is debugging to us.
func newActorSystem(log *zap.Logger) *actor.ActorSystem {
	handler := quiet{zapslog.NewHandler(log.Core(), zapslog.WithName("protoactor"))}
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(handler) }))
	// The library's own subscribers start a goroutine for each burst of dead letters,
	// and a panic in one would end the process. Ours does what they do.
	system.EventStream = eventstream.NewEventStream()
	letters := deadLetters{system: system, log: log}
	system.EventStream.Subscribe(letters.arrived)
	return system
}

// deadLetters logs messages to processes that are gone, one a second at most.
type deadLetters struct {
	system *actor.ActorSystem
	log    *zap.Logger

	mu     sync.Mutex
	logged time.Time
	silent int // not logged since
}

func (d *deadLetters) arrived(event any) {
	letter, ok := event.(*actor.DeadLetterEvent)
	if !ok {
		return
	}
	if watch, ok := letter.Message.(*actor.Watch); ok { // who watches a dead process hears so
		if watcher, ok := d.system.ProcessRegistry.Get(watch.Watcher); ok {
			watcher.SendSystemMessage(watch.Watcher, &actor.Terminated{Who: letter.PID, Why: actor.TerminatedReason_NotFound})
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.logged) < time.Second {
		d.silent++
		return
	}
	d.log.Debug("dead letter", zap.Stringer("process", letter.PID), zap.String("message", fmt.Sprintf("%T", letter.Message)), zap.Int("unlogged_before", d.silent))
	d.logged, d.silent = time.Now(), 0
}

// quiet is a slog handler that takes information for debugging.
type quiet struct{ slog.Handler }

func lowered(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelDebug
	}
	return level
}

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, lowered(level))
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, record slog.Record) error {
	record.Level = lowered(record.Level)
	return q.Handler.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
