package job

import (
	"fmt"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// Key names one attempt at a job. Two attempts at one job are different
// work: only one of them may end in an accepted result.
type Key struct {
	JobID   string `json:"job_id"`
	Attempt int    `json:"attempt"` // from 1: 1 + the job's retry_count
}

// String is the key as logs and the journal write it: JOB#ATTEMPT.
func (k Key) String() string { return fmt.Sprintf("%s#%d", k.JobID, k.Attempt) }

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
func (l *Lease) Key() Key {
	return Key{JobID: l.Job.ID, Attempt: l.Job.Attempt()}
}

// LeaseStatus is what the master says of a lease when asked.
type LeaseStatus int

const (
	// LeaseUnknown: the master does not know the job, or answered with another
	// one. It never ends a running job.
	LeaseUnknown LeaseStatus = iota
	// LeaseHeld: the job is ours, this attempt is current (a paused job too).
	LeaseHeld
	// LeaseCanceled: the user gave the job up: stop, report what was measured.
	LeaseCanceled
	// LeaseEnded: the job has ended at the master otherwise, perhaps by an
	// earlier sending of this very result.
	LeaseEnded
	// LeaseReassigned: the job waits again, runs elsewhere, or a later attempt
	// is current: stop and discard.
	LeaseReassigned
)

func (s LeaseStatus) String() string {
	return [...]string{"unknown", "held", "canceled", "ended", "reassigned"}[s]
}
