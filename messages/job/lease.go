package job

import (
	"fmt"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// Key names one attempt at a job. Of several attempts at a job only one may end in an
// accepted result.
type Key struct {
	JobID   string `json:"job_id"`
	Attempt int    `json:"attempt"` // from 1: 1 + the job's retry_count
}

// String is the key as logs and the journal write it: JOB#ATTEMPT.
func (k Key) String() string { return fmt.Sprintf("%s#%d", k.JobID, k.Attempt) }

// Lease is a job that the master has assigned to us. It ends when the result is reported
// or the lease released.
type Lease struct {
	Job    protocol.Job `json:"job"`
	NodeID string       `json:"node_id"`
	// AcquiredAt is when the request was sent that returned it: the response may be old.
	AcquiredAt time.Time `json:"acquired_at"`
}

// Key names the attempt that the lease is for.
func (l *Lease) Key() Key {
	return Key{JobID: l.Job.ID, Attempt: l.Job.Attempt()}
}

// LeaseStatus is the status of a lease at the master.
type LeaseStatus int

const (
	// LeaseUnknown: the master does not know the job, or answered with another one. It never
	// stops a running job.
	LeaseUnknown LeaseStatus = iota
	// LeaseHeld: the job is ours, this attempt is current (a paused job too).
	LeaseHeld
	// LeaseCanceled: the job was canceled: stop, report what was measured.
	LeaseCanceled
	// LeaseEnded: the job was completed at the master, and not by another node: perhaps by an
	// earlier sending of this very result.
	LeaseEnded
	// LeaseFailed: the job has failed at the master under this lease, perhaps by an earlier
	// sending of this very result. A master that does not fence still takes a completed one.
	LeaseFailed
	// LeaseReassigned: the job is queued again, runs elsewhere, has a later attempt, or failed
	// in one. A master that does not fence still takes a completed result.
	LeaseReassigned
	// LeaseOver: the job has ended after it was reassigned, but for a failure.
	LeaseOver
	// LeaseTimedOut: the master ended the job because it took too long.
	LeaseTimedOut
	// LeaseRejected: the master ended the job because no node can run it.
	LeaseRejected
)

func (s LeaseStatus) String() string {
	return [...]string{"unknown", "held", "canceled", "ended", "failed", "reassigned", "over", "timed_out", "rejected"}[s]
}
