package supervision

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// hangs blocks the turn until release is closed.
func hangs(release chan struct{}) func(actor.Context) {
	return func(actor.Context) { <-release }
}

func TestAHungActorIsReplacedBehindItsRef(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d, parents, releases diary
		release := make(chan struct{})
		var child *Ref
		spawn(t, s, Spec{Name: "p", New: play(&parents, script{"Started": func(ctx actor.Context) {
			child = Child(ctx, Spec{Name: "c", New: play(&d, script{
				"Started":   func(ctx actor.Context) { OnRelease(ctx, func() { releases.add("released") }) },
				"Started#1": func(ctx actor.Context) { After(ctx, time.Minute, boom) },
				"hang": func(ctx actor.Context) {
					<-release
					Go(ctx, func(context.Context) (int, error) { d.add("late work"); return 0, nil }, nil)
					After(ctx, 0, boom).Stop()
					Poster(ctx)(boom)
					Self(ctx).Tell("from the late one")
					if r := Child(ctx, Spec{Name: "x", New: play(&d, nil)}); r.Name() != "" {
						t.Error("an abandoned actor got a child")
					}
					StopInOrder(ctx, nil, func(actor.Context, []StopReport) { t.Error("an abandoned actor stops children") })
				},
			})})
		}})})
		synctest.Wait()
		child.Tell("hang")
		child.Tell("lost")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if err := s.Live(); err != nil {
			t.Errorf("Live before the probe is overdue: %v", err)
		}
		time.Sleep(10 * time.Second)
		child.Tell("two")
		synctest.Wait()
		expect(t, "diary", d.take(), "Started#1 hang#1 Started#2 two#2")
		stats := statsOf(t, s, "p/c")
		expect(t, "abandoned", stats.Abandoned, 1)
		expect(t, "restarts", stats.Restarts, 0)
		expect(t, "dropped", stats.Dropped, 1)
		expect(t, "state", stats.State, Running)
		if err := s.Live(); err != nil {
			t.Errorf("Live after the replacement: %v", err)
		}
		time.Sleep(time.Minute)

		close(release) // the late return
		synctest.Wait()
		expect(t, "diary after the late return", d.take(), "from the late one#2")
		expect(t, "releases of the late one", releases.take(), "released")
		child.Tell("three")
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "diary after it", d.take(), "three#2")
		expect(t, "diary of the parent", parents.take(), "Started#1")
		expect(t, "processes", processes(s), 4)
	})
}

func TestAnActorThatHangsInItsTeardownIsReplaced(t *testing.T) {
	for _, message := range []string{"Started", "Restarting"} {
		t.Run(message, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, s *System) {
				var d diary
				release := make(chan struct{})
				ref := spawn(t, s, Spec{Name: "a", New: play(&d, script{message + "#1": hangs(release), "bad": boom})})
				ref.Tell("bad")
				time.Sleep(time.Minute)
				ref.Tell("on")
				synctest.Wait()
				if got := d.take(); !strings.HasSuffix(got, message+"#1 Started#2 on#2") {
					t.Errorf("diary: %q", got)
				}
				close(release)
				time.Sleep(time.Minute)
				synctest.Wait()
				expect(t, "diary of the late return", d.take(), "")
				expect(t, "state", statsOf(t, s, "a").State, Running)
			})
		})
	}
}

func TestALateReturnThatPanicsDoesNoHarm(t *testing.T) {
	ends := script{"panic": boom, "Goexit": func(actor.Context) { runtime.Goexit() }}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, s *System) {
				var d diary
				release := make(chan struct{})
				ref := spawn(t, s, Spec{Name: "a", New: play(&d, script{"hang": func(ctx actor.Context) { <-release; end(ctx) }})})
				ref.Tell("hang")
				time.Sleep(time.Minute)
				close(release)
				time.Sleep(time.Minute)
				synctest.Wait()
				expect(t, "diary", d.take(), "Started#1 hang#1 Started#2")
				expect(t, "failures", statsOf(t, s, "a").Failures, 1)
			})
		})
	}
}

func TestAHungParentIsReplacedWhenItsChildrenHaveEnded(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d, parents diary
		release, childRelease := make(chan struct{}), make(chan struct{})
		make := play(&d, script{"Stopping#1": hangs(childRelease)})
		parent := spawn(t, s, Spec{Name: "p", New: play(&parents, script{
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", New: make})
			},
			"hang": hangs(release),
		})})
		parent.Tell("hang")
		time.Sleep(40 * time.Second)
		synctest.Wait()
		expect(t, "diary of the child", d.take(), "Started#1 Stopping#1")
		expect(t, "diary of the parent", parents.take(), "Started#1 hang#1")
		expect(t, "state of the parent", statsOf(t, s, "p").State, Hung)
		close(childRelease)
		synctest.Wait()
		expect(t, "diary of the child", d.take(), "Stopped#1 Started#2")
		expect(t, "diary of the parent", parents.take(), "Started#2")
		close(release)
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "diary of the parent", parents.take(), "")
		expect(t, "diary of the child", d.take(), "")
	})
}

