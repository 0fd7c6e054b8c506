package supervision

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

func TestHungActorIsReplacedBehindItsRef(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr, above, work trace
		release := make(chan struct{})
		var child *Ref
		spawn(t, s, Spec{Name: "p", New: scripted(&above, script{"Started": func(ctx actor.Context) {
			child = Child(ctx, Spec{Name: "c", New: scripted(&tr, script{
				"Started": func(ctx actor.Context) {
					Go(ctx, func(ctx context.Context) (int, error) { <-ctx.Done(); work.add("cancelled"); return 0, nil }, nil)
				},
				"Started#1": func(ctx actor.Context) { After(ctx, time.Minute, boom) },
				"hang": func(ctx actor.Context) {
					<-release
					Go(ctx, func(context.Context) (int, error) { tr.add("late work"); return 0, nil }, nil)
					After(ctx, 0, boom).Stop()
					Poster(ctx)(boom)
					self(ctx).Tell("from the late one")
					if r := Child(ctx, Spec{Name: "x", New: scripted(&tr, nil)}); r.Name() != "" {
						t.Error("an abandoned actor got a child")
					}
					StopInOrder(ctx, nil, func(actor.Context, []StopReport) { t.Error("an abandoned actor stops children") })
				},
			})})
		}})})
		synctest.Wait()
		child.Tell("hang")
		child.Tell("kept")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if err := s.Live(); err != nil {
			t.Errorf("Live before the probe is overdue: %v", err)
		}
		time.Sleep(10 * time.Second)
		child.Tell("two")
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 hang#1 Started#2 kept#2 two#2")
		expect(t, "work of the abandoned one", work.take(), "cancelled")
		stats := statsOf(t, s, "p/c")
		expect(t, "abandoned", stats.Abandoned, 1)
		expect(t, "restarts", stats.Restarts, 0)
		expect(t, "dropped", stats.Dropped, 0)
		expect(t, "state", stats.State, Running)
		if err := s.Live(); err != nil {
			t.Errorf("Live after the replacement: %v", err)
		}
		time.Sleep(time.Minute)

		close(release) // the late return
		synctest.Wait()
		expect(t, "messages after the late return", tr.take(), "from the late one#2")
		child.Tell("three")
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "messages after it", tr.take(), "three#2")
		expect(t, "messages to the supervisor", above.take(), "Started#1")
		expect(t, "processes", processes(s), 4)
	})
}

func TestHangWhileStartingOrEndingIsReplaced(t *testing.T) {
	for _, message := range []string{"Started", "Restarting"} {
		t.Run(message, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, s *System) {
				var tr trace
				release := make(chan struct{})
				ref := spawn(t, s, Spec{Name: "a", New: scripted(&tr, script{message + "#1": hangs(release), "bad": boom})})
				ref.Tell("bad")
				time.Sleep(time.Minute)
				ref.Tell("on")
				synctest.Wait()
				want := map[string]string{
					"Started":    "Started#1 Started#2 bad#2 Restarting#2 Started#3 on#3",
					"Restarting": "Started#1 bad#1 Restarting#1 Started#2 on#2",
				}
				expect(t, "messages", tr.take(), want[message])
				close(release)
				time.Sleep(time.Minute)
				synctest.Wait()
				expect(t, "messages of the late return", tr.take(), "")
				expect(t, "state", statsOf(t, s, "a").State, Running)
			})
		})
	}
}

func TestLatePanicOfAnAbandonedActorIsContained(t *testing.T) {
	ends := script{"panic": boom, "Goexit": func(actor.Context) { runtime.Goexit() }}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, s *System) {
				var tr trace
				release := make(chan struct{})
				ref := spawn(t, s, Spec{Name: "a", New: scripted(&tr, script{"hang": func(ctx actor.Context) { <-release; end(ctx) }})})
				ref.Tell("hang")
				time.Sleep(time.Minute)
				close(release)
				time.Sleep(time.Minute)
				synctest.Wait()
				expect(t, "messages", tr.take(), "Started#1 hang#1 Started#2")
				expect(t, "failures", statsOf(t, s, "a").Failures, 1)
			})
		})
	}
}

func TestHungSupervisorIsReplacedAfterItsChildren(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr, above trace
		release, childRelease := make(chan struct{}), make(chan struct{})
		again := scripted(&tr, script{"Stopping#1": hangs(childRelease)})
		supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&above, script{
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", New: again})
			},
			"hang": hangs(release),
		})})
		supervisor.Tell("hang")
		time.Sleep(40 * time.Second)
		synctest.Wait()
		expect(t, "messages to the child", tr.take(), "Started#1 Stopping#1")
		expect(t, "messages to the supervisor", above.take(), "Started#1 hang#1")
		expect(t, "state of the supervisor", statsOf(t, s, "p").State, Hung)
		close(childRelease)
		synctest.Wait()
		expect(t, "messages to the child", tr.take(), "Stopped#1 Started#2")
		expect(t, "messages to the supervisor", above.take(), "Started#2")
		close(release)
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "messages to the supervisor", above.take(), "")
		expect(t, "messages to the child", tr.take(), "")
	})
}

