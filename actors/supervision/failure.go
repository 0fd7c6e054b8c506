package supervision

import (
	"errors"
	"fmt"
	"runtime/debug"
)

var (
	errGoexit    = errors.New("runtime.Goexit was called")
	errNameTaken = errors.New("name is taken")
	errStopped   = errors.New("the supervisor is stopping")
)

// panicError is the error of code that panicked or called runtime.Goexit.
type panicError struct {
	value any // passed to panic, or errGoexit
	stack string
}

// Error returns the value without the stack.
func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// Unwrap returns the value if it is an error.
func (e *panicError) Unwrap() error {
	err, _ := e.value.(error)
	return err
}

// guard calls f and then after, on the same goroutine: with nil if f returned, else with
// its panic or Goexit. After a Goexit the goroutine still ends.
func guard(f func(), after func(*panicError)) {
	returned := false
	defer func() {
		if returned {
			after(nil)
			return
		}
		value := recover()
		if value == nil {
			value = errGoexit
		}
		after(&panicError{value: value, stack: string(debug.Stack())})
	}()
	f()
	returned = true
}

// catchPanic calls f on a new goroutine and waits for it. A panic or Goexit in f does not reach
// the caller; catchPanic returns it, or nil if f returned.
func catchPanic(f func()) *panicError {
	result := make(chan *panicError)
	go guard(f, func(p *panicError) { result <- p })
	return <-result
}
