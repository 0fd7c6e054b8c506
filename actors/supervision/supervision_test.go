package supervision

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
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
	if cfg.Backoff.Jitter == 0 {
		cfg.Backoff.Jitter = -1
	}
	return NewSystem(cfg)
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// script is an actor made of functions: what it does in each kind of message.
type script map[string]func(actor.Context)

// diary notes what instances of an actor were told.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) add(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func (d *diary) take() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := strings.Join(d.lines, " ")
	d.lines = nil
	return lines
}

// play returns a constructor for instances, numbered from 1, that keep the diary and
// follow the script. The key is the message's type name or a string message itself;
// with "#N" appended it is for the Nth instance alone.
func play(d *diary, sc script) func() actor.Actor {
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
			d.add(numbered)
			for _, k := range []string{key, numbered} {
				if do := sc[k]; do != nil {
					do(ctx)
				}
			}
		})
	}
}

func boom(actor.Context) { panic("boom") }

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

func TestAnActorIsRestartedWhateverItsTurnEndsIn(t *testing.T) {
	wrapped := errors.New("some error")
	for name, tc := range map[string]struct {
		end    func(actor.Context)
		reason string
	}{
		"a string":        {boom, "boom"},
		"an error":        {func(actor.Context) { panic(wrapped) }, "some error"},
		"nil":             {func(actor.Context) { panic(nil) }, "panic called with nil argument"},
		"a runtime error": {func(ctx actor.Context) { _ = []int{}[len(ctx.Children())] }, "index out of range"},
		"a nil pointer":   {func(actor.Context) { (*diary)(nil).add("x") }, "nil pointer dereference"},
		"Goexit":          {func(actor.Context) { runtime.Goexit() }, "runtime.Goexit"},
	} {
		t.Run(name, func(t *testing.T) {
			var failures []Failure
			cfg := Config{OnFailure: func(f Failure) { failures = append(failures, f) }}
			bubble(t, cfg, func(t *testing.T, s *System) {
				var d diary
				ref := spawn(t, s, Spec{Name: "a", New: play(&d, script{"bad": tc.end})})
				for _, msg := range []string{"one", "bad", "two", "three"} {
					ref.Tell(msg)
				}
				synctest.Wait()
				expect(t, "diary before the restart", d.take(), "Started#1 one#1 bad#1")
				stats := statsOf(t, s, "a")
				expect(t, "state", stats.State, Restarting)
				expect(t, "mailbox depth", stats.MailboxDepth, 2)
				time.Sleep(50 * time.Millisecond)
				synctest.Wait()
				expect(t, "diary after it", d.take(), "Restarting#1 Started#2 two#2 three#2")
				stats = statsOf(t, s, "a")
				expect(t, "state", stats.State, Running)
				expect(t, "restarts", stats.Restarts, 1)
				if !strings.Contains(stats.LastFailure, tc.reason) || stats.LastFailureAt.IsZero() {
					t.Errorf("last failure %q at %v, want %q", stats.LastFailure, stats.LastFailureAt, tc.reason)
				}
			})
			if len(failures) != 1 {
				t.Fatalf("failures: %v", failures)
			}
			f := failures[0]
			expect(t, "actor", f.Actor, "a")
			expect(t, "message", f.Message, "string")
			if !strings.Contains(f.Stack, "supervision_test.go") {
				t.Errorf("the stack does not lead to the panic:\n%s", f.Stack)
			}
		})
	}
}

func TestRestartsBackOffAndForgetAfterHealth(t *testing.T) {
	bubble(t, Config{Backoff: Backoff{Min: 50 * time.Millisecond, Max: time.Second, Healthy: time.Minute}}, func(t *testing.T, s *System) {
		started := make(chan time.Time, 1)
		ref := spawn(t, s, Spec{Name: "a", New: play(&diary{}, script{
			"Started": func(actor.Context) { started <- time.Now() },
			"bad":     boom,
		})})
		<-started
		crash := func() time.Duration {
			at := time.Now()
			ref.Tell("bad")
			return (<-started).Sub(at)
		}
		for _, want := range []time.Duration{50, 100, 200, 400, 800, 1000, 1000} {
			expect(t, "wait", crash(), want*time.Millisecond)
		}
		time.Sleep(time.Minute - time.Nanosecond)
		expect(t, "wait just before a healthy minute", crash(), time.Second)
		time.Sleep(time.Minute)
		expect(t, "wait after a healthy minute", crash(), 50*time.Millisecond)
		expect(t, "restarts", statsOf(t, s, "a").Restarts, 9)
	})
}

