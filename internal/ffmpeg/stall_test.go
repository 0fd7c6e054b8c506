package ffmpeg

import (
	"testing"
	"time"
)

func TestStallIgnoresTimeAgentWasStopped(t *testing.T) {
	begun := time.Unix(1000, 0)
	type look struct {
		after, moved time.Duration // since the beginning
		mayApply     bool
		still        time.Duration
	}
	for name, looks := range map[string][]look{
		"moves at each look": {
			{time.Second, 900 * time.Millisecond, true, 100 * time.Millisecond},
			{2 * time.Second, 1900 * time.Millisecond, true, 100 * time.Millisecond},
		},
		"stands still": {
			{time.Second, 0, true, time.Second},
			{2 * time.Second, 0, true, 2 * time.Second},
			{3 * time.Second, 2500 * time.Millisecond, true, 500 * time.Millisecond},
			{4 * time.Second, 2500 * time.Millisecond, true, 1500 * time.Millisecond},
		},
		"we stood still for an hour": {
			{time.Second, 900 * time.Millisecond, true, 100 * time.Millisecond},
			{time.Hour, 900 * time.Millisecond, false, 2100 * time.Millisecond},
			{time.Hour + time.Second, time.Hour, true, time.Second},
		},
		"and FFmpeg goes on standing still": {
			{time.Hour, 0, false, 2 * time.Second},
			{time.Hour + time.Second, 0, true, 3 * time.Second},
		},
		"a machine that is always late": {
			{3 * time.Second, 0, false, 2 * time.Second},
			{6 * time.Second, 0, true, 4 * time.Second},
			{9 * time.Second, 0, true, 6 * time.Second},
		},
	} {
		a := newStallDetector(time.Minute, begun)
		if a.every != time.Second {
			t.Fatalf("a minute is looked at every %s", a.every)
		}
		for i, l := range looks {
			if mayApply := a.observe(begun.Add(l.after), begun.Add(l.moved)); mayApply != l.mayApply || a.still != l.still {
				t.Errorf("%s, look %d: judged %t after %s of standing still, want %t after %s", name, i+1, mayApply, a.still, l.mayApply, l.still)
			}
		}
	}
}
