package actors

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
)

// Settings is the operator's configuration of the tree. A reload replaces them as a whole:
// all but Register and FirstProofWithin, which matter at the start only, take effect then.
type Settings struct {
	Register            bool          // register at start; otherwise resume the saved session
	FirstProofWithin    time.Duration // the first registration waits no longer for trial encodes, from the start
	PollInterval        time.Duration // of an idle agent, ±10 %
	HeartbeatInterval   time.Duration
	ReconcileInterval   time.Duration // between looks of an idle agent for leases that the master holds as ours
	UnavailableAfter    time.Duration // without a heartbeat for this long, the master reassigns our jobs
	Slots               int           // jobs at a time, at least 1
	CancelCheckInterval time.Duration // between checks of the lease of a running job
	SampleInterval      time.Duration // between power readings while a job runs
	IdleSampleInterval  time.Duration // between power readings otherwise
	// MinFreeDisk is how many bytes must be free on a disk of total bytes for the agent to
	// take jobs.
	MinFreeDisk func(total uint64) uint64
	// KeyProblem is why there is no API key although one is configured; empty: there is one, or
	// none is needed.
	KeyProblem string
	// WebConfig identifies the content of the metrics ports' web configuration: they are
	// served anew when it changes.
	WebConfig string
}

// Dependencies are the implementations of the ports.
type Dependencies struct {
	Master  Master
	Journal Journal
	Runner  Runner
	Janitor Janitor
	Host    Host
	// OpenPower opens the best available sensors of CPU power. It may block.
	OpenPower func() (PowerSensors, error)
	// OpenGPUs opens the sensors of graphics cards. It may block. The error is a
	// *NoSensorsError where there are none. nil: graphics cards are not measured.
	OpenGPUs func() (GPUSensors, error)
	// CPUUse is the CPU time that the machine has used so far, and that it could have used.
	// nil: unknown.
	CPUUse func() (busy, capacity time.Duration, err error)
	// Containers reads the containers of this machine. nil: they are not read.
	Containers Containers
	Traces     Traces // nil: nothing is traced
	Facts      messages.NodeFacts
	// FirstProof returns the facts with what is proved before the first registration: the
	// cached results of trial encodes, else those of hardware encoders, which it tries where
	// this machine has the hardware. What was proved so far is valid even with an error.
	// nil: no trial encodes.
	FirstProof func(context.Context) (messages.NodeFacts, error)
	// Prove returns the facts with the results of all trial encodes. The first call may take
	// a minute. nil: no trial encodes.
	Prove func(context.Context) (messages.NodeFacts, error)
	// Endpoints makes the agent's own listeners, which show the agent, before it starts. nil:
	// none.
	Endpoints func(*Agent) (Endpoints, error)
	// Configuration is where new settings come from. nil: they do not change.
	Configuration Configuration
}

// Endpoints are the agent's own listeners: the metrics ports and the control socket, which
// may be nil.
type Endpoints struct {
	Exporters []Endpoint
	Control   Endpoint
}

// shared is what all actors share: the ports, each other's addresses, the registry of
// attempts, and the snapshots. It outlives every incarnation of every actor.
type shared struct {
	Dependencies
	current   atomic.Pointer[Settings] // see settings
	listen    Endpoints
	started   time.Time
	refs      refs
	snapshots Snapshots
	attempts  *attempts
	verdicts  sync.Map                           // job.Key → *verdict of the master on a result that the journal still has as unsent
	proved    atomic.Pointer[messages.NodeFacts] // what Prove returned
	first     atomic.Pointer[messages.NodeFacts] // what FirstProof returned
	posted    atomic.Pointer[messages.NodeFacts] // facts of this process's last registration
	contact   contact
	counts    counts
	stop      stopRequest
	log       *zap.Logger
}

// settings are the settings in force. Their value never changes: use one call's result where
// several must agree.
func (s *shared) settings() *Settings { return s.current.Load() }

// refs are the addresses of the actors. They stay valid across restarts.
type refs struct {
	agent, uploader, registrar, heartbeat, samplers, meter, exporters, jobs, janitor, configuration, control, poller *supervision.Ref
}

func newRefs() refs {
	return refs{
		agent:         supervision.NewRef(),
		uploader:      supervision.NewRef(),
		registrar:     supervision.NewRef(),
		heartbeat:     supervision.NewRef(),
		samplers:      supervision.NewRef(),
		meter:         supervision.NewRef(),
		exporters:     supervision.NewRef(),
		jobs:          supervision.NewRef(),
		janitor:       supervision.NewRef(),
		configuration: supervision.NewRef(),
		control:       supervision.NewRef(),
		poller:        supervision.NewRef(),
	}
}

// Snapshots are the states that the actors post for readers outside the tree: scrapes,
// status, the demo. Each is immutable, and reading one never blocks.
type Snapshots struct {
	session       atomic.Pointer[messages.Session]
	heartbeat     atomic.Pointer[messages.HeartbeatStatus]
	host          atomic.Pointer[messages.HostStatus]
	energy        atomic.Pointer[energy.Snapshot]
	containers    atomic.Pointer[messages.Containers]
	gpus          atomic.Pointer[[]energy.GPU]
	samplers      sync.Map // name → messages.SamplerHealth
	gates         atomic.Pointer[map[string]string]
	listeners     sync.Map // name → why it is not served; empty: it is
	draining      atomic.Bool
	configuration atomic.Pointer[messages.ConfigurationStatus]
	// unregistered is why the last registration failed; nil: it did not.
	unregistered atomic.Pointer[string]
	refused      atomic.Pointer[string] // why, if the key was not accepted; nil: it was
}

// Session is the node's session; nil before there is one.
func (s *Snapshots) Session() *messages.Session { return s.session.Load() }

// Heartbeat is the state of the heartbeat; nil before the first.
func (s *Snapshots) Heartbeat() *messages.HeartbeatStatus { return s.heartbeat.Load() }

// Host is the state of the machine; nil before it was first read.
func (s *Snapshots) Host() *messages.HostStatus { return s.host.Load() }

// Energy is the meter's snapshot; nil before its first reading.
func (s *Snapshots) Energy() *energy.Snapshot { return s.energy.Load() }

// Samplers is the state of the power samplers, by name.
func (s *Snapshots) Samplers() []messages.SamplerHealth {
	all := []messages.SamplerHealth{}
	s.samplers.Range(func(_, health any) bool {
		all = append(all, health.(messages.SamplerHealth))
		return true
	})
	slices.SortFunc(all, func(a, b messages.SamplerHealth) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// GPUs are the graphics cards as last read; nil before that.
func (s *Snapshots) GPUs() []energy.GPU {
	if cards := s.gpus.Load(); cards != nil {
		return *cards
	}
	return nil
}

// Containers are the containers as last read; nil before that.
func (s *Snapshots) Containers() *messages.Containers { return s.containers.Load() }

// Gates are the checks that must pass before the agent takes jobs, by name: why one fails,
// or empty.
func (s *Snapshots) Gates() map[string]string {
	if g := s.gates.Load(); g != nil {
		return *g
	}
	return nil
}

// Draining reports whether the agent drains: it takes no jobs and will end.
func (s *Snapshots) Draining() bool { return s.draining.Load() }
