package supervision

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// Whatever happens to a tree, once it is left in peace everybody is there, exactly
// once, and it stops cleanly.
func TestAfterAnyFaultsEverybodyIsThere(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, Config{Logger: quietLogger(), FaultInjection: true, MaxAbandoned: 1 << 30}, func(t *testing.T, s *System) {
				random := rand.New(rand.NewPCG(seed, 0))
				refs, pongs := plant(t, s)
				for range 200 {
					ref := refs[random.IntN(len(refs))]
					switch random.IntN(10) {
					case 0:
						ref.Tell(Hang{For: time.Duration(random.Int64N(int64(2 * time.Minute)))})
					case 1, 2, 3:
						ref.Tell(Crash{"chaos"})
					case 4:
						ref.Tell("goexit")
					case 5:
						ref.Tell("job")
					case 6:
						ref.Tell("sloppy")
					default:
						time.Sleep(time.Duration(random.Int64N(int64(time.Minute))))
					}
				}
				time.Sleep(time.Hour)
				if err := s.Live(); err != nil {
					t.Errorf("Live: %v", err)
				}
				pongs.take()
				for _, ref := range refs {
					ref.Tell("ping")
					synctest.Wait()
					expect(t, "who answers", pongs.take(), ref.Path())
				}
				for _, stats := range s.Stats() {
					expect(t, stats.Path, stats.State, Running)
				}
				expect(t, "roles", len(s.Stats()), len(refs))
				expect(t, "processes", processes(s), len(refs)+2)
			})
		})
	}
}

// plant grows a tree three deep and returns the Refs of all who are in it, and where
// they answer to "ping".
func plant(t *testing.T, s *System) ([]*Ref, *diary) {
	var answers diary
	var refs []*Ref
	var grow func(depth int) Spec
	member := func(name string, depth int) Spec {
		spec := grow(depth)
		spec.Name, spec.Ref = name, NewRef()
		refs = append(refs, spec.Ref)
		return spec
	}
	grow = func(depth int) Spec {
		var children []Spec
		for i := range depth {
			children = append(children, member(fmt.Sprint("c", i), depth-1))
		}
		return Spec{New: play(&diary{}, script{
			"Started": func(ctx actor.Context) {
				for _, child := range children {
					Child(ctx, child)
				}
				Go(ctx, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, nil }, nil)
				After(ctx, time.Second, func(ctx actor.Context) { Self(ctx).Tell("tick") })
			},
			"goexit": func(ctx actor.Context) {
				Go(ctx, func(context.Context) (int, error) { panic("work") }, nil)
				runtime.Goexit()
			},
			"sloppy": func(ctx actor.Context) { OnRelease(ctx, func() { panic("release") }); panic("sloppy") },
			"job": func(ctx actor.Context) {
				name := fmt.Sprint("job", tokens.Add(1))
				Child(ctx, Spec{Name: name, Temporary: true, New: play(&diary{}, nil)}).Tell(Crash{"job"})
			},
			"ping": func(ctx actor.Context) { answers.add(Self(ctx).Path()) },
		})}
	}
	root := member("root", 3)
	spawn(t, s, root)
	synctest.Wait()
	return refs, &answers
}
