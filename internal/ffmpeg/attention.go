package ffmpeg

import "time"

// attention counts for how long FFmpeg was looked at and did not come forward. Time in
// which this very process stood still (stopped, or in a frozen container) is not held
// against FFmpeg: its word, or its end, may lie there unread.
type attention struct {
	every time.Duration // between two looks
	still time.Duration // for which FFmpeg was watched and did not move
	last  time.Time     // when it was looked at
	moved time.Time     // when FFmpeg had come forward by then
	late  bool          // the look came late
}

// newAttention looks often enough for a time limit.
func newAttention(limit time.Duration, now time.Time) *attention {
	return &attention{every: min(time.Second, max(limit/20, 10*time.Millisecond)), last: now}
}

// paid takes a look in and reports whether it may be judged by: not when it came late,
// for then what FFmpeg did meanwhile has yet to arrive. Two late ones in a row mean a
// machine with too much to do, on which time limits hold all the same.
func (a *attention) paid(now, moved time.Time) bool {
	passed := now.Sub(a.last)
	again := a.late
	a.last, a.late = now, passed > 2*a.every
	if moved.After(a.moved) {
		a.moved, a.still = moved, 0
		passed = max(0, now.Sub(moved))
	}
	a.still += min(passed, 2*a.every)
	return !a.late || again
}
