package supervision

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// Errors returned to actors and the callers of a System.
var (
	// ErrGoexit is the reason of a failure by runtime.Goexit.
	ErrGoexit = errors.New("runtime.Goexit was called")
	// ErrHung: an actor does not answer its probe.
	ErrHung = errors.New("the actor hangs")
	// ErrNameTaken: a sibling of that name runs.
	ErrNameTaken = errors.New("name is taken")
	// ErrStopped: the System has been stopped.
	ErrStopped = errors.New("actor system is stopped")
)

// Failure is one recovered panic or Goexit, of an actor or of a goroutine it owns.
type Failure struct {
	Actor    string // path of the actor
	Reason   any    // what was panicked with, or ErrGoexit
	Stack    string // where
	Message  string // type of the message being handled; "goroutine" for work started by Go
	At       time.Time
	Restarts int // of the actor, so far
}

// GaveUp reports why the process has to end and be started afresh.
type GaveUp struct {
	Reason    string
	Abandoned []string // paths of the actors abandoned so far, oldest first
	At        time.Time
}

// Error returns the report as one line.
func (g *GaveUp) Error() string {
	return fmt.Sprintf("supervision gave up: %s (abandoned so far: %s)", g.Reason, strings.Join(g.Abandoned, ", "))
}

// PanicError is the error of work that panicked or called runtime.Goexit.
type PanicError struct {
	Value any // what was panicked with, or ErrGoexit
	Stack string
}

// Error names the value without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the value where it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// guard calls f and then, on the same goroutine, after: with nil if f returned,
// else with its panic. A Goexit in f still ends the goroutine, after that.
func guard(f func(), after func(*PanicError)) {
	returned := false
	defer func() {
		if returned {
			after(nil)
			return
		}
		value := recover()
		if value == nil {
			value = ErrGoexit
		}
		after(&PanicError{Value: value, Stack: string(debug.Stack())})
	}()
	f()
	returned = true
}

// contain calls f on a goroutine of its own and waits for it, so that neither a
// panic nor a Goexit in f reaches the caller. It returns how f failed, nil if it returned.
func contain(f func()) *PanicError {
	result := make(chan *PanicError)
	go guard(f, func(p *PanicError) { result <- p })
	return <-result
}
