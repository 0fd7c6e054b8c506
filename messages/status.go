package messages

import (
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Status is the state of a running agent, for the control socket, /status and the metrics.
type Status struct {
	Version   string           `json:"version"`
	PID       int              `json:"pid"`
	StartedAt time.Time        `json:"started_at"`
	At        time.Time        `json:"at"`
	Address   string           `json:"address"` // the node's identity
	Master    string           `json:"master"`  // URL
	Session   *Session         `json:"session,omitempty"`
	Heartbeat *HeartbeatStatus `json:"heartbeat,omitempty"`
	Draining  bool             `json:"draining"`
	Slots     int              `json:"slots"`
	Checks    []Check          `json:"checks"`
	Jobs      []JobStatus      `json:"jobs"`
	Actors    []ActorStatus    `json:"actors"`
	Samplers  []SamplerHealth  `json:"samplers"`
	Engine    *EngineStatus    `json:"container_engine,omitempty"` // nil: containers are not read
	Listeners []ListenerHealth `json:"listeners"`
	Power     *energy.Watts    `json:"power_watts,omitempty"` // of the counted zones; nil when unknown
	Source    energy.Source    `json:"energy_source"`
	Journal   job.JournalStats `json:"journal"`
	Counts    Counts           `json:"counts"`
	// LastCompleted is the job that completed last, LastGenerated the synthetic input that
	// was generated last; nil: none yet.
	LastCompleted *CompletedJob   `json:"last_completed,omitempty"`
	LastGenerated *GeneratedInput `json:"last_generated_input,omitempty"`
	Host          *HostStatus     `json:"host,omitempty"`
	// Configuration is the configuration in force; nil: it does not change while the agent runs.
	Configuration *ConfigurationStatus `json:"configuration,omitempty"`
	// Certificates are those of the connection to the master that were seen so far.
	Certificates []Certificate `json:"certificates,omitempty"`
	// LogLinesDropped counts log lines that the output did not accept.
	LogLinesDropped uint64 `json:"log_lines_dropped"`
	// Cgroups is the parent cgroup of the jobs, or why there is none.
	Cgroups string `json:"cgroups"`
	// Sandbox is the sandbox around FFmpeg.
	Sandbox Sandbox `json:"sandbox"`
}

// Sandbox is the state of the sandbox around each FFmpeg.
type Sandbox struct {
	Mode   string         `json:"mode"` // jobs.sandbox
	Layers []SandboxLayer `json:"layers"`
	// Encoders are those that work only without certain layers.
	Encoders []SandboxedEncoder `json:"encoders,omitempty"`
}

// SandboxLayer is one layer of the sandbox.
type SandboxLayer struct {
	Name    string `json:"name"`
	Missing string `json:"missing,omitempty"` // why it is not there; empty: it is
	Lacks   string `json:"lacks,omitempty"`   // what it does not restrict on this kernel
}

// SandboxedEncoder is an encoder that works only without certain layers.
type SandboxedEncoder struct {
	Name    string   `json:"name"`
	Without []string `json:"without"`
}

// Check is one precondition of taking jobs.
type Check struct {
	Name   string `json:"name"`
	Reason string `json:"reason,omitempty"` // why it fails; empty: it passes
	// Public is Reason for clients that are to see no paths; empty: they see Reason.
	Public string `json:"-"`
}

// OK reports whether the check passes.
func (c Check) OK() bool { return c.Reason == "" }

// ConfigurationStatus describes the configuration in force.
type ConfigurationStatus struct {
	File     string    `json:"file,omitempty"` // empty: none
	LoadedAt time.Time `json:"loaded_at"`      // when it was last loaded without an error
	Reloads  int       `json:"reloads"`        // since the agent started, without an error
	// Restart are the keys whose new values wait for a restart of the agent.
	Restart []string `json:"waits_for_restart"`
	// Warnings are about the configuration in force, such as a key file that cannot be used.
	Warnings []string `json:"warnings,omitempty"`
	// NoKey: the file of the API key cannot be used, and the agent has no key.
	NoKey bool `json:"no_key,omitempty"`
	// Error is why the last reload failed, so that nothing was changed; empty: it did not.
	Error   string     `json:"error,omitempty"`
	ErrorAt *time.Time `json:"error_at,omitempty"`
}

// ListenerHealth is the state of one of the agent's own endpoints.
type ListenerHealth struct {
	Name  string `json:"name"`
	Error string `json:"error,omitempty"` // why it is not served; empty: it is
}

// JobStatus is one running attempt.
type JobStatus struct {
	Key      job.Key        `json:"key"`
	Scenario string         `json:"scenario"`
	Phase    job.Phase      `json:"phase"`
	Encoder  string         `json:"encoder,omitempty"`
	Started  *time.Time     `json:"started,omitempty"` // FFmpeg's start
	Progress job.Progress   `json:"progress"`
	Fetch    *job.Fetch     `json:"fetch,omitempty"`       // of the input; nil: it was not fetched
	ETA      *job.Seconds   `json:"eta_seconds,omitempty"` // until FFmpeg's end; nil while unknown
	Energy   *energy.Joules `json:"joules,omitempty"`      // so far; nil when unknown
	Power    *energy.Watts  `json:"power_watts,omitempty"`
	Source   energy.Source  `json:"energy_source"`
	PID      int            `json:"pid,omitempty"` // of FFmpeg while it runs
}

// ActorStatus is the state of one actor.
type ActorStatus struct {
	Path          string     `json:"path"`
	State         string     `json:"state"`
	Restarts      int        `json:"restarts"`
	Abandoned     int        `json:"abandoned"` // hung incarnations that were replaced
	Failures      int        `json:"failures"`
	MailboxDepth  int        `json:"mailbox_depth"`
	Dropped       int        `json:"dropped_messages"`
	LastFailure   string     `json:"last_failure,omitempty"`
	LastFailureAt *time.Time `json:"last_failure_at,omitempty"`
}

// Counts are totals since the agent started. Completed, Failed and Canceled count attempts,
// and the fields that begin with Jobs count jobs: a job that failed in four attempts is one
// failed job, and one that completed in the fifth is a completed one as well.
type Counts struct {
	JobsCompleted uint64 `json:"jobs_completed"`
	JobsFailed    uint64 `json:"jobs_failed"`
	JobsCanceled  uint64 `json:"jobs_canceled"`

	FailedByReason map[protocol.FailureReason]uint64 `json:"failed_by_reason,omitempty"` // attempts
	// Energy is what was charged to attempts whose energy is known.
	Energy []ChargedEnergy `json:"energy,omitempty"`
	// Walls are how long FFmpeg ran, in seconds, by outcome.
	Walls map[protocol.Status]*Histogram `json:"-"`

	Completed   uint64 `json:"completed"`
	Failed      uint64 `json:"failed"`
	Canceled    uint64 `json:"canceled"`
	Superseded  uint64 `json:"superseded"` // attempts discarded, running or waiting to be sent
	Delivered   uint64 `json:"delivered"`  // results the master took
	DeadLetters uint64 `json:"dead_letters"`

	CanceledForcefully uint64 `json:"canceled_forcefully"` // of the canceled, those whose FFmpeg had to be killed
	OnTime             uint64 `json:"on_time"`             // jobs that met their service level, see job.Outcome.OnTime
	NotOnTime          uint64 `json:"not_on_time"`         // jobs that did not
	InputsGenerated    uint64 `json:"inputs_generated"`    // synthetic inputs
	// InputBytes and OutputBytes sum up the known sizes of completed jobs' inputs and outputs.
	InputBytes  uint64 `json:"input_bytes"`
	OutputBytes uint64 `json:"output_bytes"`
}

// ChargedEnergy is the energy of the attempts that encoded to a codec.
type ChargedEnergy struct {
	Codec  string  `json:"codec"`
	Source string  `json:"source"` // measured, estimated
	Joules float64 `json:"joules"`
}

// Certificate is one of the connection to the master.
type Certificate struct {
	Name      string    `json:"name"` // master: the one that it presented; client: the agent's own
	ExpiresAt time.Time `json:"expires_at"`
}

// CompletedJob is what a completed job read and wrote.
type CompletedJob struct {
	InputBytes  *int64      `json:"input_bytes,omitempty"` // size of the input; nil when unknown
	OutputBytes *int64      `json:"output_bytes,omitempty"`
	Wall        job.Seconds `json:"wall_seconds"` // how long FFmpeg ran
}

// GeneratedInput is a synthetic input.
type GeneratedInput struct {
	SizeBytes int64       `json:"size_bytes"`
	Took      job.Seconds `json:"took_seconds"`
}

// HeartbeatStatus is the state of the heartbeat.
type HeartbeatStatus struct {
	LastAttempt *time.Time `json:"last_attempt,omitempty"`
	LastSuccess *time.Time `json:"last_success,omitempty"`
	Attempts    uint64     `json:"attempts"` // one in flight included
	Sent        uint64     `json:"sent"`
	Failed      uint64     `json:"failed"`
	Error       string     `json:"error,omitempty"` // of the last attempt
	KeyRefused  bool       `json:"key_refused"`     // the last attempt failed because the master does not accept the key
}
