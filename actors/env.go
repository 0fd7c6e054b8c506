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

// Settings is what the tree is told by its operator. A changed copy may be handed
// to a running Agent.
type Settings struct {
	Register            bool          // register at start; otherwise resume the saved session
	PollInterval        time.Duration // of an idle agent, ±10 %
	HeartbeatInterval   time.Duration
	ReconcileInterval   time.Duration // how often an idle agent asks what the master holds as ours
	UnavailableAfter    time.Duration // after so long without a heartbeat the master gives our job away
	Slots               int           // jobs at a time, from 1
	CancelCheckInterval time.Duration // how often a running job is asked for at the master
	SampleInterval      time.Duration // between power readings while a job runs
	IdleSampleInterval  time.Duration // between power readings otherwise
	// MinFreeDisk is how many bytes must be free on a disk of total bytes before work
	// is asked for.
	MinFreeDisk func(total uint64) uint64
}

// Parts are the implementations behind the ports.
type Parts struct {
	Master  Master
	Journal Journal
	Runner  Runner
	Janitor Janitor
	Host    Host
	// OpenPower opens the best sensors of CPU power there are now. It may block.
	OpenPower func() (PowerSensors, error)
	// OpenGPUs opens the sensors of graphics cards. It may block. The error wraps
	// ErrNoSensors where there are none. nil: graphics cards are not looked for.
	OpenGPUs func() (GPUSensors, error)
	// CPUUse is the CPU time that the whole machine has used so far, and the most it
	// could have used. nil: not known.
	CPUUse func() (busy, capacity time.Duration, err error)
	Facts  messages.NodeFacts
	// Prove returns the facts with what trial encodes showed. It may take a minute, and is
	// quick when asked again. nil: there is nothing to prove.
	Prove func(context.Context) (messages.NodeFacts, error)
	// Endpoints makes the agent's own listeners from what they show: the agent, before
	// it starts. nil: none.
	Endpoints func(*Agent) (Endpoints, error)
}

// Endpoints are the agent's own listeners: the metrics ports, and the operators'
// socket, which may be nil.
type Endpoints struct {
	Exporters []Endpoint
	Control   Endpoint
}

// env is what all actors share: the ports, each other's addresses, the registry of
// attempts, and the board. It outlives every incarnation of every actor.
type env struct {
	Parts
	settings atomic.Pointer[Settings]
	listen   Endpoints
	started  time.Time
	refs     refs
	board    Board
	attempts *attempts
	proved   atomic.Pointer[messages.NodeFacts] // what Prove returned
	counts   counts
	stop     stopRequest
	log      *zap.Logger
}

// refs are the addresses of the tree's roles. They stay good across restarts.
type refs struct {
	agent, uploader, registrar, heartbeat, samplers, meter, exporters, jobs, janitor, control, poller *supervision.Ref
}

func newRefs() refs {
	return refs{
		agent:     supervision.NewRef(),
		uploader:  supervision.NewRef(),
		registrar: supervision.NewRef(),
		heartbeat: supervision.NewRef(),
		samplers:  supervision.NewRef(),
		meter:     supervision.NewRef(),
		exporters: supervision.NewRef(),
		jobs:      supervision.NewRef(),
		janitor:   supervision.NewRef(),
		control:   supervision.NewRef(),
		poller:    supervision.NewRef(),
	}
}

// Board is where actors post what readers outside the tree want to see: scrapes,
// status, the demo. Everything on it is immutable; nothing on it is ever waited for.
type Board struct {
	session   atomic.Pointer[messages.Session]
	heartbeat atomic.Pointer[messages.HeartbeatStatus]
	host      atomic.Pointer[messages.HostStatus]
	energy    atomic.Pointer[energy.Snapshot]
	gpus      atomic.Pointer[[]energy.GPU]
	samplers  sync.Map // name → messages.SamplerHealth
	gates     atomic.Pointer[map[string]string]
	listeners sync.Map // name → why it is not served
	draining  atomic.Bool
}

// Session is the node's session; nil before there is one.
func (b *Board) Session() *messages.Session { return b.session.Load() }

// Heartbeat is how the heartbeat fares; nil before the first.
func (b *Board) Heartbeat() *messages.HeartbeatStatus { return b.heartbeat.Load() }

// Host is how the machine fares; nil before the first look.
func (b *Board) Host() *messages.HostStatus { return b.host.Load() }

// Energy is what the meter knows; nil before its first reading.
func (b *Board) Energy() *energy.Snapshot { return b.energy.Load() }

// Samplers is how the power samplers fare, by name.
func (b *Board) Samplers() []messages.SamplerHealth {
	all := []messages.SamplerHealth{}
	b.samplers.Range(func(_, health any) bool {
		all = append(all, health.(messages.SamplerHealth))
		return true
	})
	slices.SortFunc(all, func(a, b messages.SamplerHealth) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// GPUs are the graphics cards as they were last seen; nil before they were.
func (b *Board) GPUs() []energy.GPU {
	if cards := b.gpus.Load(); cards != nil {
		return *cards
	}
	return nil
}

// Gates are the checks that must pass before work is asked for, by name: why one fails,
// or empty.
func (b *Board) Gates() map[string]string {
	if g := b.gates.Load(); g != nil {
		return *g
	}
	return nil
}

// Draining reports whether the agent takes no more work and is on its way out.
func (b *Board) Draining() bool { return b.draining.Load() }
