package messages

import (
	"fmt"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// Session is this node's standing with a master: what registration gave.
type Session struct {
	NodeID  string    `json:"node_id"`
	Address string    `json:"address"` // the identity we registered with
	Master  string    `json:"master"`  // URL of the master that gave the id
	Since   time.Time `json:"since"`
}

// AttemptKey names one attempt at a job. Two attempts at one job are different
// work: only one of them may end in an accepted result.
type AttemptKey struct {
	JobID   string `json:"job_id"`
	Attempt int    `json:"attempt"` // from 1: 1 + the job's retry_count
}

// String is the key as logs and the journal write it: JOB#ATTEMPT.
func (k AttemptKey) String() string { return fmt.Sprintf("%s#%d", k.JobID, k.Attempt) }

// Lease is a job that the master holds as ours, whatever transport brought it.
// It is extended by asking whether it still stands, and ends when its result was
// reported or it was released.
type Lease struct {
	Job    protocol.Job `json:"job"`
	NodeID string       `json:"node_id"`
	// AcquiredAt is when the master was asked for it: what it answered may have come late.
	AcquiredAt time.Time `json:"acquired_at"`
}

// Key names the attempt this lease is for.
func (l *Lease) Key() AttemptKey {
	return AttemptKey{JobID: l.Job.ID, Attempt: l.Job.Attempt()}
}

// Standing is what the master says of a lease when asked.
type Standing int

const (
	// StandingUnknown: the master does not know the job, or answered with another
	// one. It never ends a running job.
	StandingUnknown Standing = iota
	// StandingHeld: the job is ours, this attempt is current (a paused job too).
	StandingHeld
	// StandingCanceled: the user gave the job up: stop, report what was measured.
	StandingCanceled
	// StandingEnded: the job has ended at the master otherwise, perhaps by an
	// earlier sending of this very result.
	StandingEnded
	// StandingGivenAway: the job waits again, runs elsewhere, or a later attempt
	// is current: stop and discard.
	StandingGivenAway
)

func (s Standing) String() string {
	return [...]string{"unknown", "held", "canceled", "ended", "given away"}[s]
}
