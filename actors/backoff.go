package actors

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"

	"ffmpeg-agent/messages/protocol"
)

// callBackoff is how long to wait before a failed call is made again: an exponential
// backoff that stays at its first interval for a while, and obeys the master's answer.
// It belongs to one actor.
type callBackoff struct {
	exponential backoff.ExponentialBackOff
	steady      time.Duration // from the first failure, in which the interval does not grow
	failing     time.Time     // the first failure since reset; zero: none
}

// registrationBackoff waits at most 1.5 s in the first minute of failures, then twice as
// long each time, up to 60 s.
func registrationBackoff() *callBackoff {
	return &callBackoff{exponential: exponential(1500*time.Millisecond, time.Minute), steady: time.Minute}
}

// uploadBackoff waits at most 1 s after the first failure, then twice as long each time,
// up to 60 s.
func uploadBackoff() *callBackoff {
	return &callBackoff{exponential: exponential(time.Second, time.Minute)}
}

// probeBackoff waits at most 1 s after the first failure, then twice as long each time,
// up to 5 min: for hardware and addresses that are not available now.
func probeBackoff() *callBackoff {
	return &callBackoff{exponential: exponential(time.Second, 5*time.Minute)}
}

// exponential doubles a wait from first to last. Each wait is shortened at random by up
// to a quarter, so that the agents of a fleet do not come back all at once: the library
// spreads to both sides of an interval, so its intervals are an eighth below ours.
func exponential(first, last time.Duration) backoff.ExponentialBackOff {
	return backoff.ExponentialBackOff{
		InitialInterval: first - first/8, MaxInterval: last - last/8, Multiplier: 2, RandomizationFactor: 1. / 7,
	}
}

// reset forgets all failures: a call succeeded.
func (b *callBackoff) reset() {
	b.failing = time.Time{}
	b.exponential.Reset()
}

// What a master's answer asks for beside the usual backoff.
const (
	keyRetry      = time.Minute      // a refused key is tried again after half of this to all of it
	maxRetryAfter = 10 * time.Minute // longest Retry-After that is obeyed
)

// next is how long to wait after a call that failed with err at now. A refused key waits
// 30 to 60 s. The Retry-After of a busy master is obeyed up to 10 min and lengthened at
// random by up to a tenth.
func (b *callBackoff) next(now time.Time, err error) time.Duration {
	if b.failing.IsZero() {
		b.failing = now
	}
	if now.Sub(b.failing) < b.steady {
		b.exponential.Reset()
	}
	usual := b.exponential.NextBackOff()
	var e *protocol.Error
	if errors.As(err, &e) {
		switch {
		case e.Kind == protocol.Unauthorized:
			return between(keyRetry/2, keyRetry)
		case e.Kind == protocol.Busy && e.RetryAfter > 0:
			asked := min(e.RetryAfter, maxRetryAfter)
			return between(asked, asked+asked/10)
		}
	}
	return usual
}

// dependsOnKey reports whether a call that failed with err may succeed with another key or
// other certificates.
func dependsOnKey(err error) bool {
	kind := protocol.KindOf(err)
	return err != nil && (kind == protocol.Unauthorized || kind == protocol.Unreachable)
}

func between(low, high time.Duration) time.Duration {
	return low + rand.N(high-low+1)
}
