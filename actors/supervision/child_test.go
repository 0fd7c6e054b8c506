package supervision

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"
)

func TestSpawnRefusesInvalidSpecs(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		idle := scripted(&trace{}, nil)
		for _, spec := range []Spec{{}, {Name: "a"}, {New: idle}, {Name: "a/b", New: idle}, {Name: "a~2", New: idle}} {
			if ref, err := s.Spawn(spec); err == nil {
				t.Errorf("Spawn(%+v): got %v, want an error", spec, ref.path)
			}
		}
		bound := spawn(t, s, Spec{Name: "a", New: idle})
		if _, err := s.Spawn(Spec{Name: "a", New: idle}); !errors.Is(err, errNameTaken) {
			t.Errorf("Spawn with the same name: got %v, want errNameTaken", err)
		}
		if _, err := s.Spawn(Spec{Name: "b", New: idle, Ref: bound}); err == nil || !strings.Contains(err.Error(), "its Ref is bound to a") {
			t.Errorf("Spawn with the Ref of another actor: got %v", err)
		}
		spawn(t, s, Spec{Name: "eventstream", New: idle}) // a name that protoactor uses itself
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := s.Spawn(Spec{Name: "b", New: idle}); !errors.Is(err, errStopped) {
			t.Errorf("Spawn after Stop: got %v, want errStopped", err)
		}
	})
}

func TestNameOfASiblingCrashesTheSupervisor(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr trace
		child := func(ctx actor.Context) { Child(ctx, Spec{Name: "c", New: scripted(&trace{}, nil)}) }
		ref := spawn(t, s, Spec{Name: "p", New: scripted(&tr, script{"Started": child, "again": child})})
		ref.Tell("again")
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 again#1 Restarting#1 Started#2")
		if got := statsOf(t, s, "p").LastFailure; !strings.Contains(got, "spawning p/c: name is taken") {
			t.Errorf("last failure: got %q, want name is taken", got)
		}
	})
}

func TestStoppingActorHandlesNoMessages(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr trace
		release := make(chan struct{})
		ref := spawn(t, s, Spec{Name: "p", New: scripted(&tr, script{
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", New: scripted(&trace{}, script{"Stopping": hangs(release)})})
			},
			"Stopping": func(ctx actor.Context) {
				if r := Child(ctx, Spec{Name: "late", New: scripted(&trace{}, nil)}); r.Name() != "" {
					t.Error("a stopping actor got a child")
				}
			},
			"busy": func(actor.Context) { time.Sleep(time.Second) },
		})})
		ref.Tell("busy")
		ref.Tell("queued")
		synctest.Wait()
		ref.Stop()
		ref.Tell("too late")
		time.Sleep(2 * time.Second)
		expect(t, "state", statsOf(t, s, "p").State, Stopping)
		close(release)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 busy#1 Stopping#1 Stopped#1")
		ref.Tell("nobody")
		expect(t, "dropped", ref.dropped, 3)
	})
}

// An actor may stop itself by protoactor's means as well.
func TestActorStopsItself(t *testing.T) {
	stops := script{
		"Ref":     func(ctx actor.Context) { self(ctx).Stop() },
		"context": func(ctx actor.Context) { ctx.Stop(ctx.Self()) },
	}
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, s *System) {
				var tr, above trace
				spawn(t, s, Spec{Name: "p", New: scripted(&above, script{"Started": func(ctx actor.Context) {
					Child(ctx, Spec{Name: "c", New: scripted(&tr, script{"end": stop})}).Tell("end")
				}})})
				time.Sleep(time.Hour)
				synctest.Wait()
				expect(t, "messages", tr.take(), "Started#1 end#1 Stopping#1 Stopped#1")
				expect(t, "messages to the supervisor", above.take(), "Started#1")
			})
		})
	}
}

