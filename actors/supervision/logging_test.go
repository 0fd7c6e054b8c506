package supervision

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestFailuresAreLoggedWithTheirStack(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	bubble(t, Config{Logger: zap.New(core), OnFailure: func(Failure) { panic("must not matter") }}, func(t *testing.T, s *System) {
		ref := spawn(t, s, Spec{Name: "a", New: play(&diary{}, script{"bad": boom})})
		ref.Tell("bad")
		synctest.Wait()
	})
	failed := logs.FilterMessage("an actor failed").All()
	if len(failed) != 1 {
		t.Fatalf("logged: %v", logs.All())
	}
	fields := failed[0].ContextMap()
	expect(t, "level", failed[0].Level, zapcore.ErrorLevel)
	expect(t, "actor", fields["actor"], any("a"))
	expect(t, "reason", fields["reason"], any("boom"))
	expect(t, "restart in", fields["restart_in"], any(50*time.Millisecond))
	if stack, _ := fields["stack"].(string); !strings.Contains(stack, "supervision.boom") {
		t.Errorf("stack: %v", stack)
	}
	expect(t, "other lines", logs.Len(), 2) // OnFailure's own
}

func TestTheLibrarySpeaksOnlyToDebuggers(t *testing.T) {
	for level, want := range map[zapcore.Level]int{zap.DebugLevel: 2, zap.InfoLevel: 1} {
		core, logs := observer.New(level)
		bubble(t, Config{Logger: zap.New(core)}, func(t *testing.T, s *System) {
			log := s.actors.Logger().With("key", "value").WithGroup("group")
			log.Error("an error", "k", 1)
		})
		if logs.Len() != want {
			t.Errorf("at %v: %v", level, logs.All())
		}
		for _, line := range logs.All() {
			if line.Message == "actor system started" {
				expect(t, "level", line.Level, zap.DebugLevel)
			}
		}
	}
	if (quiet{slog.DiscardHandler}).Enabled(t.Context(), slog.LevelError) {
		t.Error("enabled where the handler is not")
	}
}

func TestDeadLettersAreThrottledAndWatchersToldOf(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	bubble(t, Config{Logger: zap.New(core)}, func(t *testing.T, s *System) {
		var d diary
		nobody := actor.NewPID(s.actors.Address(), "nobody")
		ref := spawn(t, s, Spec{Name: "a", New: play(&d, script{
			"send":  func(ctx actor.Context) { ctx.Send(nobody, "hello") },
			"watch": func(ctx actor.Context) { ctx.Watch(nobody) },
		})})
		for range 1000 {
			ref.Tell("send")
		}
		synctest.Wait()
		d.take()
		expect(t, "lines", logs.FilterMessage("dead letter").Len(), 1)
		time.Sleep(time.Second)
		ref.Tell("watch")
		synctest.Wait()
		expect(t, "diary", d.take(), "watch#1 Terminated#1")
	})
	lines := logs.FilterMessage("dead letter").All()
	if len(lines) != 2 {
		t.Fatalf("lines: %v", lines)
	}
	expect(t, "left out", lines[1].ContextMap()["unlogged_before"], any(int64(999)))
}
