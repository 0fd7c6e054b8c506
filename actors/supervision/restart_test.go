package supervision

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

func TestRestartAfterAnyFailureOfATurn(t *testing.T) {
	wrapped := errors.New("some error")
	for name, tc := range map[string]struct {
		end    func(actor.Context)
		reason string
	}{
		"a string":        {boom, "boom"},
		"an error":        {func(actor.Context) { panic(wrapped) }, "some error"},
		"nil":             {func(actor.Context) { panic(nil) }, "panic called with nil argument"},
		"a runtime error": {func(ctx actor.Context) { _ = []int{}[len(ctx.Children())] }, "index out of range"},
		"a nil pointer":   {func(actor.Context) { (*trace)(nil).add("x") }, "nil pointer dereference"},
		"Goexit":          {func(actor.Context) { runtime.Goexit() }, "runtime.Goexit"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, failures := observed()
			bubble(t, cfg, func(t *testing.T, s *System) {
				var tr trace
				ref := spawn(t, s, Spec{Name: "a", New: scripted(&tr, script{"bad": tc.end})})
				for _, msg := range []string{"one", "bad", "two", "three"} {
					ref.Tell(msg)
				}
				synctest.Wait()
				expect(t, "messages before the restart", tr.take(), "Started#1 one#1 bad#1")
				stats := statsOf(t, s, "a")
				expect(t, "state", stats.State, Restarting)
				expect(t, "mailbox depth", stats.MailboxDepth, 2)
				time.Sleep(50 * time.Millisecond)
				synctest.Wait()
				expect(t, "messages after it", tr.take(), "Restarting#1 Started#2 two#2 three#2")
				stats = statsOf(t, s, "a")
				expect(t, "state", stats.State, Running)
				expect(t, "restarts", stats.Restarts, 1)
				if !strings.Contains(stats.LastFailure, tc.reason) || stats.LastFailureAt.IsZero() {
					t.Errorf("last failure: got %q at %v, want %q", stats.LastFailure, stats.LastFailureAt, tc.reason)
				}
			})
			if len(failures()) != 1 {
				t.Fatalf("failures: got %v, want one", failures())
			}
			f := failures()[0]
			expect(t, "actor", f.actor, "a")
			expect(t, "message", f.message, "string")
			if !strings.Contains(f.stack, "_test.go") {
				t.Errorf("stack without the line that panicked:\n%s", f.stack)
			}
		})
	}
}

func TestRestartWaitsDoubleAndReset(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		started := make(chan time.Time, 1)
		ref := spawn(t, s, Spec{Name: "a", New: scripted(&trace{}, script{
			"Started": func(actor.Context) { started <- time.Now() },
			"bad":     boom,
		})})
		<-started
		crash := func(what string, longest time.Duration) {
			t.Helper()
			at := time.Now()
			ref.Tell("bad")
			if wait := (<-started).Sub(at); wait > longest || wait < longest*2/3-time.Microsecond {
				t.Errorf("wait %s: got %v, want %v or up to a third less", what, wait, longest)
			}
		}
		for _, longest := range []time.Duration{50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000} {
			crash("after the next crash", longest*time.Millisecond)
		}
		time.Sleep(time.Minute - time.Nanosecond)
		crash("just before a healthy minute", 30*time.Second)
		time.Sleep(time.Minute)
		crash("after a healthy minute", 50*time.Millisecond)
		expect(t, "restarts", statsOf(t, s, "a").Restarts, 14)
	})
}

func TestRestartWaitsNeverExceedTheirBounds(t *testing.T) {
	now := time.Unix(1e9, 0)
	for range 1000 {
		r := &Ref{backoff: newBackoff(), startedAt: now}
		longest := 50 * time.Millisecond
		for crash := range 15 {
			if wait := r.restartWait(now); wait > longest || wait < longest/2 {
				t.Fatalf("wait after crash %d: got %v, want at most %v and at least half of it", crash+1, wait, longest)
			}
			longest = min(2*longest, 30*time.Second)
		}
	}
}

func TestRestartsHaveNoLimit(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr trace
		spawn(t, s, Spec{Name: "a", New: scripted(&tr, script{"Started": boom})})
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := statsOf(t, s, "a").Restarts; got < 120 || got > 190 {
			t.Errorf("restarts in an hour: got %d, want one each 20 s to 30 s after the first few", got)
		}
		tr.take()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := tr.take(); !strings.Contains(got, "Started") {
			t.Errorf("messages in the next 30 s: got %q, want Started", got)
		}
	})
}

func TestFailingConstructorIsRetried(t *testing.T) {
	for name, bad := range map[string]func() actor.Actor{
		"panic":  func() actor.Actor { panic("no constructor") },
		"Goexit": func() actor.Actor { runtime.Goexit(); return nil },
		"nil":    func() actor.Actor { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, s *System) {
				var tr trace
				good := scripted(&tr, script{"bad": boom})
				calls := 0
				ref := spawn(t, s, Spec{Name: "a", New: func() actor.Actor {
					if calls++; calls%2 == 1 {
						return bad()
					}
					return good()
				}})
				synctest.Wait()
				expect(t, "state", statsOf(t, s, "a").State, Restarting)
				time.Sleep(50 * time.Millisecond)
				synctest.Wait()
				expect(t, "messages", tr.take(), "Started#1")
				ref.Tell("bad") // makes the third, which fails, and then the fourth
				time.Sleep(300 * time.Millisecond)
				synctest.Wait()
				expect(t, "messages", tr.take(), "bad#1 Restarting#1 Started#2")
			})
		})
	}
}