func TestStoppedChildIsSpawnedAgainBehindItsRef(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr trace
		release := make(chan struct{})
		idle := scripted(&tr, script{"hang": hangs(release)})
		child := NewRef()
		child.Tell("unbound")
		again := func(ctx actor.Context) { Child(ctx, Spec{Name: "c", New: idle, Ref: child}) }
		ref := spawn(t, s, Spec{Name: "p", New: scripted(&trace{}, script{
			"Started": again,
			"again": func(ctx actor.Context) {
				child.Stop()
				child.Tell("stopped")
				again(ctx)
				child.Tell("spawned again")
			},
		})})
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1")
		for n := range 3 {
			ref.Tell("again")
			synctest.Wait()
			expect(t, "messages", tr.take(), fmt.Sprintf("Stopping#%d Stopped#%[1]d Started#%d spawned again#%[2]d", n+1, n+2))
		}
		child.Tell("hang") // it is replaced as before
		time.Sleep(time.Minute)
		child.Tell("on")
		synctest.Wait()
		expect(t, "messages", tr.take(), "hang#4 Started#5 on#5")
		close(release)
		expect(t, "name", child.Name(), "c")
		expect(t, "dropped", statsOf(t, s, "p/c").Dropped, 4)
		expect(t, "restarts", statsOf(t, s, "p/c").Restarts, 0)
	})
}

func TestChildSpawnedWhileStoppingWaitsForTheEnd(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr trace
		release := make(chan struct{})
		spawn(t, s, Spec{Name: "p", New: scripted(&trace{}, script{"Started": func(ctx actor.Context) {
			Child(ctx, Spec{Name: "c", New: scripted(&tr, script{"Stopping": hangs(release)})}).Stop()
			Child(ctx, Spec{Name: "c", New: scripted(&tr, nil)})
		}})})
		synctest.Wait()
		expect(t, "messages while the old one stops", tr.take(), "Started#1 Stopping#1")
		close(release)
		synctest.Wait()
		expect(t, "messages after it", tr.take(), "Stopped#1 Started#1")
	})
}

func TestStoppedChildrenLeaveNoTrace(t *testing.T) {
	const children = 10_000
	s := newSystem(t, Config{Logger: zap.NewNop()})
	stopped := make(chan struct{}, children)
	n := 0
	supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&trace{}, script{
		"next": func(ctx actor.Context) {
			job := script{"Started": boom, "Stopped": func(actor.Context) { stopped <- struct{}{} }}
			n++
			Child(ctx, Spec{Name: fmt.Sprint("job-", n), New: scripted(&trace{}, job)}).Stop()
		},
	})})
	for range children {
		supervisor.Tell("next")
		<-stopped
	}
	idle := func() bool { return processes(s) == 3 } // the supervisor, and two of protoactor
	for deadline := time.Now().Add(time.Minute); !idle() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	expect(t, "actors", len(s.Stats()), 1)
	expect(t, "processes", processes(s), 3)
	if err := s.Stop(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	expect(t, "incarnations", len(s.incarnations), 0)
	expect(t, "processes", processes(s), 2)
}

// A child that stopped with its supervisor is forgotten if the next incarnation does not spawn it in Started.
func TestChildNotSpawnedAgainIsForgotten(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		idle := scripted(&trace{}, nil)
		supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&trace{}, script{
			"Started": func(ctx actor.Context) { Child(ctx, Spec{Name: "kept", New: idle}) },
			"Started#1": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "gone", New: scripted(&trace{}, script{
					"Started": func(ctx actor.Context) { Child(ctx, Spec{Name: "below", New: idle}) },
				})})
			},
			"Started#2": boom,
			"bad":       boom,
		})})
		synctest.Wait()
		supervisor.Tell("bad")
		paths := func() string {
			synctest.Wait()
			var paths []string
			for _, stats := range s.Stats() {
				paths = append(paths, stats.Path+" "+string(stats.State))
			}
			return strings.Join(paths, ", ")
		}
		time.Sleep(60 * time.Millisecond)
		expect(t, "actors after a Started that crashed", paths(), "p restarting, p/gone stopped, p/gone/below stopped, p/kept running")
		time.Sleep(time.Second)
		expect(t, "actors after one that did not", paths(), "p running, p/kept running")
		if _, ok := s.Lookup("p/gone"); ok {
			t.Error("Lookup found a forgotten child")
		}
		if _, ok := s.Lookup("p/kept"); !ok {
			t.Error("Lookup did not find a running child")
		}
	})
}
