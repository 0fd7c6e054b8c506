package supervision

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

func TestTemporaryChildEndsWithItsCrash(t *testing.T) {
	bubble(t, Config{FaultInjection: true}, func(t *testing.T, s *System) {
		var d, parents trace
		var failed []*ChildFailed
		spec := Spec{Name: "job", Temporary: true, New: scripted(&d, nil)}
		parent := spawn(t, s, Spec{Name: "p", New: scripted(&parents, script{
			"crash": func(ctx actor.Context) { Child(ctx, spec).Tell(Crash{"job is bad"}) },
			"stop":  func(ctx actor.Context) { Child(ctx, spec).Stop() },
			"ChildFailed": func(ctx actor.Context) {
				failed = append(failed, ctx.Message().(*ChildFailed))
				Child(ctx, spec) // its name is free
			},
		})})
		parent.Tell("crash")
		synctest.Wait()
		expect(t, "messages", d.take(), "Started#1 Stopping#1 Stopped#1 Started#2")
		expect(t, "messages to the parent", parents.take(), "Started#1 crash#1 ChildFailed#1")
		if len(failed) != 1 || failed[0].Name != "job" || failed[0].Reason != "job is bad" || !strings.Contains(failed[0].Stack, "crash") {
			t.Fatalf("failed: %+v", failed)
		}
		s.mu.Lock()
		again := s.children["p/job"]
		s.mu.Unlock()
		again.Stop()
		synctest.Wait()
		parent.Tell("stop")
		synctest.Wait()
		expect(t, "messages to the parent, of ordinary ends", parents.take(), "stop#1")
	})
}

func TestHungTemporaryChildIsReportedNotReplaced(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var d, parents trace
		release := make(chan struct{})
		var reason any
		spawn(t, s, Spec{Name: "p", New: scripted(&parents, script{
			"Started": func(ctx actor.Context) {
				Child(ctx, Spec{Name: "job", Temporary: true, New: scripted(&d, script{"hang": hangs(release)})}).Tell("hang")
			},
			"ChildFailed": func(ctx actor.Context) { reason = ctx.Message().(*ChildFailed).Reason },
		})})
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "reason", reason, any(ErrHung))
		expect(t, "messages", d.take(), "Started#1 hang#1")
		expect(t, "roles", len(s.Stats()), 1)
		close(release)
		synctest.Wait()
		expect(t, "messages of the late return", d.take(), "")
		expect(t, "messages to the parent", parents.take(), "Started#1 ChildFailed#1")
	})
}
