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
	Name   string
	Weight float64
	Ends   bool // the agent's process, so that it comes to agents by turns
	// Alone: the agent is ended or stopped, or its disk is full: one such at a time.
	Alone bool
	play  func(ctx context.Context, s *scene) (effect, error)
}

// scene is where one fault plays.
type scene struct {
	*field
	*agent
	kind   string
	random *rand.Rand
	begun  time.Time
}

// errNothing: what a fault is aimed at was not there, so that it was not played.
var errNothing = errors.New("nothing to play it on")

// effect is what was seen of a fault; an error says why nothing was.
type effect struct {
	seen  string
	hit   Attempt
	actor string
}

func saw(format string, args ...any) effect { return effect{seen: fmt.Sprintf(format, args...)} }

// between draws a length of time.
func (s *scene) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.random.Int64N(int64(high-low)))
}

// one draws one of several.
func one[T any](s *scene, of []T) T { return of[s.random.IntN(len(of))] }

// observeWithin bounds how long an effect is waited for.
const observeWithin = 12 * time.Second

// Kinds are all kinds of faults there are.
func Kinds() []Kind {
	var all []Kind
	for _, some := range [][]Kind{networkKinds(), actorKinds(), childKinds(), agentKinds(), masterKinds(), hostKinds(), jobKinds()} {
		all = append(all, some...)
	}
	return all
}
