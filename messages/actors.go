package messages

import (
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
)

// What actors say to each other. A Reply or Ready function may be called from any
// goroutine, at most once, and never blocks.

// SessionChanged announces the node's session: to heartbeat and poller.
type SessionChanged struct{ Session Session }

// NodeForgotten tells the registrar that the master no longer knows the session's
// node. It is ignored when a newer session stands already.
type NodeForgotten struct{ Session Session }

// SlotsChanged tells the poller how many jobs may be asked for now.
type SlotsChanged struct{ Free int }

// JobEnded tells the poller that a result was handed to the uploader: the poll for
// the next job waits for ResultTried, or 1 s.
type JobEnded struct{ Key job.Key }

// ResultReady tells the uploader that a result lies in the journal.
type ResultReady struct {
	Key   job.Key
	Stood time.Time // when the master last said that the lease stands; zero: not in this life
}

// LeaseGiven tells the uploader that the master gave out a job: what is still to be
// sent of earlier attempts at it is no longer current.
type LeaseGiven struct{ Key job.Key }

// ResultTried tells the poller that a result was sent for the first time, and whether
// the master took it.
type ResultTried struct {
	Key       job.Key
	Delivered bool
}

// Offer brings jobs a lease that the master just gave, or leases that it says it
// holds as ours.
type Offer struct{ Leases []job.Lease }

// Gate opens (Reason empty) or closes the taking of work under a name, such as "disk".
type Gate struct{ Name, Reason string }

// Drain asks an actor to finish what it has and take no more; Ready is called when
// nothing is left, perhaps more than once. Jobs that still run at Until are stopped.
type Drain struct {
	Until time.Time
	Ready func()
}

// StopJobs ends the running jobs now; they are reported as failed so that the
// master re-queues them.
type StopJobs struct{}

// Shutdown asks the agent to drain and stop its tree in order; Done gets a line for each
// part that did not stop in time.
type Shutdown struct{ Done func(late []string) }

// JobTaken tells the meter that an attempt's work has begun: read every sensor often
// from now on. It may be repeated.
type JobTaken struct {
	Key job.Key
	At  time.Time
}

// JobStarting tells the meter that FFmpeg is about to start: read every sensor now.
type JobStarting struct{ Key job.Key }

// JobStarted opens the job's energy window at FFmpeg's start. It may be repeated.
type JobStarted struct {
	Key job.Key
	At  time.Time
}

// JobExited closes the job's energy window at FFmpeg's exit; Reply gets the
// account within Within, with or without a last reading.
type JobExited struct {
	Key    job.Key
	Start  time.Time
	At     time.Time
	Within time.Duration
	Reply  func(energy.Account)
}

// CurveWanted asks the meter for an attempt's power over time; Reply gets nil where there
// is none.
type CurveWanted struct {
	Key   job.Key
	Reply func(*energy.Curve)
}

// JobGone tells the meter that nothing is left of an attempt, and nothing more will be
// asked about it.
type JobGone struct{ Key job.Key }

// MeterStarted tells jobs that the meter knows no windows: announce the running
// ones again.
type MeterStarted struct{}

// SampleEvery sets how often samplers read.
type SampleEvery struct{ Interval time.Duration }

// TakeReading asks samplers for one extra reading now; each answers with a
// Sampled that carries ID.
type TakeReading struct{ ID uint64 }

// Sampled brings the meter what a sampler read.
type Sampled struct {
	Sample  energy.Sample
	Answers []uint64 // IDs of TakeReading that this reading answers
}

// SamplerHealth tells the meter and the board how a sampler fares.
type SamplerHealth struct {
	Name   string         `json:"name"`
	Source string         `json:"source,omitempty"` // sensors in use: rapl, hwmon, estimate, nvml
	Zones  int            `json:"zones"`
	Have   []*energy.Zone `json:"-"`                // the zones themselves
	Error  string         `json:"error,omitempty"`  // why it is unavailable; empty: it works, or there is nothing
	Absent string         `json:"absent,omitempty"` // why this machine has nothing of the kind; empty: it has
	Since  time.Time      `json:"since"`
}

// JournalFailed tells the janitor that something could not be recorded.
type JournalFailed struct{}

// HostLooked brings the janitor how the machine fares.
type HostLooked struct{ Status HostStatus }

// JobFinished tells jobs that an attempt's actor is done with it.
type JobFinished struct {
	Key job.Key
	// Reported: its result lies in the journal. Otherwise the attempt was
	// discarded as superseded.
	Reported bool
	Stood    time.Time // as in ResultReady
	// Stale: the attempt had ended before it was offered.
	Stale bool
}

// HeartbeatStatus is how the heartbeat fares.
type HeartbeatStatus struct {
	LastAttempt *time.Time `json:"last_attempt,omitempty"`
	LastSuccess *time.Time `json:"last_success,omitempty"`
	Attempts    uint64     `json:"attempts"` // the last one, which may be under way, included
	Sent        uint64     `json:"sent"`
	Failed      uint64     `json:"failed"`
	Error       string     `json:"error,omitempty"` // of the last attempt
}

// JobsStarted tells the poller that leases may have been lost with an earlier jobs:
// ask what the master holds as ours.
type JobsStarted struct{}

// OfferDropped tells the poller that a lease was for an attempt that has ended here:
// the master is not to be asked for more of the kind at once.
type OfferDropped struct{}

// PollerStarted tells jobs and the janitor that the poller knows neither slots nor
// gates: say them again.
type PollerStarted struct{}

// SamplersStarted tells the meter that samplers do not know their pace.
type SamplersStarted struct{}

// JobClosed tells jobs that nothing is left of an attempt: process, workspace, actor.
type JobClosed struct{ Key job.Key }
