// Package protocol defines the wire types of the master's JSON API.
//
// Deployed masters differ in version and strictness. Decoding is therefore lenient
// (numbers may be strings, fields may be missing, null or of the wrong type), and encoding
// is exact (integers have no fraction or exponent, unknown scores are absent).
package protocol

import "time"

// Status is the status of a job at the master, or the status reported by a result.
type Status string

// All statuses. A result is only ever completed, failed or canceled.
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

// HeldByNode reports whether a job with this status is held by its node.
func (s Status) HeldByNode() bool {
	return s == StatusAssigned || s == StatusProcessing || s == StatusRunning
}

// Terminal reports whether a job with this status has ended.
func (s Status) Terminal() bool {
	switch s {
	case StatusCompleted, StatusFailed, StatusTimedOut, StatusCanceled, StatusRejected:
		return true
	}
	return false
}

// FailureReason classifies why a job failed. It is derived from exit status, signal, errno
// or the failed check, never from the text of an error.
type FailureReason string

// All failure reasons.
const (
	// ReasonCapabilityMismatch means that this node lacks the engine, codec or acceleration.
	ReasonCapabilityMismatch FailureReason = "capability_mismatch"
	// ReasonUserError means that a parameter is invalid, out of range or forbidden.
	ReasonUserError FailureReason = "user_error"
	// ReasonInputError means that the input is missing, unreadable, corrupt or not media.
	ReasonInputError FailureReason = "input_error"
	// ReasonNetworkError means that network input or output failed.
	ReasonNetworkError FailureReason = "network_error"
	// ReasonTimeout means that the job exceeded its timeout or stalled.
	ReasonTimeout FailureReason = "timeout"
	// ReasonResourceError means that memory, disk space or a limit was exhausted.
	ReasonResourceError FailureReason = "resource_error"
	// ReasonPlatformError means that the agent or its machine failed, for example that the
	// job was interrupted or FFmpeg is not installed.
	ReasonPlatformError FailureReason = "platform_error"
	// ReasonRuntimeError means that FFmpeg failed or was killed for any other reason.
	ReasonRuntimeError FailureReason = "runtime_error"
)

// Node types.
const (
	NodeServer  = "server"
	NodeDesktop = "desktop"
	NodeLaptop  = "laptop"
)

// NodeRegistration is the body of POST /nodes/register. Address identifies the node: the
// master treats two agents with the same address as one node.
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

// Node is a node as listed by the master.
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

// Parameters are a job's parameters as sent: values are string, json.Number, bool, nil,
// []any or map[string]any. A nil value counts as absent.
type Parameters map[string]any

// Job is a job as sent by the master. Unknown fields are ignored.
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
	FencedAttempt      int           `json:"attempt,omitempty"` // from masters that fence: 1 + RetryCount
	MaxRetries         int           `json:"max_retries,omitempty"`
	Error              string        `json:"error,omitempty"`
	FailureReason      FailureReason `json:"failure_reason,omitempty"`
	WrapperConstraints *Constraints  `json:"wrapper_constraints,omitempty"`
	TraceParent        string        `json:"traceparent,omitempty"` // W3C Trace Context, of masters that trace their jobs

	// Problems describes each field that could not be decoded. The job must be failed
	// as user_error rather than dropped, because the master has already assigned it.
	Problems []string `json:"x_agent_problems,omitempty"`
}

// Attempt returns the number of the job's current attempt, from 1.
func (j *Job) Attempt() int { return 1 + j.RetryCount }

// Fenced reports whether the master rejects results of any but the current attempt.
func (j *Job) Fenced() bool { return j.FencedAttempt > 0 }

// Constraints are resource limits in the format of the cgroup v2 files of the same names.
type Constraints struct {
	CPUMax      string `json:"cpu_max,omitempty"`       // "QUOTA PERIOD" in µs, or "max"
	CPUWeight   int64  `json:"cpu_weight,omitempty"`    // 1 to 10000
	MemoryMaxMB int64  `json:"memory_max_mb,omitempty"` // MiB
	IOMax       string `json:"io_max,omitempty"`
}

// JobRequest is the body of POST /jobs.
type JobRequest struct {
	Scenario           string         `json:"scenario,omitempty"`
	Confidence         string         `json:"confidence,omitempty"`
	Engine             string         `json:"engine,omitempty"`
	Classification     string         `json:"classification,omitempty"`
	TraceParent        string         `json:"traceparent,omitempty"`
	Parameters         map[string]any `json:"parameters,omitempty"`
	Queue              string         `json:"queue,omitempty"`
	Priority           string         `json:"priority,omitempty"`
	WrapperConstraints *Constraints   `json:"wrapper_constraints,omitempty"`
}

// JobResult is the body of POST /results. Masters reject the whole result if any field has
// the wrong type: Progress must be an integer from 0 to 100, scores must be finite or
// absent, Logs must be a string, and metrics must have the types given below.
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
	EnergyJoules    *float64       `json:"energy_joules,omitempty"`    // J, machine total during the encode, or the job's share of it
	VMAFScore       *float64       `json:"vmaf_score,omitempty"`       // 0 to 100
	Attempt         int            `json:"attempt"`                    // 1 + the job's retry_count
}

// Keys of JobResult.Metrics that masters read, with their required types.
const (
	MetricBitrate         = "bitrate"          // string such as "2000k"
	MetricFPS             = "fps"              // number, mean of the encode
	MetricFrames          = "frames"           // integer
	MetricDroppedFrames   = "dropped_frames"   // integer
	MetricResolution      = "resolution"       // string WxH
	MetricPixelsProcessed = "pixels_processed" // integer, never in exponent notation
	MetricDuration        = "duration"         // number, wall time of the encode in seconds
	MetricMediaDuration   = "media_duration"   // number, duration of the output in seconds
	MetricScenario        = "scenario"
	MetricEngine          = "engine"
)

// NextJobResponse is the response to GET /jobs/next. Job is nil if there is none.
type NextJobResponse struct {
	Job *Job `json:"job"`
}

// ResultResponse is the response to POST /results.
type ResultResponse struct {
	Status     string `json:"status"` // success or retrying
	Retry      int    `json:"retry,omitempty"`
	MaxRetries int    `json:"max_retries,omitempty"`
}

// StatusResponse is the response to GET /health, POST /jobs/{id}/cancel and
// DELETE /nodes/{id}.
type StatusResponse struct {
	Status string `json:"status"`
	JobID  string `json:"job_id,omitempty"`
	NodeID string `json:"node_id,omitempty"`
}