func TestHungSupervisorWithHungChildIsReplaced(t *testing.T) {
	bubble(t, Config{MaxAbandoned: 9}, func(t *testing.T, s *System) {
		var tr, above trace
		release := make(chan struct{})
		again := scripted(&tr, script{"Stopping#1": hangs(release)})
		supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&above, script{
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", New: again})
			},
			"hang": hangs(release),
		})})
		supervisor.Tell("hang")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		expect(t, "messages to the child", tr.take(), "Started#1 Stopping#1 Started#2")
		expect(t, "messages to the supervisor", above.take(), "Started#1 hang#1 Started#2")
		close(release)
	})
}

func TestHungChildDelaysRestartOnlyUntilAbandoned(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr, above trace
		release := make(chan struct{})
		var child *Ref
		again := scripted(&tr, script{"hang": hangs(release)})
		supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&above, script{
			"Started": func(ctx actor.Context) {
				child = Child(ctx, Spec{Name: "c", New: again})
			},
			"bad": boom,
		})})
		synctest.Wait()
		first := child
		child.Tell("hang")
		synctest.Wait()
		supervisor.Tell("bad")
		time.Sleep(20 * time.Second)
		expect(t, "state of the supervisor", statsOf(t, s, "p").State, Restarting)
		time.Sleep(20 * time.Second)
		first.Tell("on")
		synctest.Wait()
		expect(t, "messages to the child", tr.take(), "Started#1 hang#1 Started#2 on#2")
		expect(t, "messages to the supervisor", above.take(), "Started#1 bad#1 Restarting#1 Started#2")
		close(release)
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "messages to the child", tr.take(), "")
		expect(t, "messages to the supervisor", above.take(), "")
	})
}

func TestHungActorAskedToStopIsNotReplaced(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr, above trace
		release := make(chan struct{})
		var child *Ref
		spawn(t, s, Spec{Name: "p", New: scripted(&above, script{"Started": func(ctx actor.Context) {
			child = Child(ctx, Spec{Name: "c", New: scripted(&tr, script{"hang": hangs(release)})})
		}})})
		synctest.Wait()
		child.Tell("hang")
		synctest.Wait()
		child.Stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 hang#1")
		expect(t, "messages to the supervisor", above.take(), "Started#1")
		close(release)
		synctest.Wait()
		expect(t, "messages of the late return", tr.take(), "")
		expect(t, "actors", len(s.Stats()), 1)
	})
}

func TestActorThatHangsWhileStoppingIsNotReplaced(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr, above trace
		release := make(chan struct{})
		spawn(t, s, Spec{Name: "p", New: scripted(&above, script{"Started": func(ctx actor.Context) {
			Child(ctx, Spec{Name: "c", New: scripted(&tr, script{
				"end":      func(ctx actor.Context) { ctx.Stop(ctx.Self()) },
				"Stopping": hangs(release),
			})}).Tell("end")
		}})})
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 end#1 Stopping#1")
		expect(t, "messages to the supervisor", above.take(), "Started#1")
		close(release)
	})
}

func TestHungChildOfOldIncarnationIsNotReplaced(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr, above trace
		release := make(chan struct{})
		supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&above, script{
			"Started#1": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", New: scripted(&tr, script{"hang": hangs(release)})}).Tell("hang")
			},
			"bad": boom,
		})})
		synctest.Wait()
		supervisor.Tell("bad")
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 hang#1")
		expect(t, "messages to the supervisor", above.take(), "Started#1 bad#1 Restarting#1 Started#2")
		close(release)
	})
}

// The turn of a hung actor may return while its replacement waits for its children.
func TestEarlyReturnDoesNotPreventReplacement(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr trace
		release, childRelease := make(chan struct{}), make(chan struct{})
		child := scripted(&trace{}, script{"Stopping#1": hangs(childRelease)})
		ref := spawn(t, s, Spec{Name: "p", New: scripted(&tr, script{
			"Started": func(ctx actor.Context) { Child(ctx, Spec{Name: "c", New: child}) },
			"hang":    hangs(release),
		})})
		ref.Tell("hang")
		time.Sleep(40 * time.Second)
		close(release)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 hang#1")
		close(childRelease)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#2")
		expect(t, "state", statsOf(t, s, "p").State, Running)
	})
}