// Each kind of failure in each message of the end must leave restart and stop working.
func TestFailuresWhileEndingAreContained(t *testing.T) {
	ends := script{
		"panic":  boom,
		"nil":    func(actor.Context) { panic(nil) },
		"Goexit": func(actor.Context) { runtime.Goexit() },
	}
	for name, end := range ends {
		for _, message := range []string{"Restarting", "Stopping", "Stopped"} {
			t.Run(message+" "+name, func(t *testing.T) {
				cfg, failures := observed()
				bubble(t, cfg, func(t *testing.T, s *System) {
					var tr, above trace
					var child *Ref
					supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&above, script{
						"Started": func(ctx actor.Context) {
							child = Child(ctx, Spec{Name: "c", New: scripted(&tr, script{message: end, "bad": boom})})
						},
					})})
					synctest.Wait()
					child.Tell("bad")
					time.Sleep(time.Second)
					synctest.Wait()
					expect(t, "messages over a restart", tr.take(), "Started#1 bad#1 Restarting#1 Started#2")
					child.Stop()
					synctest.Wait()
					expect(t, "messages over a stop", tr.take(), "Stopping#2 Stopped#2")
					supervisor.Tell("still here")
					time.Sleep(time.Hour)
					synctest.Wait()
					expect(t, "messages an hour later", tr.take(), "")
					expect(t, "messages to the supervisor", above.take(), "Started#1 still here#1")
				})
				if f := failures(); len(f) != 2 || f[1].message != "*actor."+message {
					t.Errorf("failures: got %+v, want the crash and that in %s", f, message)
				}
			})
		}
	}
}

func TestRestartOfSupervisorRestartsItsChildren(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr, above trace
		shared := NewRef()
		var own *Ref
		child := scripted(&tr, nil)
		supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&above, script{
			"bad": boom,
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", New: child, Ref: shared})
				if r := Child(ctx, Spec{Name: "d", New: scripted(&trace{}, script{"bad": boom})}); own == nil {
					own = r
				}
			},
		})})
		synctest.Wait()
		own.Tell("bad")
		time.Sleep(time.Second)
		supervisor.Tell("bad")
		shared.Tell("while the supervisor waits")
		synctest.Wait()
		expect(t, "messages to the child", tr.take(), "Started#1 while the supervisor waits#1")
		time.Sleep(time.Second)
		shared.Tell("after")
		own.Tell("bad")
		synctest.Wait()
		expect(t, "messages to the child", tr.take(), "Stopping#1 Stopped#1 Started#2 after#2")
		expect(t, "messages to the supervisor", above.take(), "Started#1 bad#1 Restarting#1 Started#2")
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, "restarts of the child, over its supervisor's", statsOf(t, s, "p/d").Restarts, 2)
		expect(t, "parent", statsOf(t, s, "p/d").Parent, "p")
	})
}

func TestCrashOfLeafAffectsNoOtherActor(t *testing.T) {
	bubble(t, Config{FaultInjection: true}, func(t *testing.T, s *System) {
		var siblings, above trace
		leaf := NewRef()
		spawn(t, s, Spec{Name: "p", New: scripted(&above, script{"Started": func(ctx actor.Context) {
			Child(ctx, Spec{Name: "leaf", Ref: leaf, New: scripted(&trace{}, nil)})
			Child(ctx, Spec{Name: "sibling", New: scripted(&siblings, nil)})
		}})})
		synctest.Wait()
		for range 20 {
			leaf.Tell(&Crash{"as asked"})
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		expect(t, "messages to the sibling", siblings.take(), "Started#1")
		expect(t, "messages to the supervisor", above.take(), "Started#1")
		expect(t, "restarts", statsOf(t, s, "p/leaf").Restarts, 20)
		expect(t, "reason", statsOf(t, s, "p/leaf").LastFailure, "as asked")
	})
}

func TestRestartNeedsNoTurnOfTheSupervisor(t *testing.T) {
	bubble(t, Config{HangAfter: time.Minute}, func(t *testing.T, s *System) {
		var tr trace
		release := make(chan struct{})
		child := NewRef()
		supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&trace{}, script{
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", Ref: child, New: scripted(&tr, script{"bad": boom})})
			},
			"busy": hangs(release),
		})})
		supervisor.Tell("busy")
		synctest.Wait()
		child.Tell("bad")
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 bad#1 Restarting#1 Started#2")
		close(release)
	})
}

// A restart that is due must hit neither a later incarnation nor a stopped actor.
func TestLateRestartAffectsNoOtherActor(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr trace
		ref := spawn(t, s, Spec{Name: "a", New: scripted(&tr, script{"bad": boom})})
		first := ref.incarnation()
		ref.Tell("bad")
		time.Sleep(time.Second)
		first.post(end{})
		ref.Tell("bad")
		synctest.Wait()
		second := ref.incarnation()
		second.post(&actor.Restart{})
		second.post(&actor.ResumeMailbox{})
		ref.Tell("not yet")
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 bad#1 Restarting#1 Started#2 bad#2")
		ref.Stop()
		synctest.Wait()
		second.post(end{})
		time.Sleep(time.Hour)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Stopping#2 Stopped#2")
		expect(t, "dropped", ref.dropped, 1)
	})
}
