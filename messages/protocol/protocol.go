// Package protocol holds the master's wire types: what a master sends a worker
// and what it demands of one, as JSON over HTTP.
//
// Masters in the field differ in age and care. Decoding is therefore lenient
// (numbers may be strings, fields may be missing, null or of a wrong type) and
// encoding is exact (an integer is an integer, an unknown score is absent).
// The package knows no transport and takes no decision.
package protocol

import "time"

// Status is the state of a job at the master, or the state a result reports.
type Status string

// The states a master knows. A result carries only Completed, Failed or Canceled.
const (
	StatusPending    Status = "pending"
	StatusQueued     Status = "queued"
	StatusAssigned   Status = "assigned"
	StatusProcessing Status = "processing"
	StatusRunning    Status = "running"
	StatusCompleted  Status = "completed"
	StatusFailed     Status = "failed"
	StatusTimedOut   Status = "timed_out"
	StatusRetrying   Status = "retrying"
	StatusPaused     Status = "paused"
	StatusCanceled   Status = "canceled"
	StatusRejected   Status = "rejected"
)

// HeldByNode reports whether a job in this state is held by the node it names.
func (s Status) HeldByNode() bool {
	return s == StatusAssigned || s == StatusProcessing || s == StatusRunning
}

// Terminal reports whether a job in this state has ended at the master.
func (s Status) Terminal() bool {
	switch s {
	case StatusCompleted, StatusFailed, StatusTimedOut, StatusCanceled, StatusRejected:
		return true
	}
	return false
}

// FailureReason says why a job failed, decided from what happened (exit status,
// signal, errno, which check failed) and never from an error's words.
type FailureReason string

// The reasons a master understands.
const (
	// ReasonCapabilityMismatch: the engine, codec or acceleration is not to be had on this node.
	ReasonCapabilityMismatch FailureReason = "capability_mismatch"
	// ReasonUserError: a parameter is invalid, out of bounds or forbidden.
	ReasonUserError FailureReason = "user_error"
	// ReasonInputError: the input is missing, unreadable, corrupt, or no media.
	ReasonInputError FailureReason = "input_error"
	// ReasonNetworkError: input or output over the network failed.
	ReasonNetworkError FailureReason = "network_error"
	// ReasonTimeout: the job's timeout or a stall.
	ReasonTimeout FailureReason = "timeout"
	// ReasonResourceError: memory, disk or a limit ran out.
	ReasonResourceError FailureReason = "resource_error"
	// ReasonPlatformError: the agent or its machine failed the job: interrupted, FFmpeg missing.
	ReasonPlatformError FailureReason = "platform_error"
	// ReasonRuntimeError: FFmpeg failed or was killed otherwise.
	ReasonRuntimeError FailureReason = "runtime_error"
)

// Node types a registration may carry.
const (
	NodeServer  = "server"
	NodeDesktop = "desktop"
	NodeLaptop  = "laptop"
)

// NodeRegistration is the body of POST /nodes/register. Address is the node's
// identity: two agents with one address are one node.
type NodeRegistration struct {
	Address         string            `json:"address"`
	Type            string            `json:"type"`
	CPUThreads      int               `json:"cpu_threads"`
	CPUModel        string            `json:"cpu_model"`
	HasGPU          bool              `json:"has_gpu"`
	GPUType         string            `json:"gpu_type,omitempty"`
	GPUCapabilities []string          `json:"gpu_capabilities,omitempty"`
	RAMTotalBytes   uint64            `json:"ram_total_bytes"`
	Labels          map[string]string `json:"labels,omitempty"`
}

// Node is a node as the master knows it.
type Node struct {
	NodeRegistration
	ID             string    `json:"id"`
	Name           string    `json:"name,omitempty"`
	Status         string    `json:"status"` // available, busy or offline
	LastHeartbeat  time.Time `json:"last_heartbeat"`
	RegisteredAt   time.Time `json:"registered_at"`
	CurrentJobID   string    `json:"current_job_id,omitempty"`
	RAMFreeBytes   uint64    `json:"ram_free_bytes,omitempty"`
	CPULoadPercent float64   `json:"cpu_load_percent,omitempty"`
}

// Parameters are a job's parameters as sent: values are string, json.Number,
// bool, nil, []any or map[string]any. A key whose value is null counts as absent.
type Parameters map[string]any

