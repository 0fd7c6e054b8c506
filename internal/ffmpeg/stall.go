package ffmpeg

import (
	"sync"
	"time"
)

// patience is how long a step of a run may take between two signs that it goes on.
type patience struct {
	mu    sync.Mutex
	moved time.Time     // of the last sign
	extra time.Duration // beyond StallTimeout
}

// sign says that the step goes on.
func (p *patience) sign() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved = time.Now()
}

// allow is a sign, after which the step may take longer than StallTimeout.
func (p *patience) allow(extra time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved, p.extra = time.Now(), extra
}

func (p *patience) get() (moved time.Time, extra time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.moved, p.extra
}

// stallDetector counts how long FFmpeg, or a step of a run, was observed without making progress. Time in
// which this very process did not run (stopped, or in a frozen container) does not
// count: FFmpeg's progress, or its exit, may be there unread.
type stallDetector struct {
	every time.Duration // between two observations
	still time.Duration // observed without progress
	last  time.Time     // of the last observation
	moved time.Time     // FFmpeg's last progress by then
	late  bool          // the last observation was late
}

// newStallDetector observes often enough for a time limit.
func newStallDetector(limit time.Duration, now time.Time) *stallDetector {
	return &stallDetector{every: min(time.Second, max(limit/20, 10*time.Millisecond)), last: now}
}

// observe takes in FFmpeg's last progress and reports whether limits may be applied
// now: not when the observation is late, for what FFmpeg did meanwhile has yet to be
// read. Two late ones in a row mean an overloaded machine, on which limits hold too.
func (d *stallDetector) observe(now, moved time.Time) bool {
	passed := now.Sub(d.last)
	again := d.late
	d.last, d.late = now, passed > 2*d.every
	if moved.After(d.moved) {
		d.moved, d.still = moved, 0
		passed = max(0, now.Sub(moved))
	}
	d.still += min(passed, 2*d.every)
	return !d.late || again
}
