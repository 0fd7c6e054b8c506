package chaos

import (
	"time"

	"ffmpeg-agent/messages/protocol"
)

// Span is a period; a zero To means that it has not ended.
type Span struct{ From, To time.Time }

// Overlaps reports whether two periods overlap.
func (s Span) Overlaps(from, to time.Time) bool {
	return !s.From.After(to) && (s.To.IsZero() || !s.To.Before(from))
}

// overlap is how long two periods overlap.
func (s Span) overlap(from, to time.Time) time.Duration {
	if s.From.After(from) {
		from = s.From
	}
	if !s.To.IsZero() && s.To.Before(to) {
		to = s.To
	}
	return max(0, to.Sub(from))
}

// Attempt is one attempt at a job, from 1.
type Attempt struct {
	Job    string
	Number int
}

// InjectedFault is a fault that was played.
type InjectedFault struct {
	PlannedFault
	Span
	Effect      string  // its effect; empty: none was seen
	Error       string  // why none was seen
	Skipped     bool    // it was not played: it had no target
	Unavailable bool    // it was not played: this run has no such targets
	Attempt     Attempt // the attempt that it hit, where it was aimed at one
	Actor       string  // the actor that it hit
}

// Call is what a request to the master is about.
type Call string

// The calls of the protocol.
const (
	CallRegister  Call = "register"
	CallHeartbeat Call = "heartbeat"
	CallNode      Call = "node"
	CallNext      Call = "next"
	CallJob       Call = "job"
	CallJobs      Call = "jobs"
	CallResult    Call = "result"
	CallOther     Call = "other"
)

// JobView is what a response of the master said about a job.
type JobView struct {
	Job     string
	NodeID  string
	Retries int
	Status  protocol.Status
}

// Exchange is one request of an agent, as the proxy saw it.
type Exchange struct {
	Agent, Process int
	Span
	Call         Call
	Path         string
	Fault        string // the kind of fault that the proxy played on it
	Received     bool   // the whole request arrived
	MasterStatus int    // status that the master gave; 0: it was not asked, or did not answer
	AgentStatus  int    // status that was given to the agent; 0: none
	Delivered    bool   // the response was passed on completely, over a link that was up
	Result       *protocol.JobResult
	Views        []JobView
}

// Attempt names what a result is about.
func (x *Exchange) Attempt() Attempt { return Attempt{x.Result.JobID, x.Result.Attempt} }

// maybeRead reports whether the agent may have read the complete response: it was passed on
// completely, though the link may have been down.
func (x *Exchange) maybeRead() bool { return x.Delivered || len(x.Views) > 0 }

// Process is one process of an agent.
type Process struct {
	Agent, Number, PID int
	Span
	StopRequested time.Time     // when it was first asked to end; zero: it was not
	Exit          string        // how it ended
	GoneAfter     time.Duration // from its end until nothing of it ran or listened
	Survivors     []string      // what did 2 s after its end
}

// Heartbeat is a heartbeat that an agent attempted.
type Heartbeat struct {
	Agent, Process int
	At             time.Time
	Number         int // from 1 in each process, as the agent counts; 0: a proxy saw it, and does not
}

// AttemptEvent is a step of an attempt that an agent logged.
type AttemptEvent struct {
	Agent   int
	Attempt Attempt
	Message string // one of steps
	At      time.Time
}

// Log messages of the steps of an attempt.
const (
	eventStarted = "ffmpeg started"
	eventEnded   = "job ended"
)

var eventMessages = []string{eventStarted, eventEnded}

// Job is a job that the master accepted.
type Job struct {
	ID             string
	Sequence       int64
	Epoch          int // the master's epoch in which it exists
	Submitted      time.Time
	WantFailure    protocol.FailureReason // of a job that must fail; empty: it need not
	RequestUnknown bool                   // the response to its submission was lost, so its parameters are unknown
	Status         protocol.Status        // the last that was seen
	Retries        int
	MaxRetries     int    // of retries
	Canceled       bool   // by us
	Forgotten      bool   // by its master, before it ended
	Output         string // the file that it names
}

// Output is a look at a final output file.
type Output struct {
	Path    string
	Job     string
	Problem string // empty: it is complete
}

// Cleanup is what a process found left by the previous one.
type Cleanup struct {
	Agent, Process int
	Items          int           // workspaces, temporary outputs, cgroups, journal entries
	Remaining      []string      // still there when it should have been cleaned up
	Took           time.Duration // in which the agent could have worked
	LastItem       string        // what went last
}

// Usage is what an idle agent uses.
type Usage struct {
	Agent, Process int
	At             time.Time
	Goroutines     int
	Descriptors    int
	Threads        int
	HeapBytes      int64    // bytes in use
	ResidentBytes  int64    // bytes
	DiskBytes      int64    // bytes of its data folder, without what was set aside
	Leftovers      []string // that only a running job may have
}

// MasterEpoch is the time from one loss of the master's state to the next.
type MasterEpoch struct {
	Number int
	Span
	Fences bool
}

// knownAt reports whether the master that accepted a job had it in memory at a moment.
func (h *History) knownAt(j *Job, at time.Time) bool {
	for _, m := range h.Epochs {
		if m.Number == j.Epoch {
			return m.To.IsZero() || at.Before(m.To)
		}
	}
	return false
}

// History is everything observed in a run.
type History struct {
	HeartbeatInterval     time.Duration      // of heartbeats
	TruePower             map[string]float64 // true watts of the fake sensors, by zone
	NestedZones           map[string]bool    // zones inside another zone, which do not add to the total
	Faults                []InjectedFault
	Exchanges             []Exchange
	Processes             []Process
	Heartbeats            []Heartbeat
	Events                []AttemptEvent // by agent, in order of time
	Stalls                []Span         // in which this program was not scheduled
	Epochs                []MasterEpoch
	Jobs                  map[string]*Job
	RequestedOutputs      map[string]int // frames of each output that a submission names, whether it was answered or not
	Outputs               []Output
	Cleanups              []Cleanup
	IdleUsage             []Usage  // the others are compared with the first of each agent
	Unsettled             string   // why the agents were not idle at the end; empty: they were
	UnexpectedDeadLetters int      // dead letters of jobs that no master forgot
	UnreadSensors         []string // sensors that were not read again after the last fault
}