func TestAHungParentIsReplacedThoughItsChildHangsToo(t *testing.T) {
	bubble(t, Config{MaxAbandoned: 9}, func(t *testing.T, s *System) {
		var d, parents diary
		release := make(chan struct{})
		make := play(&d, script{"Stopping#1": hangs(release)})
		parent := spawn(t, s, Spec{Name: "p", New: play(&parents, script{
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", New: make})
			},
			"hang": hangs(release),
		})})
		parent.Tell("hang")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		expect(t, "diary of the child", d.take(), "Started#1 Stopping#1 Started#2")
		expect(t, "diary of the parent", parents.take(), "Started#1 hang#1 Started#2")
		close(release)
	})
}

func TestAHungChildDoesNotHoldUpItsParentsRestart(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d, parents diary
		release := make(chan struct{})
		var child *Ref
		make := play(&d, script{"hang": hangs(release)})
		parent := spawn(t, s, Spec{Name: "p", New: play(&parents, script{
			"Started": func(ctx actor.Context) {
				child = Child(ctx, Spec{Name: "c", New: make})
			},
			"bad": boom,
		})})
		synctest.Wait()
		first := child
		child.Tell("hang")
		synctest.Wait()
		parent.Tell("bad")
		time.Sleep(20 * time.Second)
		expect(t, "state of the parent", statsOf(t, s, "p").State, Restarting)
		time.Sleep(20 * time.Second)
		first.Tell("on")
		synctest.Wait()
		expect(t, "diary of the child", d.take(), "Started#1 hang#1 Started#2 on#2")
		expect(t, "diary of the parent", parents.take(), "Started#1 bad#1 Restarting#1 Started#2")
		close(release)
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "diary of the child", d.take(), "")
		expect(t, "diary of the parent", parents.take(), "")
	})
}

func TestAHungTemporaryChildIsReportedNotReplaced(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d, parents diary
		release := make(chan struct{})
		var reason any
		spawn(t, s, Spec{Name: "p", New: play(&parents, script{
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "job", Temporary: true, New: play(&d, script{"hang": hangs(release)})}).Tell("hang")
			},
			"ChildFailed": func(ctx actor.Context) { reason = ctx.Message().(*ChildFailed).Reason },
		})})
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "reason", reason, any(ErrHung))
		expect(t, "diary", d.take(), "Started#1 hang#1")
		expect(t, "roles", len(s.Stats()), 1)
		close(release)
		synctest.Wait()
		expect(t, "diary of the late return", d.take(), "")
		expect(t, "diary of the parent", parents.take(), "Started#1 ChildFailed#1")
	})
}

func TestAHungActorThatWasToldToStopIsNotReplaced(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d, parents diary
		release := make(chan struct{})
		var child *Ref
		spawn(t, s, Spec{Name: "p", New: play(&parents, script{"Started": func(ctx actor.Context) {
			child = Child(ctx, Spec{Name: "c", New: play(&d, script{"hang": hangs(release)})})
		}})})
		synctest.Wait()
		child.Tell("hang")
		synctest.Wait()
		child.Stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "diary", d.take(), "Started#1 hang#1")
		expect(t, "diary of the parent", parents.take(), "Started#1 Terminated#1")
		close(release)
		synctest.Wait()
		expect(t, "state", statsOf(t, s, "p/c").State, Stopped)
		expect(t, "diary of the parent", parents.take(), "")
	})
}

func TestTheSystemGivesUpAfterTooManyHungActors(t *testing.T) {
	var fatal []string
	cfg := Config{FaultInjection: true, MaxAbandoned: 2, OnFatal: func(reason string) {
		fatal = append(fatal, reason)
		panic("contained as well")
	}}
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, cfg)
		ref := spawn(t, s, Spec{Name: "a", New: play(&diary{}, nil)})
		for range 3 {
			expect(t, "calls of OnFatal", len(fatal), max(0, int(statsOf(t, s, "a").Abandoned)-1))
			ref.Tell(Hang{})
			time.Sleep(time.Minute)
			synctest.Wait()
			if statsOf(t, s, "a").Abandoned >= 2 {
				break
			}
		}
		ref.Tell(Hang{})
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(fatal) != 1 || !strings.Contains(fatal[0], "actor a hangs") {
			t.Errorf("OnFatal: %q", fatal)
		}
		report := s.GaveUp()
		if report == nil || report.Reason != fatal[0] || len(report.Abandoned) != 2 {
			t.Errorf("report: %+v", report)
		}
		var gaveUp *GaveUp
		if err := s.Live(); !errors.As(err, &gaveUp) {
			t.Errorf("Live: %v", err)
		}
		err := s.Stop(within(t, time.Second))
		if err == nil || !strings.Contains(err.Error(), "hung and never ended: a, a, a") {
			t.Errorf("Stop: %v", err)
		}
	})
}