func TestReplacementNeedsNoTurnOfTheSupervisor(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr trace
		release := make(chan struct{})
		child := NewRef()
		supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&trace{}, script{
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", Ref: child, New: scripted(&tr, script{"hang": hangs(release)})})
			},
			"busy": func(actor.Context) { time.Sleep(20 * time.Second) },
		})})
		synctest.Wait()
		child.Tell("hang")
		time.Sleep(30 * time.Second)
		supervisor.Tell("busy")
		time.Sleep(15 * time.Second)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 hang#1 Started#2")
		close(release)
	})
}

func TestSystemGivesUpAfterTooManyHungActors(t *testing.T) {
	var fatal []string
	cfg := Config{FaultInjection: true, MaxAbandoned: 2, OnFatal: func(reason string) {
		fatal = append(fatal, reason)
		panic("contained as well")
	}}
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, cfg)
		ref := spawn(t, s, Spec{Name: "a", New: scripted(&trace{}, nil)})
		for hangs := range 3 {
			ref.Tell(&Hang{})
			time.Sleep(time.Minute)
			synctest.Wait()
			expect(t, "abandoned", statsOf(t, s, "a").Abandoned, hangs+1)
			expect(t, "calls of OnFatal", len(fatal), min(hangs, 1))
		}
		expect(t, "reason", fatal[0], "actor a hangs, and the limit of abandoned actors is 2")
		expect(t, "Live", fmt.Sprint(s.Live()), "supervision gave up: "+fatal[0]+" (abandoned so far: a, a)")
		err := s.Stop(within(t, time.Second))
		if err == nil || !strings.Contains(err.Error(), "still running: a (hung), a (hung), a (hung)") {
			t.Errorf("Stop: got %v, want the three that never ended", err)
		}
	})
}

func TestSystemGivesUpWhenACriticalActorHangs(t *testing.T) {
	for _, critical := range []string{"beat", "p/beat"} {
		fatal := make(chan string, 1)
		cfg := Config{Critical: []string{critical}, OnFatal: func(reason string) { fatal <- reason }}
		bubble(t, cfg, func(t *testing.T, s *System) {
			release := make(chan struct{})
			spawn(t, s, Spec{Name: "p", New: scripted(&trace{}, script{"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "beat", New: scripted(&trace{}, script{"hang": hangs(release)})}).Tell("hang")
			}})})
			time.Sleep(time.Minute)
			synctest.Wait()
			close(release)
		})
		expect(t, "reason", <-fatal, "actor p/beat hangs")
	}
}

func TestLiveNamesHungActors(t *testing.T) {
	bubble(t, Config{ProbeInterval: 40 * time.Second, HangAfter: 30 * time.Second}, func(t *testing.T, s *System) {
		release := make(chan struct{})
		ref := spawn(t, s, Spec{Name: "a", New: scripted(&trace{}, script{"hang": hangs(release), "bad": boom})})
		ref.Tell("bad") // an actor that waits for its restart answers
		time.Sleep(39 * time.Second)
		ref.Tell("hang")
		time.Sleep(42 * time.Second) // probed at 40 s, found overdue at 80 s, to be given up at 120 s
		synctest.Wait()
		if err := s.Live(); err == nil || err.Error() != "actors hang: a" {
			t.Errorf("Live: %v", err)
		}
		expect(t, "state", statsOf(t, s, "a").State, Hung)
		close(release)
		synctest.Wait()
		if err := s.Live(); err != nil {
			t.Errorf("Live after the actor came round: %v", err)
		}
		expect(t, "abandoned", statsOf(t, s, "a").Abandoned, 0)
	})
}

func TestLiveReportsALateProbe(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		time.Sleep(time.Hour)
		if err := s.Live(); err != nil {
			t.Errorf("Live: got %v, want nil", err)
		}
		s.mu.Lock()
		s.lastSweep = time.Now().Add(-41 * time.Second)
		s.mu.Unlock()
		if err := s.Live(); err == nil || err.Error() != "the liveness probe is late" {
			t.Errorf("Live with a late probe: got %v", err)
		}
	})
}

func TestIdleBusyAndCrashingActorsAreNotHung(t *testing.T) {
	bubble(t, Config{ProbeInterval: time.Second, HangAfter: 2 * time.Second}, func(t *testing.T, s *System) {
		spawn(t, s, Spec{Name: "idle", New: scripted(&trace{}, nil)})
		spawn(t, s, Spec{Name: "busy", New: scripted(&trace{}, script{
			"Started": func(ctx actor.Context) { self(ctx).Tell("again") },
			"again":   func(ctx actor.Context) { time.Sleep(time.Second); self(ctx).Tell("again") },
		})})
		spawn(t, s, Spec{Name: "failing", New: scripted(&trace{}, script{"Started": boom})})
		time.Sleep(time.Hour)
		for _, stats := range s.Stats() {
			expect(t, "abandoned "+stats.Path, stats.Abandoned, 0)
		}
	})
}