func TestAnActorThatCannotStartIsTriedForEver(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d diary
		spawn(t, s, Spec{Name: "a", New: play(&d, script{"Started": boom})})
		time.Sleep(time.Hour)
		synctest.Wait()
		stats := statsOf(t, s, "a")
		if stats.Restarts < 120 || stats.Restarts > 140 {
			t.Errorf("%d restarts in an hour, want one each 30 s after the first few", stats.Restarts)
		}
		d.take()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := d.take(); !strings.Contains(got, "Started") {
			t.Errorf("diary of the next 30 s: %q", got)
		}
	})
}

func TestAConstructorThatFailsIsAFailureOfTheActor(t *testing.T) {
	for name, bad := range map[string]func() actor.Actor{
		"panic":  func() actor.Actor { panic("no constructor") },
		"Goexit": func() actor.Actor { runtime.Goexit(); return nil },
		"nil":    func() actor.Actor { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, s *System) {
				var d diary
				good := play(&d, script{"bad": boom})
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
				expect(t, "diary", d.take(), "Started#1")
				ref.Tell("bad") // makes the third, which fails, and then the fourth
				time.Sleep(300 * time.Millisecond)
				synctest.Wait()
				expect(t, "diary", d.take(), "bad#1 Restarting#1 Started#2")
			})
		})
	}
}

// Each way of failing in each message of the teardown must leave restart and stop working.
func TestTeardownSurvivesWhatTheActorDoes(t *testing.T) {
	ends := script{
		"panic":  boom,
		"nil":    func(actor.Context) { panic(nil) },
		"Goexit": func(actor.Context) { runtime.Goexit() },
	}
	for name, end := range ends {
		for _, message := range []string{"Restarting", "Stopping", "Stopped"} {
			t.Run(message+" "+name, func(t *testing.T) {
				bubble(t, Config{}, func(t *testing.T, s *System) {
					var d, parents diary
					var child *Ref
					parent := spawn(t, s, Spec{Name: "p", New: play(&parents, script{
						"Started": func(ctx actor.Context) {
							child = Child(ctx, Spec{Name: "c", New: play(&d, script{message: end, "bad": boom})})
						},
					})})
					synctest.Wait()
					child.Tell("bad")
					time.Sleep(time.Second)
					synctest.Wait()
					expect(t, "diary over a restart", d.take(), "Started#1 bad#1 Restarting#1 Started#2")
					child.Stop()
					synctest.Wait()
					expect(t, "diary over a stop", d.take(), "Stopping#2 Stopped#2")
					expect(t, "state", statsOf(t, s, "p/c").State, Stopped)
					expect(t, "failures", statsOf(t, s, "p/c").Failures, 2)
					parent.Tell("still here")
					time.Sleep(time.Hour)
					synctest.Wait()
					expect(t, "diary an hour later", d.take(), "")
					expect(t, "diary of the parent", parents.take(), "Started#1 Terminated#1 still here#1")
				})
			})
		}
	}
}

func TestAPanicInTerminatedRestartsTheParent(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d, parents diary
		spawn(t, s, Spec{Name: "p", New: play(&parents, script{
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", New: play(&d, script{"end": func(ctx actor.Context) { Self(ctx).Stop() }})}).Tell("end")
			},
			"Terminated#1": boom,
		})})
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, "diary of the parent", parents.take(), "Started#1 Terminated#1 Restarting#1 Started#2 Terminated#2")
	})
}