func TestACriticalActorMustNotHang(t *testing.T) {
	for _, critical := range []string{"beat", "p/beat"} {
		fatal := make(chan string, 1)
		cfg := Config{Critical: []string{critical}, OnFatal: func(reason string) { fatal <- reason }}
		bubble(t, cfg, func(t *testing.T, s *System) {
			release := make(chan struct{})
			spawn(t, s, Spec{Name: "p", New: play(&diary{}, script{"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "beat", New: play(&diary{}, script{"hang": hangs(release)})}).Tell("hang")
			}})})
			time.Sleep(time.Minute)
			synctest.Wait()
			close(release)
		})
		expect(t, "reason", <-fatal, "actor p/beat hangs")
	}
}

func TestLiveNamesWhoDoesNotAnswer(t *testing.T) {
	bubble(t, Config{ProbeInterval: 40 * time.Second, HangAfter: 30 * time.Second}, func(t *testing.T, s *System) {
		release := make(chan struct{})
		ref := spawn(t, s, Spec{Name: "a", New: play(&diary{}, script{"hang": hangs(release), "bad": boom})})
		ref.Tell("bad") // an actor that waits for its restart answers
		time.Sleep(39 * time.Second)
		ref.Tell("hang")
		time.Sleep(42 * time.Second) // probed at 40 s, found overdue at 80 s, to be given up at 120 s
		synctest.Wait()
		if err := s.Live(); !errors.Is(err, ErrHung) || !strings.Contains(err.Error(), ": a") {
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

func TestIdleAndBusyActorsAreNotTakenForHung(t *testing.T) {
	bubble(t, Config{ProbeInterval: time.Second, HangAfter: 2 * time.Second}, func(t *testing.T, s *System) {
		spawn(t, s, Spec{Name: "idle", New: play(&diary{}, nil)})
		spawn(t, s, Spec{Name: "busy", New: play(&diary{}, script{
			"Started": func(ctx actor.Context) { Self(ctx).Tell("again") },
			"again":   func(ctx actor.Context) { time.Sleep(time.Second); Self(ctx).Tell("again") },
		})})
		spawn(t, s, Spec{Name: "failing", New: play(&diary{}, script{"Started": boom})})
		time.Sleep(time.Hour)
		for _, stats := range s.Stats() {
			expect(t, "abandoned "+stats.Path, stats.Abandoned, 0)
		}
	})
}

func TestAnActorThatHangsWhileItStopsItselfIsNotReplaced(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d, parents diary
		release := make(chan struct{})
		spawn(t, s, Spec{Name: "p", New: play(&parents, script{"Started": func(ctx actor.Context) {
			Child(ctx, Spec{Name: "c", New: play(&d, script{
				"end":      func(ctx actor.Context) { ctx.Stop(ctx.Self()) },
				"Stopping": hangs(release),
			})}).Tell("end")
		}})})
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "diary", d.take(), "Started#1 end#1 Stopping#1")
		expect(t, "diary of the parent", parents.take(), "Started#1 Terminated#1")
		close(release)
	})
}

func TestAHungChildOfAnEarlierIncarnationIsNotReplaced(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d, parents diary
		release := make(chan struct{})
		parent := spawn(t, s, Spec{Name: "p", New: play(&parents, script{
			"Started#1": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "c", New: play(&d, script{"hang": hangs(release)})}).Tell("hang")
			},
			"bad": boom,
		})})
		synctest.Wait()
		parent.Tell("bad")
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "diary", d.take(), "Started#1 hang#1")
		expect(t, "diary of the parent", parents.take(), "Started#1 bad#1 Restarting#1 Started#2")
		close(release)
	})
}

// The turn of a hung actor may come back while its replacement waits for its children.
func TestAnEarlyReturnDoesNotPreventTheReplacement(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var middles diary
		release, childRelease := make(chan struct{}), make(chan struct{})
		grandchild := play(&diary{}, script{"Stopping#1": hangs(childRelease)})
		middle := play(&middles, script{
			"Started": func(ctx actor.Context) { Child(ctx, Spec{Name: "c", New: grandchild}) },
			"hang":    hangs(release),
		})
		ref := NewRef()
		root := spawn(t, s, Spec{Name: "p", New: play(&diary{}, script{
			"Started": func(ctx actor.Context) { Child(ctx, Spec{Name: "m", Ref: ref, New: middle}) },
			"busy":    func(actor.Context) { time.Sleep(10 * time.Second) },
		})})
		synctest.Wait()
		ref.Tell("hang")
		time.Sleep(40 * time.Second)
		root.Tell("busy") // so that it replaces only after all have returned
		synctest.Wait()
		close(release)
		close(childRelease)
		synctest.Wait()
		expect(t, "state", statsOf(t, s, "p/m").State, Stopped)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		expect(t, "diary", middles.take(), "Started#1 hang#1 Started#2")
		expect(t, "state", statsOf(t, s, "p/m").State, Running)
	})
}
