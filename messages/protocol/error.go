package protocol

import (
	"errors"
	"time"
)

// ErrorKind classifies a failed call to the master by what the caller does next.
type ErrorKind int

const (
	// Unreachable: no answer: refused, reset, timed out, no route, bad TLS.
	Unreachable ErrorKind = iota
	// Unauthorized: 401 or 403: retry slowly, log an error.
	Unauthorized
	// NotFound: 404: the master does not know the node or job.
	NotFound
	// Conflict: 409: the attempt is stale.
	Conflict
	// Rejected: any other 4xx, mostly 400: sending the same again is pointless.
	Rejected
	// Busy: 429 or 503: wait for RetryAfter.
	Busy
	// ServerError: another 5xx.
	ServerError
	// Malformed: the response cannot be used: not JSON, too large, wrong type.
	Malformed
)

func (k ErrorKind) String() string {
	return [...]string{"unreachable", "unauthorized", "not found", "conflict", "rejected", "busy", "server error", "malformed"}[k]
}

// Error is a failed call to the master.
type Error struct {
	Kind       ErrorKind
	Status     int           // HTTP status; 0 when there was none
	RetryAfter time.Duration // what the master asked for; 0 when it did not
	// Ambiguous: the request was sent but no complete response came back, so the
	// master may have acted on it.
	Ambiguous bool
	Err       error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of an Error in err's chain; any other error counts as Unreachable.
func KindOf(err error) ErrorKind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Unreachable
}
