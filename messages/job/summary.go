package job

import (
	"encoding/json"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/protocol"
)

// Summary is an attempt in a list.
type Summary struct {
	JobID          string `json:"job_id"`
	SequenceNumber int64  `json:"sequence_number,omitempty"` // 0: the master gave none
	Attempt        int    `json:"attempt"`
	// Status is that of the result (completed, failed, canceled), else the record's state:
	// accepted, running, superseded, released.
	Status        string                 `json:"status"`
	State         RecordState            `json:"state"` // in the journal
	Scenario      string                 `json:"scenario"`
	FailureReason protocol.FailureReason `json:"failure_reason,omitempty"`
	Error         string                 `json:"error,omitempty"`
	Why           string                 `json:"why,omitempty"` // why it was superseded or is a dead letter
	AcceptedAt    time.Time              `json:"accepted_at"`
	FinishedAt    *time.Time             `json:"finished_at"`            // nil: it has no result yet
	WallSeconds   *float64               `json:"wall_seconds,omitempty"` // how long FFmpeg ran
	Joules        *float64               `json:"joules"`                 // nil: unknown
	Source        energy.Source          `json:"source"`
	Input         string                 `json:"input,omitempty"`
	Output        string                 `json:"output,omitempty"` // empty: not kept
}

// Failed reports whether the attempt failed, or its result was rejected for good.
func (s *Summary) Failed() bool {
	return s.Status == string(protocol.StatusFailed) || s.State == RecordDeadLetter
}

// Summarize returns what a list shows of a record. What its result lacks is absent.
func Summarize(r Record) Summary {
	key := r.Key()
	s := Summary{
		JobID: key.JobID, Attempt: key.Attempt, SequenceNumber: int64(r.Lease.Job.SequenceNumber), Status: string(r.State), State: r.State, Why: r.Why,
		Scenario: r.Lease.Job.Scenario, AcceptedAt: r.AcceptedAt, FinishedAt: r.FinishedAt, Source: energy.Unavailable,
	}
	if r.Release {
		s.Status = "released"
	}
	if len(r.Result) == 0 {
		return s
	}
	var result struct {
		Status        string                 `json:"status"`
		Error         string                 `json:"error"`
		FailureReason protocol.FailureReason `json:"failure_reason"`
		Joules        *float64               `json:"energy_joules"`
		Metrics       struct {
			Scenario string        `json:"scenario"`
			Duration float64       `json:"duration"`
			Source   energy.Source `json:"energy_source"`
			Input    string        `json:"input"`
			Output   string        `json:"output"`
		} `json:"metrics"`
	}
	if json.Unmarshal(r.Result, &result) != nil {
		return s
	}
	if !r.Release {
		s.Status = result.Status
	}
	s.Error, s.FailureReason, s.Joules = result.Error, result.FailureReason, result.Joules
	m := &result.Metrics
	if m.Scenario != "" {
		s.Scenario = m.Scenario
	}
	if m.Source != "" {
		s.Source = m.Source
	}
	if m.Duration > 0 {
		s.WallSeconds = &m.Duration
	}
	s.Input, s.Output = m.Input, m.Output
	if r.State == RecordSuperseded {
		s.Status = string(r.State)
	}
	return s
}
