package job

import (
	"testing"
	"time"
)

func TestOnTime(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ran := func(wall, media time.Duration) Outcome {
		exit := start.Add(wall)
		return Outcome{Encode: Encode{Started: &start, Exited: &exit, Media: media}, At: exit.Add(time.Second)}
	}
	due := func(o Outcome, in time.Duration) Outcome {
		by := start.Add(in)
		o.Lease.Job.TimeoutAt = &by
		return o
	}
	failed, canceled := due(ran(time.Second, time.Minute), time.Hour), ran(time.Second, time.Minute)
	failed.Failure, canceled.Canceled = PlatformFailure("x"), true
	never := Outcome{Failure: PlatformFailure("x")}
	zero := due(ran(time.Minute, time.Minute), 0)
	*zero.Lease.Job.TimeoutAt = time.Time{}
	for name, test := range map[string]struct {
		o           Outcome
		met, judged bool
	}{
		"by its timeout_at":          {due(ran(9*time.Second, time.Second), 10*time.Second), true, true},
		"after its timeout_at":       {due(ran(10*time.Second, time.Hour), 10*time.Second), false, true},
		"in real time":               {ran(time.Minute, time.Minute), true, true},
		"at the edge of real time":   {ran(71*time.Second, time.Minute), true, true},
		"slower than real time":      {ran(72*time.Second, time.Minute), false, true},
		"short live stream":          {ran(12*time.Second, 10*time.Second), true, true},
		"timeout_at that is no time": {zero, true, true},
		"failed":                     {failed, false, true},
		"never started":              {never, false, true},
		"canceled":                   {canceled, false, false},
	} {
		if met, judged := test.o.OnTime(); met != test.met || judged != test.judged {
			t.Errorf("%s: got %v, %v; want %v, %v", name, met, judged, test.met, test.judged)
		}
	}
}
