package supervision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

func TestStopWaitsForActorsAndTheirGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, Config{})
		release := make(chan struct{})
		spawn(t, s, Spec{Name: "p", New: scripted(&trace{}, script{"Started": func(ctx actor.Context) {
			Child(ctx, Spec{Name: "slow", New: scripted(&trace{}, script{"Stopping": hangs(release)})})
			Child(ctx, Spec{Name: "works", New: scripted(&trace{}, script{"Started": func(ctx actor.Context) {
				Go(ctx, func(context.Context) (int, error) { <-release; return 0, nil }, nil)
			}})})
			Child(ctx, Spec{Name: "quick", New: scripted(&trace{}, nil)})
		}})})
		synctest.Wait()
		err := s.Stop(within(t, time.Second))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "still running: p, p/slow, p/works (goroutines: 1):") {
			t.Errorf("Stop: got %v", err)
		}
		close(release)
		for range 2 {
			if err := s.Stop(within(t, time.Second)); err != nil {
				t.Errorf("Stop again: %v", err)
			}
		}
		if err := s.Live(); err != nil {
			t.Errorf("Live: %v", err)
		}
	})
}

func TestStopMayBeCalledConcurrently(t *testing.T) {
	s := newSystem(t, Config{})
	spawn(t, s, Spec{Name: "a", New: scripted(&trace{}, nil)})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := s.Stop(within(t, time.Minute)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestStopEndsACrashedActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, Config{})
		var tr trace
		spawn(t, s, Spec{Name: "a", New: scripted(&tr, script{"Started": boom})})
		time.Sleep(time.Hour)
		synctest.Wait()
		tr.take()
		begin := time.Now()
		if err := s.Stop(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		expect(t, "time to stop", time.Since(begin), time.Duration(0))
		if got := tr.take(); !strings.HasPrefix(got, "Stopping") {
			t.Errorf("messages: got %q, want Stopping first", got)
		}
	})
}

// order runs a supervisor that stops its children in order, and returns the trace of all and the reports.
func order(t *testing.T, s *System, children map[string]script, steps func(ref func(string) *Ref) []StopStep) (*trace, *[]StopReport) {
	var tr trace
	var reports []StopReport
	refs := make(map[string]*Ref)
	supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&tr, script{
		"Started": func(ctx actor.Context) {
			for name, sc := range children {
				refs[name] = Child(ctx, Spec{Name: name, New: scripted(&trace{}, script{
					"Stopping": func(ctx actor.Context) {
						if do := sc["Stopping"]; do != nil {
							do(ctx)
						}
						tr.add("(" + name + ")")
					},
					"drain": sc["drain"],
				})})
			}
		},
		"stop": func(ctx actor.Context) {
			StopInOrder(ctx, steps(func(name string) *Ref { return refs[name] }), func(ctx actor.Context, r []StopReport) {
				tr.add("done")
				reports = r
				self(ctx).Stop()
			})
		},
	})})
	supervisor.Tell("stop")
	time.Sleep(time.Hour)
	synctest.Wait()
	return &tr, &reports
}

func TestChildrenStopInOrder(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		slow := func(actor.Context) { time.Sleep(time.Second) }
		tr, reports := order(t, s, map[string]script{
			"a": {"Stopping": slow}, "b": {"drain": slow}, "c": {"Stopping": slow}, "d": {},
		}, func(ref func(string) *Ref) []StopStep {
			return []StopStep{
				{Child: ref("b"), Deadline: 4500 * time.Millisecond, Prepare: func(ready func()) {
					ref("b").Tell("drain")
					time.AfterFunc(3*time.Second, ready)
					time.AfterFunc(4*time.Second, ready)
				}},
				{Child: NewRef()},
				{Child: ref("a"), Deadline: time.Minute},
				{Child: ref("a")},
				{Child: ref("d"), Prepare: func(ready func()) { ready() }},
				{Child: ref("c"), Deadline: time.Minute, Prepare: func(ready func()) {
					expect(t, "state of a child stopped before", statsOf(t, s, "p/b").State, Stopped)
					ready()
				}},
			}
		})
		expect(t, "messages", tr.take(), "Started#1 stop#1 (b) (a) (d) (c) done Stopping#1 Stopped#1")
		expect(t, "reports", fmt.Sprint(*reports),
			"[{b 3s false stop} { 0s false stop} {a 1s false stop} {a 0s false stop} {d 0s false stop} {c 1s false stop}]")
	})
}

func TestLateChildrenDoNotDelayStopInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, Config{ProbeInterval: -1})
		release := make(chan struct{})
		var ready func()
		tr, reports := order(t, s, map[string]script{
			"stuck": {"Stopping": hangs(release)}, "undrained": {}, "last": {},
		}, func(ref func(string) *Ref) []StopStep {
			return []StopStep{
				{Child: ref("undrained"), Deadline: time.Second, Prepare: func(r func()) { ready = r }},
				{Child: ref("stuck"), Deadline: 2 * time.Second},
				{Child: ref("last"), Deadline: time.Minute, Prepare: func(r func()) { ready(); time.AfterFunc(time.Second, r) }},
			}
		})
		expect(t, "messages", tr.take(), "Started#1 stop#1 (undrained) (last) done Stopping#1 Stopped#1")
		expect(t, "reports", fmt.Sprint(*reports), "[{undrained 1s true prepare} {stuck 2s true stop} {last 1s false stop}]")
		if err := s.Stop(within(t, time.Second)); err == nil || !strings.Contains(err.Error(), "p/stuck") {
			t.Errorf("Stop: got %v", err)
		}
		close(release)
		synctest.Wait()
		if err := s.Stop(within(t, time.Second)); err != nil {
			t.Errorf("Stop after the late return: %v", err)
		}
	})
}

func TestChildThatStopsItselfCompletesItsStep(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		tr, reports := order(t, s, map[string]script{
			"a": {"drain": func(ctx actor.Context) { time.Sleep(time.Second); self(ctx).Stop() }}, "b": {},
		}, func(ref func(string) *Ref) []StopStep {
			return []StopStep{
				{Child: ref("a"), Deadline: time.Minute, Prepare: func(func()) { ref("a").Tell("drain") }},
				{Child: ref("b"), Deadline: time.Minute},
			}
		})
		expect(t, "messages", tr.take(), "Started#1 stop#1 (a) (b) done Stopping#1 Stopped#1")
		expect(t, "reports", fmt.Sprint(*reports), "[{a 1s false prepare} {b 0s false stop}]")
	})
}

func TestStopInOrderEndsWithItsIncarnation(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var above trace
		child := NewRef()
		idle := scripted(&trace{}, nil)
		supervisor := spawn(t, s, Spec{Name: "p", New: scripted(&above, script{
			"Started": func(ctx actor.Context) { Child(ctx, Spec{Name: "c", New: idle, Ref: child}) },
			"stop": func(ctx actor.Context) {
				never := StopStep{Child: child, Deadline: time.Minute, Prepare: func(func()) {}}
				StopInOrder(ctx, []StopStep{never}, func(actor.Context, []StopReport) { above.add("done") })
			},
			"bad": boom,
		})})
		supervisor.Tell("stop")
		supervisor.Tell("bad")
		time.Sleep(time.Hour)
		child.Stop()
		synctest.Wait()
		expect(t, "messages to the supervisor", above.take(), "Started#1 stop#1 bad#1 Restarting#1 Started#2")
	})
}
