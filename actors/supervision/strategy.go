package supervision

import "time"

// Backoff says how long a crashed actor waits for its restart: Min after the first
// crash, twice as long after each further one, never longer than Max, and Min again
// once it has run for Healthy. A zero field takes its default.
type Backoff struct {
	Min     time.Duration // default 50 ms
	Max     time.Duration // default 30 s; raised to Min where it is less
	Healthy time.Duration // default 1 min
	// Jitter is the share of a wait, 0 to 1, that chance may take off it, so that
	// actors felled by one cause do not come back in step. It never lengthens a wait.
	// Default 0.2; negative for none.
	Jitter float64
}

func (b Backoff) withDefaults() Backoff {
	if b.Min <= 0 {
		b.Min = 50 * time.Millisecond
	}
	if b.Max <= 0 {
		b.Max = 30 * time.Second
	}
	if b.Healthy <= 0 {
		b.Healthy = time.Minute
	}
	if b.Jitter == 0 {
		b.Jitter = 0.2
	}
	b.Max = max(b.Max, b.Min)
	b.Jitter = min(max(b.Jitter, 0), 1)
	return b
}

// pacer paces the restarts of one actor: a state machine that knows neither clocks
// nor actors.
type pacer struct {
	policy  Backoff
	crashes int       // since the actor was last healthy
	up      time.Time // when its present incarnation started
}

// started notes that an incarnation began to run.
func (p *pacer) started(now time.Time) { p.up = now }

// crashed notes a crash and returns how long to wait for the restart. chance is a
// random number in [0, 1).
func (p *pacer) crashed(now time.Time, chance float64) time.Duration {
	if now.Sub(p.up) >= p.policy.Healthy {
		p.crashes = 0
	}
	wait := p.policy.Min
	for range p.crashes {
		if wait >= p.policy.Max/2 {
			wait = p.policy.Max
			break
		}
		wait *= 2
	}
	p.crashes++
	return wait - time.Duration(float64(wait)*p.policy.Jitter*chance)
}
