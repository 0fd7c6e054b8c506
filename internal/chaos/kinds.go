package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Kind is a kind of fault.
type Kind struct {
	Name      string
	Weight    float64
	EndsAgent bool // the agent's process, so that it comes to agents by turns
	// Exclusive: the agent is ended or stopped, or its disk is full: one such at a time.
	Exclusive bool
	inject    func(ctx context.Context, s *injector) (effect, error)
}

// injector plays one fault.
type injector struct {
	*harness
	*agent
	kindName string
	random   *rand.Rand
	started  time.Time
}

var (
	// errNoTarget: the fault was not played, because it had no target at that time.
	errNoTarget = errors.New("no target for the fault")
	// errUnavailable: the fault was not played, because this run cannot play it.
	errUnavailable = errors.New("not available in this run")
)

// effect is the observed effect of a fault; an error says why there is none.
type effect struct {
	observed string
	attempt  Attempt
	actor    string
}

func observed(format string, args ...any) effect {
	return effect{observed: fmt.Sprintf(format, args...)}
}

// between draws a duration.
func (s *injector) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.random.Int64N(int64(high-low)))
}

// pick draws one of several.
func pick[T any](s *injector, of []T) T { return of[s.random.IntN(len(of))] }

// observeWithin bounds how long an effect is waited for.
const observeWithin = 12 * time.Second

// Kinds are all kinds of faults.
func Kinds() []Kind {
	var all []Kind
	for _, some := range [][]Kind{networkKinds(), actorKinds(), childKinds(), agentKinds(), masterKinds(), hostKinds(), jobKinds(), fetchKinds()} {
		all = append(all, some...)
	}
	return all
}
