package actors

import (
	"context"
	"errors"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// The ports: what the actors need from outside. Each is implemented elsewhere and
// handed in by the command that wires the agent. Every method may block and is
// therefore called from an owned goroutine, never in an actor's turn, unless its
// comment says otherwise. All are safe for concurrent use.

// Master is the other end of the work: a lease goes from Next to Report or Release,
// and is extended in between by asking how it stands. Errors are *protocol.Error.
type Master interface {
	// Register announces the node. It may be repeated at any time: the address is
	// the node's identity and the answer the same node.
	Register(context.Context, messages.NodeFacts) (messages.Session, error)
	// Heartbeat says that the node lives. It shares no connection with other calls.
	// A MasterUnknown error means: register again.
	Heartbeat(context.Context, messages.Session, messages.NodeStatus) error
	// Next asks for work; nil when there is none. The master assigns as it answers,
	// so the call is never repeated behind the caller's back, and after an error
	// Held tells whether a lease was lost on the way.
	Next(context.Context, messages.Session) (*job.Lease, error)
	// Held lists the leases that the master holds as ours. A MasterUnknown error
	// means that it does not know the node.
	Held(context.Context, messages.Session) ([]job.Lease, error)
	// Extend asks how a lease stands.
	Extend(context.Context, job.Lease) (job.LeaseStatus, error)
	// Report delivers a result, the record's bytes as they are. nil: the master took it.
	Report(context.Context, job.Record) error
	// Release gives a lease back unstarted, so that another worker gets it now.
	Release(context.Context, job.Record) error
}

// Journal is the durable record of attempts. Each call is on disk when it returns.
type Journal interface {
	// Accept records a lease before anything is done for it. Accepting an attempt
	// that is there already changes nothing and returns the record as it stands; one that
	// was superseded begins anew.
	Accept(job.Lease) (job.Record, error)
	// Running records FFmpeg's identity.
	Running(job.Key, job.Process) error
	// Finish puts the attempt's result on disk; what was finished stays as it was.
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
	// SaveBaselines keeps what was learned of the idle machine; Baselines returns it, false
	// when there is none.
	SaveBaselines(energy.Baselines) error
	Baselines() (energy.Baselines, bool, error)
	// SaveSession keeps the node's session; Session returns it, false when none was saved.
	SaveSession(messages.Session) error
	Session() (messages.Session, bool, error)
	// Probe tries whether the journal can be written.
	Probe() error
	// Stats tells how much the journal holds, and whether it could be written. It does not
	// block.
	Stats() job.JournalStats
}

// Runner holds the attempts' FFmpeg processes. It outlives the actors: a restarted
// one finds its runs again and goes on with them.
type Runner interface {
	// Begin returns the run of a lease, making it when there is none yet. It does
	// not block.
	Begin(job.Lease) Run
	// Runs lists all runs that are not closed. It does not block.
	Runs() []Run
	// Ready is nil when FFmpeg can be run, and says what is missing otherwise.
	Ready(context.Context) error
}

// Run is one attempt at a job, from its checks to its clean-up. Prepare, Start,
// Check and Measure each do their work once, in this order: a repeated call waits for, or
// returns, what the first came to. That is what lets a new actor adopt a run at
// any point by walking through the steps again. Giving up a context stops the
// waiting and not the work; Stop stops the work.
type Run interface {
	// Lease is what the run is for. It does not block.
	Lease() job.Lease
	// Prepare checks the job and makes its workspace and input. The error is a
	// *job.Failure, or the context's.
	Prepare(context.Context) error
	// Start starts FFmpeg.
	Start(context.Context) (job.Process, error)
	// Wait returns when FFmpeg has exited, or with the context's error.
	Wait(context.Context) error
	// Check judges what FFmpeg made and puts the output in its place: nil when the
	// attempt is good, a *job.Failure when it is not.
	Check(context.Context) error
	// Measure measures the quality that the job asks for.
	Measure(context.Context) (job.Quality, error)
	// Stop asks FFmpeg to end, and kills it 10 s later. The first cause counts. It
	// returns at once, and is right at any time.
	Stop(job.StopCause)
	// Stopped returns the cause of Stop, or "". It does not block.
	Stopped() job.StopCause
	// Phase and all that follow but Close tell how far the run is. They do not block.
	Phase() job.Phase
	Progress() job.Progress
	Encode() job.Encode
	// Phases are those so far with their times, the present one up to now.
	Phases() []job.PhaseSpan
	// Usage is the CPU time FFmpeg has used so far; false while it is not known.
	Usage() (time.Duration, bool)
	// Process is FFmpeg; false before it was started.
	Process() (job.Process, bool)
	// Close stops what still runs, waits for its end, removes the workspace and forgets the run.
	Close(context.Context) error
}

// PowerSensors reads the energy counters of one kind of sensor. Read is called by
// one goroutine at a time.
type PowerSensors interface {
	Name() string
	// Because says why no better sensors are in use; nil where these are the best.
	Because() error
	Zones() []*energy.Zone
	Read() ([]energy.Reading, []energy.Fault)
	Close() error
}

// GPUSensors are power sensors of graphics cards.
type GPUSensors interface {
	PowerSensors
	// Cards is what the last Read saw of them, in the order of their indices.
	Cards() []energy.GPU
}

// ErrNoSensors: the machine has no sensors of the kind. That is no fault; they may
// come later.
var ErrNoSensors = errors.New("none here")

// Endpoint is one of the agent's own listeners: a metrics port, the control socket.
type Endpoint interface {
	Name() string
	// Serve listens and answers until the context ends (nil) or it fails. It may be
	// called again after that.
	Serve(context.Context) error
}

// Host looks at the machine.
type Host interface {
	Look(context.Context) (messages.HostStatus, error)
}

// Janitor removes what an earlier life of the agent left behind.
type Janitor interface {
	// Reap ends exactly the processes that the records name, if they still run,
	// with their process groups and cgroups.
	Reap(context.Context, []job.Record) error
	// Sweep removes workspaces and temporary outputs that no run of this life owns, and
	// returns how many there were.
	Sweep(context.Context) (int, error)
}