func TestARestartOfTheParentRenewsItsChildren(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d, parents diary
		shared := NewRef()
		var own *Ref
		make := play(&d, nil)
		parent := spawn(t, s, Spec{Name: "p", New: play(&parents, script{
			"bad": boom,
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", New: make, Ref: shared})
				if r := Child(ctx, Spec{Name: "d", New: play(&diary{}, script{"bad": boom})}); own == nil {
					own = r
				}
			},
		})})
		synctest.Wait()
		own.Tell("bad")
		time.Sleep(time.Second)
		parent.Tell("bad")
		shared.Tell("while the parent waits")
		synctest.Wait()
		expect(t, "diary of the child", d.take(), "Started#1 while the parent waits#1")
		time.Sleep(time.Second)
		shared.Tell("after")
		own.Tell("bad")
		synctest.Wait()
		expect(t, "diary of the child", d.take(), "Stopping#1 Stopped#1 Started#2 after#2")
		expect(t, "diary of the parent", parents.take(), "Started#1 bad#1 Restarting#1 Started#2")
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, "restarts of the child, over its parent's", statsOf(t, s, "p/d").Restarts, 2)
		expect(t, "parent", statsOf(t, s, "p/d").Parent, "p")
	})
}

func TestACrashedLeafTouchesNobodyElse(t *testing.T) {
	bubble(t, Config{FaultInjection: true}, func(t *testing.T, s *System) {
		var siblings, parents diary
		leaf := NewRef()
		spawn(t, s, Spec{Name: "p", New: play(&parents, script{"Started": func(ctx actor.Context) {
			Child(ctx, Spec{Name: "leaf", Ref: leaf, New: play(&diary{}, nil)})
			Child(ctx, Spec{Name: "sibling", New: play(&siblings, nil)})
		}})})
		synctest.Wait()
		for range 20 {
			leaf.Tell(Crash{"as asked"})
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		expect(t, "diary of the sibling", siblings.take(), "Started#1")
		expect(t, "diary of the parent", parents.take(), "Started#1")
		expect(t, "restarts", statsOf(t, s, "p/leaf").Restarts, 20)
		expect(t, "reason", statsOf(t, s, "p/leaf").LastFailure, "as asked")
	})
}

func TestFaultsAreInjectedOnlyWhereAllowed(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d diary
		ref := spawn(t, s, Spec{Name: "a", New: play(&d, nil)})
		for _, msg := range []any{Crash{"x"}, &Crash{"x"}, Hang{}, &Hang{}, "on"} {
			ref.Tell(msg)
		}
		synctest.Wait()
		expect(t, "diary", d.take(), "Started#1 on#1")
	})
}

// A restart that is due must hit neither another incarnation nor a stopped actor.
func TestALateRestartHitsNobody(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d diary
		ref := spawn(t, s, Spec{Name: "a", New: play(&d, script{"bad": boom})})
		c := ref.role.Load().cell.Load()
		c.mailbox.PostSystemMessage(restart{1}) // not failed
		ref.Tell("bad")
		synctest.Wait()
		c.mailbox.PostSystemMessage(restart{0}) // not this incarnation
		c.mailbox.PostSystemMessage(&actor.Restart{})
		c.mailbox.PostSystemMessage(&actor.ResumeMailbox{})
		ref.Tell("not yet")
		synctest.Wait()
		expect(t, "diary", d.take(), "Started#1 bad#1")
		ref.Stop()
		synctest.Wait()
		c.mailbox.PostSystemMessage(restart{1})
		time.Sleep(time.Hour)
		synctest.Wait()
		expect(t, "diary", d.take(), "Stopping#1 Stopped#1")
		expect(t, "dropped", statsOf(t, s, "a").Dropped, 1)
	})
}

