package main

import (
	"errors"
	"fmt"
	"testing"
)

// TestFailedRunIsNotACatch: it is counted apart, and the verdict is a bad one.
func TestFailedRunIsNotACatch(t *testing.T) {
	broken := errors.New("no program")
	for _, c := range []struct {
		by    []string
		err   error
		want  tally
		fatal bool
		good  bool
	}{
		{by: []string{"an invariant (1)"}, want: tally{caught: 1}, good: true},
		{want: tally{missed: 1}},
		{err: fmt.Errorf("%w: the agents do not come up", errUnplayed), want: tally{unplayed: 1}},
		{err: broken, fatal: true, good: true},
	} {
		var got tally
		_, _, fatal := got.add(c.by, c.err)
		if got != c.want || (fatal != nil) != c.fatal || (got.verdict() == nil) != c.good {
			t.Errorf("%v, %v: %+v, %v, %v", c.by, c.err, got, fatal, got.verdict())
		}
	}
}
