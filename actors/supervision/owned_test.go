package supervision

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

func TestResultOfWorkIsATurn(t *testing.T) {
	bad := errors.New("no luck")
	for name, tc := range map[string]struct {
		work     func(context.Context) (int, error)
		want     int
		err      string
		is       error
		failures int
	}{
		"a value":           {func(context.Context) (int, error) { return 7, nil }, 7, "<nil>", nil, 0},
		"an error":          {func(context.Context) (int, error) { return 0, bad }, 0, "no luck", bad, 0},
		"a panic":           {func(context.Context) (int, error) { panic("in work") }, 0, "panic: in work", nil, 1},
		"an error as panic": {func(context.Context) (int, error) { panic(bad) }, 0, "panic: no luck", bad, 1},
		"Goexit":            {func(context.Context) (int, error) { runtime.Goexit(); return 1, nil }, 0, "panic: runtime.Goexit was called", errGoexit, 1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, failures := observed()
			bubble(t, cfg, func(t *testing.T, s *System) {
				called := 0
				var given context.Context
				work := func(ctx context.Context) (int, error) { given = ctx; return tc.work(ctx) }
				spawn(t, s, Spec{Name: "a", New: scripted(&trace{}, script{"Started": func(ctx actor.Context) {
					Go(ctx, work, func(ctx actor.Context, got int, err error) {
						called++
						expect(t, "value", got, tc.want)
						expect(t, "error", fmt.Sprint(err), tc.err)
						if tc.is != nil && !errors.Is(err, tc.is) {
							t.Errorf("error: got %v, want %v", err, tc.is)
						}
						expect(t, "context", self(ctx).Name(), "a")
					})
				}})})
				synctest.Wait()
				expect(t, "calls", called, 1)
				expect(t, "context of the work", given.Err(), context.Canceled)
				stats := statsOf(t, s, "a")
				expect(t, "restarts", stats.Restarts, 0)
				expect(t, "failures", stats.Failures, tc.failures)
			})
			expect(t, "failures logged", len(failures()), tc.failures)
			for _, f := range failures() {
				expect(t, "message", f.message, "goroutine")
				if !strings.Contains(f.stack, "owned_test.go") {
					t.Errorf("stack without the line that panicked:\n%s", f.stack)
				}
			}
		})
	}
}

func TestOwnedWorkEndsWithItsIncarnation(t *testing.T) {
	for name, tc := range map[string]struct {
		end  func(*Ref)
		want string
	}{
		"crash": {func(r *Ref) { r.Tell("bad") }, "bad#1 Restarting#1 Started#2 work over"},
		"stop":  {func(r *Ref) { r.Stop() }, "Stopping#1 Stopped#1 work over"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, s *System) {
				var tr trace
				late := func(ctx actor.Context) { tr.add("stale") }
				var post func(func(actor.Context))
				ref := spawn(t, s, Spec{Name: "a", New: scripted(&tr, script{
					"bad": boom,
					"Started#1": func(ctx actor.Context) {
						After(ctx, time.Minute, late)
						post = Poster(ctx)
						Go(ctx, func(ctx context.Context) (int, error) {
							<-ctx.Done()
							time.Sleep(time.Second)
							tr.add("work over")
							return 0, ctx.Err()
						}, func(ctx actor.Context, _ int, _ error) { late(ctx) })
					},
					"Stopping": func(ctx actor.Context) {
						After(ctx, 0, late)
						Go(ctx, func(context.Context) (int, error) { return 0, nil }, func(ctx actor.Context, _ int, _ error) { late(ctx) })
					},
				})})
				synctest.Wait()
				post(func(actor.Context) { tr.add("posted") })
				synctest.Wait()
				expect(t, "messages", tr.take(), "Started#1 posted")
				tc.end(ref)
				time.Sleep(5 * time.Second)
				post(late)
				time.Sleep(time.Hour)
				synctest.Wait()
				expect(t, "messages", tr.take(), tc.want)
			})
		})
	}
}

// What is queued when the actor crashes belongs to the old incarnation.
func TestQueuedTurnsOfACrashedActorAreDropped(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr trace
		ref := spawn(t, s, Spec{Name: "a", New: scripted(&tr, script{
			"Started#1": func(ctx actor.Context) {
				stale := func(actor.Context) { tr.add("stale") }
				After(ctx, 10*time.Millisecond, stale)
				post := Poster(ctx)
				Go(ctx, func(context.Context) (int, error) { return 0, nil }, func(ctx actor.Context, _ int, _ error) { stale(ctx) })
				post(stale)
				panic("at once")
			},
		})})
		ref.Tell("kept")
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 Restarting#1 Started#2 kept#2")
		expect(t, "dropped", statsOf(t, s, "a").Dropped, 0)
	})
}

func TestCancelledWorkAndTimersNeverReport(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var tr trace
		spawn(t, s, Spec{Name: "a", New: scripted(&tr, script{"Started": func(ctx actor.Context) {
			timer := After(ctx, time.Millisecond, func(actor.Context) { tr.add("timer") })
			task := Go(ctx, func(ctx context.Context) (int, error) { return 0, nil }, func(actor.Context, int, error) { tr.add("task") })
			blocked := Go(ctx, func(ctx context.Context) (int, error) { <-ctx.Done(); tr.add("cancelled"); return 0, nil }, func(actor.Context, int, error) { tr.add("blocked") })
			time.Sleep(time.Second) // both are queued by now
			timer.Stop()
			task.Cancel()
			blocked.Cancel()
			timer.Stop()
			task.Cancel()
			(*Timer)(nil).Stop()
			(*Task)(nil).Cancel()
		}})})
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "messages", tr.take(), "Started#1 cancelled")
	})
}

func TestAfterFiresOnceInTime(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *System) {
		var at []time.Duration
		begin := time.Now()
		var tick func(actor.Context)
		tick = func(ctx actor.Context) {
			at = append(at, time.Since(begin))
			if len(at) == 2 {
				time.Sleep(10 * time.Second) // ticks do not pile up meanwhile
			}
			if len(at) < 4 {
				After(ctx, time.Second, tick)
			}
		}
		spawn(t, s, Spec{Name: "a", New: scripted(&trace{}, script{"Started": tick})})
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "ticks", fmt.Sprint(at), "[0s 1s 12s 13s]")
	})
}

func TestPanicInAnOwnedTurnRestartsTheActor(t *testing.T) {
	for name, ask := range map[string]func(actor.Context){
		"timer": func(ctx actor.Context) { After(ctx, 0, boom) },
		"post":  func(ctx actor.Context) { Poster(ctx)(boom) },
		"result": func(ctx actor.Context) {
			Go(ctx, func(context.Context) (int, error) { return 0, nil }, func(actor.Context, int, error) { panic("boom") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, failures := observed()
			bubble(t, cfg, func(t *testing.T, s *System) {
				var tr trace
				spawn(t, s, Spec{Name: "a", New: scripted(&tr, script{"Started#1": ask})})
				time.Sleep(time.Second)
				synctest.Wait()
				expect(t, "messages", tr.take(), "Started#1 Restarting#1 Started#2")
			})
			expect(t, "message", failures()[0].message, name)
		})
	}
}
