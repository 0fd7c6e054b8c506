package job

import (
	"encoding/json"
	"errors"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// RecordState is the state of an attempt in the journal. It moves only forward: accepted →
// running → result → sent, superseded or dead letter.
type RecordState string

const (
	RecordAccepted   RecordState = "accepted"    // taken; FFmpeg not started
	RecordRunning    RecordState = "running"     // FFmpeg started
	RecordResult     RecordState = "result"      // has a result, which the master has not taken yet
	RecordSent       RecordState = "sent"        // the master took it
	RecordSuperseded RecordState = "superseded"  // discarded: the job was reassigned
	RecordDeadLetter RecordState = "dead letter" // the master rejects it for good
)

// ErrUnknownAttempt: the journal has no record of the attempt.
var ErrUnknownAttempt = errors.New("no such attempt")

// ErrNotTransferable: the attempt has ended, or there is a record of the new lease already.
var ErrNotTransferable = errors.New("cannot be transferred")

// Unfinished reports whether the attempt has no result yet.
func (s RecordState) Unfinished() bool { return s == RecordAccepted || s == RecordRunning }

// Settled reports whether nothing is left to do for the attempt.
func (s RecordState) Settled() bool {
	return s == RecordSent || s == RecordSuperseded || s == RecordDeadLetter
}

// Record is one attempt as the journal keeps it.
type Record struct {
	Lease   Lease           `json:"lease"`
	State   RecordState     `json:"state"`
	Process *Process        `json:"process,omitempty"` // FFmpeg, once started
	Result  json.RawMessage `json:"result,omitempty"`  // the body exactly as it is sent
	Release bool            `json:"release,omitempty"` // returned unstarted instead of reported
	// Requeued: the master re-queued the job while the attempt ran, and would still take a
	// completed result, but no other.
	Requeued   bool       `json:"requeued,omitempty"`
	Why        string     `json:"why,omitempty"` // why it was superseded or is a dead letter
	AcceptedAt time.Time  `json:"accepted_at"`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
	SettledAt  *time.Time `json:"settled_at,omitempty"`
	// Samples are the attempt's power over time; nil where they were not read or there are
	// none.
	Samples *Samples `json:"samples,omitempty"`
}

// Samples are an attempt's power over time and its phases.
type Samples struct {
	Curve  energy.Curve `json:"curve"`
	Phases []PhaseSpan  `json:"phases"` // in their order
}

// PhaseSpan is the time an attempt spent in a phase.
type PhaseSpan struct {
	Phase Phase     `json:"phase"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
}

// Key names the record's attempt.
func (r *Record) Key() Key { return r.Lease.Key() }

// JournalStats counts what the journal holds.
type JournalStats struct {
	Unfinished  int        `json:"unfinished"`
	Unsent      int        `json:"unsent"`
	OldestAt    *time.Time `json:"oldest_unsent_at,omitempty"`
	Sent        int        `json:"sent"`
	Superseded  int        `json:"superseded"`
	DeadLetters int        `json:"dead_letters"`
	// Error is why the last write failed; empty: it did not.
	Error string `json:"error,omitempty"`
}
