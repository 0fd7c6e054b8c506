package messages

import (
	"time"

	"ffmpeg-agent/messages/protocol"
)

// Failure is why an attempt failed, in the master's vocabulary and in words for
// people. It is an error.
type Failure struct {
	Reason  protocol.FailureReason `json:"reason"`
	Message string                 `json:"message"`
}

func (f *Failure) Error() string { return f.Message }

// PlatformFailure is the agent's own fault, or its machine's: the master re-queues
// such a job.
func PlatformFailure(message string) *Failure {
	return &Failure{Reason: protocol.ReasonPlatformError, Message: message}
}

// MasterErrorKind classifies what a call to the master met, as far as the
// caller's next step depends on it.
type MasterErrorKind int

const (
	// MasterUnreachable: no answer: refused, reset, timed out, no route, bad TLS.
	MasterUnreachable MasterErrorKind = iota
	// MasterUnauthorized: 401 or 403: retry slowly, say so loudly.
	MasterUnauthorized
	// MasterUnknown: 404: the node or job is not known there.
	MasterUnknown
	// MasterConflict: 409: the attempt is stale.
	MasterConflict
	// MasterRefused: another 4xx, 400 above all: sending the same again is of no use.
	MasterRefused
	// MasterBusy: 429 or 503: obey RetryAfter.
	MasterBusy
	// MasterBroken: another 5xx.
	MasterBroken
	// MasterGarbled: an answer that is no answer: garbage, too large, wrong type.
	MasterGarbled
)

func (k MasterErrorKind) String() string {
	return [...]string{"unreachable", "unauthorized", "unknown", "conflict", "refused", "busy", "broken", "garbled"}[k]
}

// MasterError is a failed call to the master.
type MasterError struct {
	Kind       MasterErrorKind
	Status     int           // HTTP status; 0 when there was none
	RetryAfter time.Duration // what the master asked for; 0 when it did not
	// Ambiguous: the master may have carried the call out all the same (the
	// request was sent and no whole answer came back).
	Ambiguous bool
	Err       error
}

func (e *MasterError) Error() string { return e.Err.Error() }

func (e *MasterError) Unwrap() error { return e.Err }
