package supervision

import (
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
	bubble(t, Config{Logger: zap.New(core)}, func(t *testing.T, s *System) {
		ref := spawn(t, s, Spec{Name: "a", New: scripted(&trace{}, script{"bad": boom})})
		ref.Tell("bad")
		synctest.Wait()
	})
	failed := logs.FilterMessage("actor failed").All()
	if len(failed) != 1 {
		t.Fatalf("lines: got %v, want one", logs.All())
	}
	fields := failed[0].ContextMap()
	expect(t, "level", failed[0].Level, zapcore.ErrorLevel)
	expect(t, "actor", fields["actor"], any("a"))
	expect(t, "reason", fields["reason"], any("boom"))
	if wait, _ := fields["restart_in"].(time.Duration); wait <= 0 || wait > 50*time.Millisecond {
		t.Errorf("restart_in: got %v, want up to 50ms", fields["restart_in"])
	}
	if stack, _ := fields["stack"].(string); !strings.Contains(stack, "supervision.boom") {
		t.Errorf("stack: got %v", stack)
	}
	expect(t, "lines in all", logs.Len(), 1)
}

func TestProtoactorLogsWarningsOnly(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	bubble(t, Config{Logger: zap.New(core)}, func(t *testing.T, s *System) {
		log := s.actors.Logger().With("key", "value")
		log.Info("not this")
		log.Warn("but this")
	})
	if lines := logs.All(); len(lines) != 1 || lines[0].Message != "but this" {
		t.Errorf("lines: got %v, want the warning", lines)
	}
}

// What is logged is logged outside System.mu, and after what it is about.
func TestBlockedLogHoldsUpNoOtherActor(t *testing.T) {
	release, blocked := make(chan struct{}), make(chan string, 100)
	core, _ := observer.New(zap.InfoLevel)
	fatal := make(chan string, 1)
	s := newSystem(t, Config{
		Logger:         zap.New(core, zap.Hooks(func(e zapcore.Entry) error { blocked <- e.Message; <-release; return nil })),
		FaultInjection: true,
		ProbeInterval:  10 * time.Millisecond, HangAfter: 50 * time.Millisecond,
		Critical: []string{"hangs"},
		OnFatal:  func(reason string) { fatal <- reason },
	})
	works := func(what string, do func()) {
		t.Helper()
		done := make(chan struct{})
		go func() { defer close(done); do() }()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatalf("%s: waits for the log", what)
		}
	}
	hold := make(chan struct{})
	works("a hang", func() {
		started := make(chan struct{}, 2)
		spawn(t, s, Spec{Name: "hangs", New: scripted(&trace{}, script{
			"Started":   func(actor.Context) { started <- struct{}{} },
			"Started#1": hangs(hold),
		})})
		<-started
		<-started // its replacement
		<-fatal
		expect(t, "line of the prober", <-blocked, "hung actor abandoned")
	})
	works("a crash", func() {
		crashes := spawn(t, s, Spec{Name: "crashes", New: scripted(&trace{}, nil)})
		crashes.Tell(&Crash{})
		expect(t, "line of the turn", <-blocked, "actor failed")
	})
	works("the rest", func() {
		handled := make(chan struct{})
		spawn(t, s, Spec{Name: "other", New: scripted(&trace{}, script{"on": func(actor.Context) { close(handled) }})}).Tell("on")
		<-handled
		expect(t, "actors", len(s.Stats()), 3)
	})
	close(release)
	close(hold)
	works("the return of the hung turn", func() {
		for s.Stop(t.Context()) != nil {
			time.Sleep(time.Millisecond)
		}
	})
}
