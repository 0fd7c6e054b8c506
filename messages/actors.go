package messages

import (
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
)

// What actors say to each other, grouped by receiver. A Reply or Ready function may be
// called from any goroutine, at most once, and never blocks.
//
// State goes whole from the actor that owns it to those that depend on it: when it
// changes, when its owner starts, and when a dependent asks with SendState. So no
// message is one that must not get lost.

// SendState asks jobs, janitor and meter to send their state again: the sender has
// restarted and knows nothing.
type SendState struct{}

// Drain asks poller, jobs and uploader to finish what they have and take no more; Ready
// is called when nothing is left, perhaps more than once. Jobs that still run at Until
// are stopped.
type Drain struct {
	Until time.Time
	Ready func()
}

// SettingsChanged: settings may have changed, which are read where they are used. It is sent to
// all actors that have something to do then, also after a reload that changed only the key
// or certificates: calls that the master refused are made again at once.
type SettingsChanged struct{}

// To configuration.

// Reload asks for a reload of the configuration. Answer has room for one value and gets why it
// was refused, or nil; a nil channel gets none.
type Reload struct{ Answer chan<- error }

// UndoDrain makes poller and jobs take jobs again.
type UndoDrain struct{}

// To registrar.

// RegisterAgain asks for a new registration, because the master lost the node of a session
// or no longer treats it as available. It is ignored when a newer session is in force.
type RegisterAgain struct {
	Session Session
	Reason  string // such as "the master does not know this node"
}

// To heartbeat and poller.

// SessionChanged: the node has a session.
type SessionChanged struct{ Session Session }

// To poller.

// Slots is how many jobs may be asked for now.
type Slots struct{ Free int }

// Gate opens (Reason empty) or closes the taking of work under a name, such as "disk".
type Gate struct{ Name, Reason string }

// FindLeases asks for a look at what the master holds as ours: leases may have been lost
// with an earlier incarnation of jobs.
type FindLeases struct{}

// OfferRepeated: a lease was for an attempt that had ended here already, so the master
// is not asked for more before it has the attempt's result.
type OfferRepeated struct{ Key job.Key }

// ResultTaken: the master has the result of an attempt. It can be reached, and where the
// attempt failed it may have a retry for us.
type ResultTaken struct{ Key job.Key }

// To jobs.

// Offer brings leases: one that the master just gave, or those that it holds as ours.
type Offer struct{ Leases []job.Lease }

// AttemptEnded: the goroutine of an attempt has ended.
type AttemptEnded struct{ Key job.Key }

// ResultTried: the first sending of a result is over, whatever came of it.
type ResultTried struct{ Key job.Key }

// StopJobs stops the running jobs now; they are reported as failed, so that the master
// re-queues them.
type StopJobs struct{}

// To uploader.

// ResultReady: the journal holds a new result.
type ResultReady struct {
	Key         job.Key
	ConfirmedAt time.Time // when the master last confirmed the lease; zero: not to this process
}

// HeldLeases are all leases that jobs holds, running or waiting. A result of an earlier
// attempt at one of these jobs is no longer current.
type HeldLeases struct{ Keys []job.Key }

// To meter.

// RunningAttempts are all attempts that are being worked for: their energy is followed,
// and that of no other.
type RunningAttempts struct{ Attempts []RunningAttempt }

// RunningAttempt is one attempt for the meter.
type RunningAttempt struct {
	Key     job.Key
	Since   time.Time  // when work for it began
	Started *time.Time // FFmpeg's start; nil unless it runs
}

// OpenWindow opens an energy window of an attempt: PhaseRun at FFmpeg's start, or PhaseFetch,
// which is closed before. It may be repeated.
type OpenWindow struct {
	Key   job.Key
	Phase job.Phase
	At    time.Time
}

// CloseWindow closes an energy window of an attempt, PhaseRun at FFmpeg's exit; Reply gets the
// account within Within, with a last reading or without.
type CloseWindow struct {
	Key    job.Key
	Phase  job.Phase
	Start  time.Time
	At     time.Time
	Within time.Duration
	Reply  func(energy.Account)
}

// GetCurve asks for an attempt's power over time; Reply gets nil where there is none.
type GetCurve struct {
	Key   job.Key
	Reply func(*energy.Curve)
}

// Sampled brings what a sampler read.
type Sampled struct {
	Sample  energy.Sample
	Answers []uint64 // IDs of TakeReading that this reading answers
}

// SamplerHealth is the state of a power sampler.
type SamplerHealth struct {
	Name   string         `json:"name"`
	Source string         `json:"source,omitempty"` // sensors in use: rapl, hwmon, estimate, nvml
	Zones  int            `json:"zones"`
	Have   []*energy.Zone `json:"-"`                // the zones themselves
	Error  string         `json:"error,omitempty"`  // why it is unavailable; empty: it works, or there is nothing
	Absent string         `json:"absent,omitempty"` // why this machine has nothing of the kind; empty: it has
	Since  time.Time      `json:"since"`
}

// To samplers.

// SampleEvery sets how often sensors are read.
type SampleEvery struct{ Interval time.Duration }

// TakeReading asks for one extra reading now. Where ID is not 0, each sampler answers
// with a Sampled that carries it.
type TakeReading struct{ ID uint64 }

// To janitor.

// JournalFailed: the journal could not be written.
type JournalFailed struct{}

// HostStatusChanged carries the state of the machine as last read.
type HostStatusChanged struct{ Status HostStatus }
