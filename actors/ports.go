package actors

import (
	"context"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// The ports are what the actors need from outside. The command that wires the agent
// hands in an implementation of each. Every method may block, so it is called from an
// owned goroutine and never in an actor's turn, unless its comment says that it does not
// block. All are safe for concurrent use.

// Master is the source of work: a lease goes from Next to Report or Release, and Extend
// asks in between whether it still stands. Errors are *protocol.Error.
type Master interface {
	// Register announces the node. It may be repeated at any time: the address is the
	// node's identity, and the answer the same node. Some masters store the facts of the
	// first registration only.
	Register(context.Context, messages.NodeFacts) (messages.Session, error)
	// Heartbeat shows that the node is alive. It shares no connection with other calls.
	// A NotFound error means: register again.
	Heartbeat(context.Context, messages.Session, messages.NodeStatus) error
	// Next asks for a job; nil when there is none. The master assigns as it answers, so
	// the call is never repeated silently, and after an error Held reports whether a lease
	// was lost with the response.
	Next(context.Context, messages.Session) (*job.Lease, error)
	// Held asks how the master lists the node and which leases it holds as ours. A NotFound
	// error means that it does not know the node.
	Held(context.Context, messages.Session) (messages.Held, error)
	// Remove removes the node, so that its next registration is a first one. A Rejected error
	// means that the node is busy, NotFound that there is none.
	Remove(context.Context, messages.Session) error
	// Extend asks for the status of a lease.
	Extend(context.Context, job.Lease) (job.LeaseStatus, error)
	// Report delivers a result, the record's bytes as they are. nil: the master took it.
	Report(context.Context, job.Record) error
	// Release returns a lease unstarted, so that another worker gets the job now.
	Release(context.Context, job.Record) error
}

// Journal is the durable record of attempts. Each call is on disk when it returns.
type Journal interface {
	// Accept records a lease before anything is done for it. For an attempt that is there
	// already it changes nothing and returns the record; one that was superseded begins
	// anew.
	Accept(job.Lease) (job.Record, error)
	// Running records FFmpeg's process.
	Running(job.Key, job.Process) error
	// Requeued records that the master re-queued the job while the attempt ran.
	Requeued(job.Key) error
	// Transfer makes an unfinished attempt answer for another lease of its job. It fails with
	// job.ErrNotTransferable where it has ended or the lease is recorded already.
	Transfer(job.Key, job.Lease) error
	// Finish records the attempt's result. A result that is there already stays.
	Finish(key job.Key, result []byte, release bool) error
	// Settle ends an attempt: sent, superseded or dead letter, and why.
	Settle(key job.Key, end job.RecordState, why string) error
	// Record returns one attempt; false when it is not there.
	Record(job.Key) (job.Record, bool, error)
	// Unfinished lists attempts without a result, oldest first.
	Unfinished() ([]job.Record, error)
	// Unsent lists results that are not settled, oldest first.
	Unsent() ([]job.Record, error)
	// SaveSamples keeps an attempt's power over time beside its record.
	SaveSamples(job.Key, job.Samples) error
	// SaveBaselines keeps the learned idle baseline; Baselines returns it, false when there
	// is none.
	SaveBaselines(energy.Baselines) error
	Baselines() (energy.Baselines, bool, error)
	// SaveSession keeps the node's session; Session returns it, false when there is none.
	SaveSession(messages.Session) error
	Session() (messages.Session, bool, error)
	// SaveRenewals keeps what was done about facts that masters did not store; Renewals
	// returns it.
	SaveRenewals([]messages.Renewal) error
	Renewals() ([]messages.Renewal, error)
	// Probe checks that the journal can be written.
	Probe() error
	// Stats counts what the journal holds, and says whether it could be written. It does
	// not block.
	Stats() job.JournalStats
}

// Traces records attempts. It must not block.
type Traces interface {
	// Ended is called once for each attempt that has a result.
	Ended(outcome *job.Outcome, phases []job.PhaseSpan)
}

// Runner runs FFmpeg for attempts.
type Runner interface {
	// Begin returns a new run for a lease. It starts nothing and does not block.
	Begin(job.Lease) Run
	// Ready is nil when FFmpeg can be run, else it says what is missing.
	Ready(context.Context) error
}

// Run is one attempt at a job. One goroutine calls Prepare, Start, Wait, Check and
// Measure, each once and in this order, as far as none fails. Their errors are
// *job.Failure, or the context's. Stop, Snapshot, CPUTime and Close may be called at any
// time.
type Run interface {
	// MeterFetch sets a function that the input is fetched in: it must call its argument once.
	// Call MeterFetch before Prepare.
	MeterFetch(around func(fetch func()))
	// Prepare checks the job, makes its workspace, and fetches its input or makes a synthetic
	// one.
	Prepare(context.Context) error
	// Start starts FFmpeg. Wait must follow.
	Start(context.Context) (job.Process, error)
	// Wait returns when FFmpeg has exited. It ends FFmpeg at a stop, a stall, a timeout, an
	// exceeded limit and the end of the context.
	Wait(context.Context) error
	// Check judges what FFmpeg made and puts the output in its place: nil when the attempt
	// is good.
	Check(context.Context) error
	// Measure measures the quality that the job asks for. What could not be measured is
	// absent, with a note.
	Measure(context.Context) job.Quality
	// Close ends what still runs, waits for its end, and removes what the attempt left. It
	// may be repeated.
	Close(context.Context) error
	// Stop asks FFmpeg to end, and kills it 10 s later. The first cause counts. It does not
	// block.
	Stop(job.StopCause)
	// Snapshot is the state of the run. It does not block.
	Snapshot() job.Snapshot
	// CPUTime is the CPU time that FFmpeg has used so far; false while it is unknown. It
	// does not block.
	CPUTime() (time.Duration, bool)
}

// PowerSensors reads the energy counters of one kind of sensor. Read is called by
// one goroutine at a time.
type PowerSensors interface {
	Name() string
	// FallbackReason is why no better source is used; nil where there is none.
	FallbackReason() error
	Zones() []*energy.Zone
	Read() ([]energy.Reading, []energy.Fault)
	Close() error
}

// GPUSensors are the power sensors of graphics cards.
type GPUSensors interface {
	PowerSensors
	// Cards are the cards as of the last Read, by index.
	Cards() []energy.GPU
}

// NoSensorsError means that the machine has no sensors of a kind, and why. That is no fault,
// and they may appear later.
type NoSensorsError struct{ Reason error }

func (e *NoSensorsError) Error() string { return e.Reason.Error() }

func (e *NoSensorsError) Unwrap() error { return e.Reason }

// Endpoint is one of the agent's own listeners: a metrics port or the control socket.
type Endpoint interface {
	Name() string
	// Serve listens and serves until the context ends (nil) or it fails. Then it may be
	// called again.
	Serve(context.Context) error
}

// Host reads the state of the machine.
type Host interface {
	Look(context.Context) (messages.HostStatus, error)
}

// Containers reads the running containers of this machine. It is called by one goroutine at a
// time. The error is a *NoSensorsError where there is no container engine.
type Containers interface {
	Read(context.Context) ([]messages.Container, error)
}

// Configuration is the operator's configuration, which is in files that may change.
type Configuration interface {
	// Changed reports whether a file has changed since the last Reload and is unchanged since
	// the last call, so that a half-written file is not read.
	Changed() bool
	// Reload reads the files and applies them to what is no actor. After an error nothing has
	// changed; Status has the error too. Changed and Reload are called by one goroutine at a
	// time.
	Reload(context.Context) error
	// Settings are the settings of the tree in force. It does not block.
	Settings() Settings
	// Status reports which configuration is in force. It does not block.
	Status() messages.ConfigurationStatus
}

// Janitor removes what a previous process of the agent left.
type Janitor interface {
	// Reap kills exactly the processes that the records name, where they still run, with
	// their process groups and cgroups.
	Reap(context.Context, []job.Record) error
	// Sweep removes workspaces and temporary outputs that no run owns, and returns how many
	// there were.
	Sweep(context.Context) (int, error)
}
