package actors

import (
	"sync"
	"time"
)

// contact records whether the master has answered without a silence so long that it
// reassigned our jobs.
type contact struct {
	mu       sync.Mutex
	lastSent time.Time // when the last call that was answered was sent
	restored time.Time // when the last silence ended; for the first, the agent's start
}

func (c *contact) begin(at time.Time) { c.lastSent, c.restored = at, at }

// answered records an answer, received just now, to a call sent at sentAt. It returns the time
// without answers that it ended; 0 unless that was longer than limit.
func (c *contact) answered(sentAt time.Time, limit time.Duration) (silence time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if since := age(c.lastSent); since > limit {
		silence, c.restored = since, time.Now()
	}
	if sentAt.After(c.lastSent) { // answers may come in another order
		c.lastSent = sentAt
	}
	return silence
}

// unbrokenSince reports whether there was no silence longer than limit since t.
func (c *contact) unbrokenSince(t time.Time, limit time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return age(c.lastSent) <= limit && !c.restored.After(t)
}
