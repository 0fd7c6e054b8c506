package protocol

import (
	"errors"
	"time"
)

// ErrorKind classifies failed calls to the master by how the caller must react.
type ErrorKind int

const (
	// Unreachable means that there was no response: connection refused or reset, timeout,
	// no route, TLS failure.
	Unreachable ErrorKind = iota
	// Unauthorized means status 401 or 403: log an error and retry slowly.
	Unauthorized
	// NotFound means status 404: the node or job is unknown to the master.
	NotFound
	// Conflict means status 409: the attempt is stale.
	Conflict
	// Rejected means another 4xx, usually 400: a retry would fail as well.
	Rejected
	// Busy means status 429 or 503: wait for RetryAfter.
	Busy
	// ServerError means another 5xx.
	ServerError
	// Malformed means that the response is unusable: not JSON, too large, wrong type.
	Malformed
)

func (k ErrorKind) String() string {
	return [...]string{"unreachable", "unauthorized", "not found", "conflict", "rejected", "busy", "server error", "malformed"}[k]
}

// Error is a failed call to the master.
type Error struct {
	Kind       ErrorKind
	Status     int           // HTTP status; 0 if there was no response
	RetryAfter time.Duration // from the Retry-After header; 0 if absent
	// Ambiguous is true if the request may have reached the master although there was
	// no complete response, so the master may have acted on it.
	Ambiguous bool
	Err       error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the Error in err's chain, or Unreachable if there is none.
func KindOf(err error) ErrorKind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Unreachable
}
