package supervision

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"
)

func TestFaultInjectionIsOffByDefault(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr trace
		ref := spawn(t, s, Spec{Name: "a", New: scripted(&tr, nil)})
		for _, msg := range []any{&Crash{"x"}, &Hang{}, "on"} {
			ref.Tell(msg)
		}
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 on#1")
	})
}

func TestInjectedHangEnds(t *testing.T) {
	bubble(t, Config{FaultInjection: true}, func(t *testing.T, s *System) {
		var tr trace
		ref := spawn(t, s, Spec{Name: "a", New: scripted(&tr, nil)})
		ref.Tell(&Hang{For: 10 * time.Second})
		ref.Tell("after")
		time.Sleep(10*time.Second - 1)
		expect(t, "messages", tr.take(), "Started#1")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		expect(t, "messages", tr.take(), "after#1")
	})
}

// After any faults each actor of a tree runs again, exactly once, and the tree stops cleanly.
func TestTreeRecoversFromRandomFaults(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, Config{Logger: zap.NewNop(), FaultInjection: true, MaxAbandoned: 1 << 30}, func(t *testing.T, s *System) {
				random := rand.New(rand.NewPCG(seed, 0))
				refs, answers := newTree(t, s)
				for range 200 {
					ref := refs[random.IntN(len(refs))]
					switch random.IntN(10) {
					case 0:
						ref.Tell(&Hang{For: time.Duration(random.Int64N(int64(2 * time.Minute)))})
					case 1, 2, 3:
						ref.Tell(&Crash{"random"})
					case 4:
						ref.Tell("goexit")
					case 5:
						ref.Tell("job")
					default:
						time.Sleep(time.Duration(random.Int64N(int64(time.Minute))))
					}
				}
				time.Sleep(time.Hour)
				if err := s.Live(); err != nil {
					t.Errorf("Live: %v", err)
				}
				answers.take()
				for _, ref := range refs {
					ref.Tell("ping")
					synctest.Wait()
					expect(t, "answer", answers.take(), ref.path)
				}
				for _, stats := range s.Stats() {
					expect(t, stats.Path, stats.State, Running)
				}
				expect(t, "actors", len(s.Stats()), len(refs))
				expect(t, "processes", processes(s), len(refs)+2)
			})
		})
	}
}

// newTree spawns a tree of four levels and returns the Refs of its actors, and the trace of
// their answers to "ping".
func newTree(t *testing.T, s *System) ([]*Ref, *trace) {
	var answers trace
	var refs []*Ref
	var jobs atomic.Int64
	var spec func(depth int) Spec
	member := func(name string, depth int) Spec {
		member := spec(depth)
		member.Name, member.Ref = name, NewRef()
		refs = append(refs, member.Ref)
		return member
	}
	spec = func(depth int) Spec {
		var children []Spec
		for i := range depth {
			children = append(children, member(fmt.Sprint("c", i), depth-1))
		}
		return Spec{New: scripted(&trace{}, script{
			"Started": func(ctx actor.Context) {
				for _, child := range children {
					Child(ctx, child)
				}
				Go(ctx, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, nil }, nil)
				After(ctx, time.Second, func(ctx actor.Context) { self(ctx).Tell("tick") })
			},
			"goexit": func(ctx actor.Context) {
				Go(ctx, func(context.Context) (int, error) { panic("work") }, nil)
				runtime.Goexit()
			},
			"Restarting": boom,
			"job": func(ctx actor.Context) {
				job := Child(ctx, Spec{Name: fmt.Sprint("job", jobs.Add(1)), New: scripted(&trace{}, nil)})
				job.Tell(&Crash{"job"})
				After(ctx, 10*time.Second, func(actor.Context) { job.Stop() })
			},
			"ping": func(ctx actor.Context) { answers.add(self(ctx).path) },
		})}
	}
	root := member("root", 3)
	spawn(t, s, root)
	synctest.Wait()
	return refs, &answers
}
