package supervision

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test on a fake clock with a System that must stop cleanly.
func bubble(t *testing.T, cfg Config, test func(*testing.T, *System)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, cfg)
		test(t, s)
		synctest.Wait()
		if err := s.Stop(within(t, time.Hour)); err != nil {
			t.Errorf("Stop: %v", err)
		}
	})
}

func newSystem(t testing.TB, cfg Config) *System {
	if cfg.Logger == nil {
		cfg.Logger = zaptest.NewLogger(t)
	}
	return NewSystem(cfg)
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func self(ctx actor.Context) *Ref { return incarnationOf(ctx).ref }

// failure is what the log has of one.
type failure struct{ actor, message, stack string }

// observed returns a Config that logs to a buffer, and the failures logged so far.
func observed() (Config, func() []failure) {
	core, logs := observer.New(zap.InfoLevel)
	return Config{Logger: zap.New(core)}, func() (failures []failure) {
		for _, line := range logs.FilterMessage("actor failed").All() {
			fields := line.ContextMap()
			failures = append(failures, failure{fmt.Sprint(fields["actor"]), fmt.Sprint(fields["message"]), fmt.Sprint(fields["stack"])})
		}
		return failures
	}
}

// script is an actor made of functions: what it does with each kind of message.
type script map[string]func(actor.Context)

// trace records the messages that instances of an actor handle.
type trace struct {
	mu    sync.Mutex
	lines []string
}

func (tr *trace) add(line string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.lines = append(tr.lines, line)
}

func (tr *trace) take() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	lines := strings.Join(tr.lines, " ")
	tr.lines = nil
	return lines
}

// scripted returns a constructor of instances, numbered from 1, that record what they handle and
// follow the script. The key is the message's type name or a string message itself;
// with "#N" appended it is for the Nth instance alone.
func scripted(tr *trace, sc script) func() actor.Actor {
	var mu sync.Mutex
	instances := 0
	return func() actor.Actor {
		mu.Lock()
		instances++
		n := instances
		mu.Unlock()
		return actor.ReceiveFunc(func(ctx actor.Context) {
			key, ok := ctx.Message().(string)
			if !ok {
				key = strings.TrimPrefix(fmt.Sprintf("%T", ctx.Message()), "*")
				key = key[strings.LastIndex(key, ".")+1:]
			}
			numbered := fmt.Sprintf("%s#%d", key, n)
			tr.add(numbered)
			for _, k := range []string{key, numbered} {
				if do := sc[k]; do != nil {
					do(ctx)
				}
			}
		})
	}
}

func boom(actor.Context) { panic("boom") }

// hangs blocks the turn until release is closed.
func hangs(release chan struct{}) func(actor.Context) {
	return func(actor.Context) { <-release }
}

func spawn(t testing.TB, s *System, spec Spec) *Ref {
	t.Helper()
	ref, err := s.Spawn(spec)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func statsOf(t testing.TB, s *System, path string) ActorStats {
	t.Helper()
	for _, stats := range s.Stats() {
		if stats.Path == path {
			return stats
		}
	}
	t.Fatalf("no stats of %s among %v", path, s.Stats())
	return ActorStats{}
}

func expect(t testing.TB, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// processes counts the processes that protoactor knows: two of its own and one for each incarnation.
func processes(s *System) (n int) {
	for _, bucket := range s.actors.ProcessRegistry.LocalPIDs.LocalPIDs {
		n += bucket.Count()
	}
	return n
}