func TestAStoppingActorGetsNoMoreMessages(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d diary
		release := make(chan struct{})
		ref := spawn(t, s, Spec{Name: "p", New: play(&d, script{
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", New: play(&diary{}, script{"Stopping": func(actor.Context) { <-release }})})
			},
			"Stopping": func(ctx actor.Context) {
				if r := Child(ctx, Spec{Name: "late", New: play(&diary{}, nil)}); r.Name() != "" {
					t.Error("a stopping actor got a child")
				}
			},
		})})
		synctest.Wait()
		ref.Stop()
		ref.Tell("too late")
		synctest.Wait()
		expect(t, "state", statsOf(t, s, "p").State, Stopping)
		close(release)
		synctest.Wait()
		expect(t, "diary", d.take(), "Started#1 Stopping#1 Stopped#1")
		ref.Tell("nobody")
		expect(t, "dropped by the Ref", ref.Dropped(), 1)
		expect(t, "dropped in all", statsOf(t, s, "p").Dropped, 2)
	})
}

func TestATemporaryChildEndsWithItsCrash(t *testing.T) {
	bubble(t, Config{FaultInjection: true}, func(t *testing.T, s *System) {
		var d, parents diary
		var failed []*ChildFailed
		spec := Spec{Name: "job", Temporary: true, New: play(&d, nil)}
		parent := spawn(t, s, Spec{Name: "p", New: play(&parents, script{
			"crash": func(ctx actor.Context) { Child(ctx, spec).Tell(Crash{"job is bad"}) },
			"stop":  func(ctx actor.Context) { Child(ctx, spec).Stop() },
			"ChildFailed": func(ctx actor.Context) {
				failed = append(failed, ctx.Message().(*ChildFailed))
				Child(ctx, spec) // its name is free
			},
		})})
		parent.Tell("crash")
		synctest.Wait()
		expect(t, "diary", d.take(), "Started#1 Stopping#1 Stopped#1 Started#2")
		expect(t, "diary of the parent", parents.take(), "Started#1 crash#1 ChildFailed#1")
		if len(failed) != 1 || failed[0].Name != "job" || failed[0].Reason != "job is bad" || !strings.Contains(failed[0].Stack, "crash") {
			t.Fatalf("failed: %+v", failed)
		}
		s.mu.Lock()
		again := s.roles["p/job"].ref
		s.mu.Unlock()
		again.Stop()
		synctest.Wait()
		parent.Tell("stop")
		synctest.Wait()
		expect(t, "diary of the parent, of ordinary ends", parents.take(), "stop#1")
	})
}

func TestTemporaryChildrenLeaveNoTrace(t *testing.T) {
	const children = 10_000
	s := newSystem(t, Config{Logger: quietLogger()})
	var d diary
	ended := make(chan struct{}, children)
	parent := spawn(t, s, Spec{Name: "p", New: play(&d, script{
		"ChildFailed": func(actor.Context) { ended <- struct{}{} },
		"next": func(ctx actor.Context) {
			r := Child(ctx, Spec{Name: fmt.Sprint("job-", tokens.Add(1)), Temporary: true, New: play(&diary{}, script{"bad": boom})})
			r.Tell("bad")
		},
	})})
	for range children {
		parent.Tell("next")
	}
	for range children {
		<-ended
	}
	s.mu.Lock()
	c := parent.role.Load().cell.Load()
	expect(t, "roles", len(s.roles), 1)
	expect(t, "children", len(c.children), 0)
	s.mu.Unlock()
	expect(t, "processes", processes(s), 3) // the parent, and two of the library
	if err := s.Stop(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	expect(t, "cells", len(s.cells), 0)
	expect(t, "processes", processes(s), 2)
}

func processes(s *System) (n int) {
	for _, bucket := range s.actors.ProcessRegistry.LocalPIDs.LocalPIDs {
		n += bucket.Count()
	}
	return n
}

func TestSpawnRefusesWhatItCannotName(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		make := play(&diary{}, nil)
		for _, spec := range []Spec{{}, {Name: "a"}, {New: make}, {Name: "a/b", New: make}, {Name: "a~2", New: make}} {
			if ref, err := s.Spawn(spec); err == nil {
				t.Errorf("%+v: got %v", spec, ref.Path())
			}
		}
		spawn(t, s, Spec{Name: "a", New: make})
		if _, err := s.Spawn(Spec{Name: "a", New: make}); !errors.Is(err, ErrNameTaken) {
			t.Errorf("the same name again: %v", err)
		}
		spawn(t, s, Spec{Name: "eventstream", New: make}) // a name the library has given out itself
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := s.Spawn(Spec{Name: "b", New: make}); !errors.Is(err, ErrStopped) {
			t.Errorf("after Stop: %v", err)
		}
	})
}

