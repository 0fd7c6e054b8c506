package actors

import (
	"errors"
	"math/rand/v2"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// Pacer says how long to wait before a call to the master is made again. It
// belongs to one goroutine or actor; make one with NewRegistrationPacer,
// NewUploadPacer or NewProbePacer.
type Pacer struct {
	patience time.Duration // how long from the first failure the wait does not grow
	first    time.Duration // longest wait meanwhile
	most     time.Duration // longest wait ever
	random   func() float64

	failing time.Time     // the first failure since Reset; zero for none
	next    time.Duration // the longest the next wait may be
}

// NewRegistrationPacer waits at most 1.5 s in the first minute of failures, then
// twice as long each time, up to 60 s.
func NewRegistrationPacer() *Pacer {
	return &Pacer{patience: time.Minute, first: 1500 * time.Millisecond, most: time.Minute, random: rand.Float64}
}

// NewUploadPacer waits at most 1 s after the first failure, then twice as long
// each time, up to 60 s.
func NewUploadPacer() *Pacer {
	return &Pacer{first: time.Second, most: time.Minute, random: rand.Float64}
}

// NewProbePacer waits at most 1 s after the first failure, then twice as long each
// time, up to 5 min: for looking whether hardware that is not there has come back.
func NewProbePacer() *Pacer {
	return &Pacer{first: time.Second, most: 5 * time.Minute, random: rand.Float64}
}

// Reset forgets all failures: a call succeeded.
func (p *Pacer) Reset() { p.failing, p.next = time.Time{}, 0 }

// What a master's answer asks for beside the usual pace.
const (
	slowest    = time.Minute      // a refused key is tried again after half of this to all of it
	mostObeyed = 10 * time.Minute // longest Retry-After that is obeyed
)

// Next is how long to wait after a call that failed with err at now. Every wait is
// shortened at random by up to a quarter, so that a fleet does not come back
// all at once. A refused key waits 30 to 60 s. A busy master's Retry-After is
// obeyed up to 10 min, lengthened at random by up to a tenth.
func (p *Pacer) Next(now time.Time, err error) time.Duration {
	usual := p.usual(now)
	var e *protocol.Error
	if errors.As(err, &e) {
		switch {
		case e.Kind == protocol.Unauthorized:
			return p.between(slowest/2, slowest)
		case e.Kind == protocol.Busy && e.RetryAfter > 0:
			asked := min(e.RetryAfter, mostObeyed)
			return p.between(asked, asked+asked/10)
		}
	}
	return p.between(usual-usual/4, usual)
}

// usual is the longest wait that the pace allows after one more failure at now.
func (p *Pacer) usual(now time.Time) time.Duration {
	switch {
	case p.failing.IsZero():
		p.failing, p.next = now, p.first
	case now.Sub(p.failing) >= p.patience:
		p.next = min(2*p.next, p.most)
	}
	return p.next
}

func (p *Pacer) between(low, high time.Duration) time.Duration {
	return low + time.Duration(p.random()*float64(high-low))
}
