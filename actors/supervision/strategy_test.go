package supervision

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"pgregory.net/rapid"
)

func quietLogger() *zap.Logger { return zap.NewNop() }

func TestPacerDoublesUpToMaxAndResetsAfterHealth(t *testing.T) {
	const ms = time.Millisecond
	type crash struct{ after, wait time.Duration }
	for name, tc := range map[string]struct {
		policy  Backoff
		chance  float64
		crashes []crash
	}{
		"defaults": {Backoff{Jitter: -1}, 0.5, []crash{
			{0, 50 * ms}, {0, 100 * ms}, {0, 200 * ms}, {0, 400 * ms}, {0, 800 * ms}, {0, 1600 * ms}, {0, 3200 * ms},
			{0, 6400 * ms}, {0, 12800 * ms}, {0, 25600 * ms}, {0, 30 * time.Second}, {0, 30 * time.Second},
			{time.Minute - 1, 30 * time.Second}, {time.Minute, 50 * ms}, {0, 100 * ms},
		}},
		"jitter only shortens": {Backoff{Min: 100 * ms, Jitter: 0.5}, 0.5, []crash{{0, 75 * ms}, {0, 150 * ms}}},
		"default jitter":       {Backoff{}, 0.5, []crash{{0, 45 * ms}}},
		"max below min":        {Backoff{Min: time.Second, Max: ms, Jitter: -1}, 0, []crash{{0, time.Second}, {0, time.Second}}},
		"the longest possible": {Backoff{Min: time.Hour, Max: 1<<63 - 1, Jitter: -1, Healthy: 1<<63 - 1}, 0, []crash{{0, time.Hour}, {0, 2 * time.Hour}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := pacer{policy: tc.policy.withDefaults()}
			now := time.Unix(1e9, 0)
			for i, c := range tc.crashes {
				p.started(now)
				now = now.Add(c.after)
				if wait := p.crashed(now, tc.chance); wait != c.wait {
					t.Errorf("crash %d: wait %v, want %v", i, wait, c.wait)
				}
			}
		})
	}
}

func TestPacerKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := Backoff{
			Min:    time.Duration(rapid.Int64Range(0, 1<<62).Draw(t, "min")),
			Max:    time.Duration(rapid.Int64Range(0, 1<<62).Draw(t, "max")),
			Jitter: rapid.Float64Range(-1, 2).Draw(t, "jitter"),
		}.withDefaults()
		p := pacer{policy: policy}
		now := time.Unix(1e9, 0)
		for range rapid.IntRange(1, 100).Draw(t, "crashes") {
			p.started(now)
			wait := p.crashed(now, rapid.Float64Range(0, 0.999).Draw(t, "chance"))
			if wait < 0 || wait > policy.Max {
				t.Fatalf("wait %v, with %+v", wait, policy)
			}
		}
	})
}

func TestQueueKeepsItsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		var model []any
		for i := range rapid.IntRange(0, 2000).Draw(t, "steps") {
			if len(model) > 0 && rapid.IntRange(0, 2).Draw(t, "pop") == 0 {
				if got := q.pop(); got != model[0] {
					t.Fatalf("popped %v, want %v", got, model[0])
				}
				model = model[1:]
			} else {
				q.push(i)
				model = append(model, i)
			}
			if q.n != len(model) {
				t.Fatalf("length %d, want %d", q.n, len(model))
			}
		}
	})
}