// Job is a job as the master describes it. Fields to come are ignored.
type Job struct {
	ID                 string        `json:"id"`
	SequenceNumber     int64         `json:"sequence_number,omitempty"`
	Scenario           string        `json:"scenario,omitempty"`
	Confidence         string        `json:"confidence,omitempty"`
	Engine             string        `json:"engine,omitempty"` // auto, ffmpeg, gstreamer
	Classification     string        `json:"classification,omitempty"`
	Parameters         Parameters    `json:"parameters,omitempty"`
	Status             Status        `json:"status,omitempty"`
	Queue              string        `json:"queue,omitempty"`    // live, default, batch
	Priority           string        `json:"priority,omitempty"` // a name or a number
	Progress           float64       `json:"progress,omitempty"`
	NodeID             string        `json:"node_id,omitempty"`
	CreatedAt          *time.Time    `json:"created_at,omitempty"`
	StartedAt          *time.Time    `json:"started_at,omitempty"`
	LastActivityAt     *time.Time    `json:"last_activity_at,omitempty"`
	CompletedAt        *time.Time    `json:"completed_at,omitempty"`
	TimeoutAt          *time.Time    `json:"timeout_at,omitempty"`
	RetryCount         int           `json:"retry_count,omitempty"`
	MaxRetries         int           `json:"max_retries,omitempty"`
	Error              string        `json:"error,omitempty"`
	FailureReason      FailureReason `json:"failure_reason,omitempty"`
	WrapperConstraints *Constraints  `json:"wrapper_constraints,omitempty"`

	// Problems names each field that was there but could not be understood.
	// Such a job is still a job: it is failed as user_error, not dropped.
	Problems []string `json:"x_agent_problems,omitempty"`
}

// Attempt is the number of this attempt at the job, from 1.
func (j *Job) Attempt() int { return 1 + j.RetryCount }

// Constraints are limits a master's wrapper asks for, in cgroup v2 terms.
type Constraints struct {
	CPUMax      string `json:"cpu_max,omitempty"`       // as cpu.max: "QUOTA PERIOD" in µs, or "max"
	CPUWeight   int64  `json:"cpu_weight,omitempty"`    // as cpu.weight: 1 to 10000
	MemoryMaxMB int64  `json:"memory_max_mb,omitempty"` // MiB
	IOMax       string `json:"io_max,omitempty"`        // as io.max
}

// JobRequest is the body of POST /jobs.
type JobRequest struct {
	Scenario           string         `json:"scenario,omitempty"`
	Confidence         string         `json:"confidence,omitempty"`
	Engine             string         `json:"engine,omitempty"`
	Classification     string         `json:"classification,omitempty"`
	Parameters         map[string]any `json:"parameters,omitempty"`
	Queue              string         `json:"queue,omitempty"`
	Priority           string         `json:"priority,omitempty"`
	WrapperConstraints *Constraints   `json:"wrapper_constraints,omitempty"`
}

// JobResult is the body of POST /results. Masters refuse a wrong type whole:
// Progress is an integer from 0 to 100, scores are finite or absent, Logs is a
// string, and the metrics named below keep the types given there.
type JobResult struct {
	JobID           string         `json:"job_id"`
	NodeID          string         `json:"node_id"`
	Status          Status         `json:"status"` // completed, failed, canceled
	Progress        int            `json:"progress"`
	Metrics         map[string]any `json:"metrics,omitempty"`
	AnalyzerOutput  map[string]any `json:"analyzer_output,omitempty"`
	Error           string         `json:"error,omitempty"`
	FailureReason   FailureReason  `json:"failure_reason,omitempty"`
	Logs            string         `json:"logs,omitempty"` // head and tail of FFmpeg's standard error
	CompletedAt     time.Time      `json:"completed_at"`
	QoEScore        *float64       `json:"qoe_score,omitempty"`        // quality-weighted pixels per joule
	EfficiencyScore *float64       `json:"efficiency_score,omitempty"` // pixels per joule
	EnergyJoules    *float64       `json:"energy_joules,omitempty"`    // J, machine total in the job's window or its share
	VMAFScore       *float64       `json:"vmaf_score,omitempty"`       // 0 to 100
	Attempt         int            `json:"attempt"`                    // 1 + the job's retry_count
}

// Keys of JobResult.Metrics that masters read, with the type each demands.
const (
	MetricBitrate         = "bitrate"          // string such as "2000k"
	MetricFPS             = "fps"              // number: mean of the encode
	MetricFrames          = "frames"           // integer
	MetricDroppedFrames   = "dropped_frames"   // integer
	MetricResolution      = "resolution"       // string WxH
	MetricPixelsProcessed = "pixels_processed" // integer, never 1e+06
	MetricDuration        = "duration"         // number: wall seconds of the encode
	MetricMediaDuration   = "media_duration"   // number: seconds of media made
	MetricScenario        = "scenario"
	MetricEngine          = "engine"
)

// NextAnswer is the answer to GET /jobs/next; Job is nil when there is no work.
type NextAnswer struct {
	Job *Job `json:"job"`
}

// ResultAnswer is the answer to POST /results.
type ResultAnswer struct {
	Status     string `json:"status"` // success or retrying
	Retry      int    `json:"retry,omitempty"`
	MaxRetries int    `json:"max_retries,omitempty"`
}

// StatusAnswer is the answer to calls that change one thing: /health, cancel, DELETE.
type StatusAnswer struct {
	Status string `json:"status"`
	JobID  string `json:"job_id,omitempty"`
	NodeID string `json:"node_id,omitempty"`
}