func TestAnUnsupervisedChildDoesNotFailSilently(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d diary
		spawn(t, s, Spec{Name: "p", New: play(&d, script{"Started": func(ctx actor.Context) {
			pid := ctx.Spawn(actor.PropsFromFunc(func(ctx actor.Context) {
				if ctx.Message() == "bad" {
					panic("bad")
				}
			}))
			ctx.Watch(pid)
			ctx.Send(pid, "bad")
		}})})
		synctest.Wait()
		expect(t, "restarts of the parent", statsOf(t, s, "p").Restarts, 0)
	})
}

func TestStatsAreSortedByPath(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		for _, name := range []string{"b", "c", "a"} {
			spawn(t, s, Spec{Name: name, New: play(&diary{}, nil)})
		}
		var paths []string
		for _, stats := range s.Stats() {
			paths = append(paths, stats.Path)
		}
		if !slices.Equal(paths, []string{"a", "b", "c"}) {
			t.Errorf("paths: %v", paths)
		}
	})
}

func TestASiblingsNameIsAFailureOfTheParent(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d diary
		ref := spawn(t, s, Spec{Name: "p", New: play(&d, script{"Started": func(ctx actor.Context) {
			Child(ctx, Spec{Name: "c", New: play(&diary{}, nil)})
		}, "again": func(ctx actor.Context) {
			Child(ctx, Spec{Name: "c", New: play(&diary{}, nil)})
		}})})
		ref.Tell("again")
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, "diary", d.take(), "Started#1 again#1 Restarting#1 Started#2")
		if reason := statsOf(t, s, "p").LastFailure; !strings.Contains(reason, "spawning p/c: name is taken") {
			t.Errorf("reason: %s", reason)
		}
	})
}

func TestAStoppedChildCanBeSpawnedAgainBehindItsRef(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d, parents diary
		release := make(chan struct{})
		make := play(&d, script{"hang": hangs(release)})
		child := NewRef()
		child.Tell("nobody yet")
		again := func(ctx actor.Context) { Child(ctx, Spec{Name: "c", New: make, Ref: child}) }
		ref := spawn(t, s, Spec{Name: "p", New: play(&parents, script{"Started": again, "again": func(ctx actor.Context) {
			child.Stop()
			leaving(child)
			again(ctx)
		}})})
		synctest.Wait()
		for n := range 3 {
			ref.Tell("again")
			synctest.Wait()
			child.Tell("on")
			synctest.Wait()
			expect(t, "end of the diary", strings.HasSuffix(d.take(), fmt.Sprintf("on#%d", n+2)), true)
		}
		child.Tell("hang") // and who was spawned again is replaced again
		time.Sleep(time.Minute)
		child.Tell("on")
		synctest.Wait()
		expect(t, "diary", d.take(), "hang#4 Started#5 on#5")
		close(release)
		expect(t, "name", child.Path()+" "+child.Name(), "p/c c")
		expect(t, "dropped", child.Dropped(), 1)
		expect(t, "stopped children heard of", parents.take(), "Started#1 again#1 Terminated#1 again#1 Terminated#1 again#1 Terminated#1")
	})
}

// leaving returns when whoever plays the role is on its way out.
func leaving(r *Ref) {
	for c := r.role.Load().cell.Load(); c != nil && c.current(); {
		runtime.Gosched()
	}
}

func TestAnInjectedHangEnds(t *testing.T) {
	bubble(t, Config{FaultInjection: true}, func(t *testing.T, s *System) {
		var d diary
		ref := spawn(t, s, Spec{Name: "a", New: play(&d, nil)})
		ref.Tell(Hang{For: 10 * time.Second})
		ref.Tell("after")
		time.Sleep(10*time.Second - 1)
		expect(t, "diary", d.take(), "Started#1")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		expect(t, "diary", d.take(), "after#1")
	})
}
