package chaos

import (
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

var runStart = time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)

// at is a moment so many milliseconds after the run's begin.
func at(ms int) time.Time { return runStart.Add(time.Duration(ms) * time.Millisecond) }

func span(from, to int) Span { return Span{at(from), at(to)} }

// passingHistory is of a run in which all held: one job, one agent, one result.
func passingHistory() *History {
	return &History{
		HeartbeatInterval: 500 * time.Millisecond,
		Epochs:            []MasterEpoch{{Number: 1, Span: Span{From: runStart}, Fences: true}},
		Jobs: map[string]*Job{"a": {
			ID: "a", Sequence: 1, Epoch: 1, Submitted: at(0), Status: protocol.StatusCompleted, MaxRetries: 3, Output: "/out/a.mp4",
		}},
		Exchanges:  []Exchange{resultSent(1000, 1, protocol.StatusCompleted, "", "")},
		Outputs:    []Output{{Path: "/out/a.mp4", Job: "a"}},
		Heartbeats: []Heartbeat{{0, 1, at(0), 1}, {0, 1, at(500), 2}, {0, 1, at(1000), 3}},
		Events:     []AttemptEvent{{0, Attempt{"a", 1}, eventStarted, at(50)}, {0, Attempt{"a", 1}, eventEnded, at(100)}, {1, Attempt{"b", 1}, eventEnded, at(100)}},
		Processes:  []Process{{Agent: 0, Number: 1, PID: 100, Span: span(0, 5000), StopRequested: at(1200), Exit: "signal: killed", GoneAfter: 10 * time.Millisecond}, {Agent: 0, Number: 2, PID: 200, Span: Span{From: at(5100)}}},
		Cleanups:   []Cleanup{{Agent: 0, Process: 2, Items: 3, Took: time.Second}},
		IdleUsage: []Usage{
			{Agent: 0, Goroutines: 30, Descriptors: 20, Threads: 8, HeapBytes: 4 << 20, ResidentBytes: 30 << 20, DiskBytes: 1 << 20},
			{Agent: 0, Goroutines: 32, Descriptors: 20, Threads: 9, HeapBytes: 5 << 20, ResidentBytes: 35 << 20, DiskBytes: 1 << 20},
		},
	}
}

// resultSent is the sending of a result of job a that the master took.
func resultSent(ms, attempt int, status protocol.Status, reason protocol.FailureReason, text string) Exchange {
	return Exchange{
		Agent: 0, Process: 1, Span: span(ms, ms+10), Call: CallResult, Path: "/results", Received: true, MasterStatus: 200, AgentStatus: 200, Delivered: true,
		Result: &protocol.JobResult{JobID: "a", NodeID: "n", Attempt: attempt, Status: status, FailureReason: reason, Error: text},
	}
}

// jobOffered is the answer by which the master gives agent 0 an attempt at job a.
func jobOffered(ms, attempt int) Exchange {
	x := jobQueried(ms, "/jobs/next", JobView{Job: "a", NodeID: "n", Retries: attempt - 1, Status: protocol.StatusAssigned})
	x.Call = CallNext
	return x
}

// jobsListed is an agent's question after all jobs, and what it was told.
func jobsListed(ms int, views ...JobView) Exchange {
	x := jobQueried(ms, "/jobs", views...)
	x.Call = CallJobs
	return x
}

// fromProcess is the exchange of another process.
func (x Exchange) fromProcess(process int) Exchange { x.Process = process; return x }

// offerLeases has each process be given the attempts whose results it sends, just before.
func (h *History) offerLeases() {
	told := map[[2]any]bool{}
	for _, x := range h.Exchanges {
		if x.Result == nil || told[[2]any{x.Agent, x.Process*1000 + x.Result.Attempt}] {
			continue
		}
		told[[2]any{x.Agent, x.Process*1000 + x.Result.Attempt}] = true
		g := jobOffered(0, x.Result.Attempt).fromProcess(x.Process)
		g.Agent, g.Span, g.Views[0].Job = x.Agent, Span{x.From.Add(-5 * time.Millisecond), x.From.Add(-time.Millisecond)}, x.Result.JobID
		h.Exchanges = append(h.Exchanges, g)
	}
}

// jobQueried is an agent's question after job a, and what it was told.
func jobQueried(ms int, path string, views ...JobView) Exchange {
	return Exchange{Agent: 0, Process: 1, Span: span(ms, ms+10), Call: CallJob, Path: path, Received: true, MasterStatus: 200, AgentStatus: 200, Delivered: true, Views: views}
}

func (x Exchange) responseLost() Exchange {
	x.AgentStatus, x.Delivered, x.Fault = 0, false, "net: reset after the master"
	return x
}

func (x Exchange) rejected() Exchange { x.MasterStatus, x.AgentStatus = 409, 409; return x }

func failureSent(ms int, reason protocol.FailureReason, text string) Exchange {
	return resultSent(ms, 1, protocol.StatusFailed, reason, text)
}

func injected(kind string, from, to int) InjectedFault {
	return InjectedFault{PlannedFault: PlannedFault{Kind: kind}, Span: span(from, to), Attempt: Attempt{"a", 1}}
}

// killDuringJob has job a killed at a phase while agent 0 was at it, which begins anew at 1000 and
// is heard of it so many milliseconds after the run's begin.
func (h *History) killDuringJob(phase string, heard int) {
	f := injected(killDuringJobKind, 500, 1000)
	f.Number, f.Effect = 1, phase+": signal: killed; process #2 started"
	h.Faults = []InjectedFault{f}
	h.Processes[0].Span, h.Processes[1].From = span(0, 900), at(1000)
	h.Cleanups, h.Outputs = nil, nil
	h.Jobs["a"].Output = ""
	h.Exchanges[0] = failureSent(heard, protocol.ReasonPlatformError, "interrupted")
	h.Exchanges[0].Process = 2
	h.Jobs["a"].Submitted = at(400)
	if heard < 1000 {
		h.Exchanges[0] = resultSent(heard, 1, protocol.StatusCompleted, "", "")
	}
}

// setEnergy has job a's result say so many joules of one zone of 60 W in a second.
func (h *History) setEnergy(joules, coverage, bound float64) {
	h.TruePower = map[string]float64{"zone": 60}
	h.Exchanges[0].Result.AnalyzerOutput = map[string]any{"energy": map[string]any{
		"start": at(0), "end": at(1000), "machine": map[string]any{"joules": joules},
		"zones": []map[string]any{{"id": "zone", "counted": true, "joules": joules, "source": "measured", "coverage_percent": coverage, "error_bound_joules": bound}},
	}}
}

// addEstimate has job a's result hold 25 estimated joules of so many percent beside the measured.
func (h *History) addEstimate(coverage float64) {
	e := h.Exchanges[0].Result.AnalyzerOutput["energy"].(map[string]any)
	zones := e["zones"].([]map[string]any)
	zones[0]["domain"] = "cpu"
	e["zones"] = append(zones, map[string]any{"id": "estimate:cpu", "domain": "cpu", "counted": true, "joules": 25.0, "source": "estimated", "coverage_percent": coverage})
	e["machine"] = map[string]any{"joules": zones[0]["joules"].(float64) + 25}
}

// addEvent has an agent say a step of an attempt at job a.
func (h *History) addEvent(agent, attempt int, what string, ms int) {
	h.Events = append(h.Events, AttemptEvent{agent, Attempt{"a", attempt}, what, at(ms)})
}

// addHeartbeats has agent 0 send so many heartbeats in its first process.
func (h *History) addHeartbeats(n int) {
	for i := range n {
		h.Exchanges = append(h.Exchanges, Exchange{Agent: 0, Process: 1, Span: span(100*i, 100*i+1), Call: CallHeartbeat, AgentStatus: 200})
	}
}

// addRegistration has process 2 of agent 0 be told its session.
func (h *History) addRegistration(ms int) {
	x := jobQueried(ms, "/nodes/register").fromProcess(2)
	x.Call = CallRegister
	h.Exchanges = append(h.Exchanges, x)
}

// addUnobserved has a fault be played so often without an effect.
func (h *History) addUnobserved(n int) {
	for range n {
		f := injected("net: slow", 0, 10)
		f.Error = "no request came by"
		h.Faults = append(h.Faults, f)
	}
}

// TestInvariants: each holds on a history without a fault, and each kind of violation makes
// exactly its own fire.
func TestInvariants(t *testing.T) {
	const (
		ends, once, asked, stale    = "every accepted job", "no attempt is accepted twice", "no result is sent again", "a superseded result"
		beats, outlives, cleans     = "heartbeats", "nothing outlives", "the next process"
		output, levels, reason, all = "an output", "what the agent holds", "a failure says", ""
		again, joules               = "an interrupted job", "joules are true"
		storm, effect               = "no more heartbeats", "each kind of fault"
		one, tried                  = "an attempt has one result", "a process runs an attempt once"
	)
	for _, c := range []struct {
		name   string
		change func(*History)
		fires  string // the beginning of the invariant that has to fire; empty: none
	}{
		{"nothing happened", func(h *History) {}, all},

		{"a job stays open", func(h *History) { h.Jobs["a"].Status = protocol.StatusAssigned; h.Outputs = nil }, ends},
		{"a job is forgotten by its master", func(h *History) { h.Jobs["a"].Status, h.Jobs["a"].Forgotten = protocol.StatusAssigned, true }, all},
		{"a job fails with retries left", func(h *History) { h.Jobs["a"].Status = protocol.StatusFailed; h.Jobs["a"].Retries = 1 }, ends},
		{"a job fails after all retries", func(h *History) { h.Jobs["a"].Status = protocol.StatusFailed; h.Jobs["a"].Retries = 3 }, all},
		{"a job is canceled by nobody", func(h *History) { h.Jobs["a"].Status = protocol.StatusCanceled }, ends},
		{"no rest at the end", func(h *History) { h.Unsettled = "agent 0 has 1 results to send" }, ends},
		{"a dead letter", func(h *History) { h.UnexpectedDeadLetters = 1 }, ends},

		{"accepted twice", func(h *History) {
			h.Exchanges = append(h.Exchanges, jobQueried(1100, "/jobs/1"), resultSent(1200, 1, protocol.StatusCompleted, "", ""))
		}, once},
		{"accepted twice by a master that does not fence", func(h *History) {
			h.Epochs[0].Fences = false
			h.Exchanges = append(h.Exchanges, jobQueried(1100, "/jobs/1"), resultSent(1200, 1, protocol.StatusCompleted, "", ""))
		}, all},
		{"accepted twice from two agents", func(h *History) {
			x := resultSent(1200, 1, protocol.StatusCompleted, "", "")
			x.Agent = 1
			h.Exchanges = append(h.Exchanges, x)
		}, once},
		{"two attempts are accepted", func(h *History) {
			h.Exchanges = append([]Exchange{failureSent(500, protocol.ReasonRuntimeError, "killed by SIGKILL")}, h.Exchanges...)
			h.Exchanges[1].Result.Attempt = 2
			h.Faults = []InjectedFault{injected("ffmpeg: SIGKILL", 400, 410)}
		}, all},

		{"sent again without asking", func(h *History) {
			h.Exchanges = []Exchange{resultSent(1000, 1, protocol.StatusCompleted, "", "").responseLost(), resultSent(1500, 1, protocol.StatusCompleted, "", "").rejected()}
		}, asked},
		{"sent again after asking", func(h *History) {
			h.Exchanges = []Exchange{resultSent(1000, 1, protocol.StatusCompleted, "", "").responseLost(), jobQueried(1200, "/jobs/1"), resultSent(1500, 1, protocol.StatusCompleted, "", "").rejected()}
		}, all},
		{"asked after another job", func(h *History) {
			h.Exchanges = []Exchange{resultSent(1000, 1, protocol.StatusCompleted, "", "").responseLost(), jobQueried(1200, "/jobs/2"), resultSent(1500, 1, protocol.StatusCompleted, "", "").rejected()}
		}, asked},
		{"the question got no answer", func(h *History) {
			h.Exchanges = []Exchange{resultSent(1000, 1, protocol.StatusCompleted, "", "").responseLost(), jobQueried(1200, "/jobs/1").responseLost(), resultSent(1500, 1, protocol.StatusCompleted, "", "").rejected()}
		}, asked},
		{"the question got an error for an answer", func(h *History) {
			q := jobQueried(1200, "/jobs/1")
			q.AgentStatus = 503
			h.Exchanges = []Exchange{resultSent(1000, 1, protocol.StatusCompleted, "", "").responseLost(), q, resultSent(1500, 1, protocol.StatusCompleted, "", "").rejected()}
		}, asked},
		{"the question got half an answer", func(h *History) {
			q := jobQueried(1200, "/jobs/1")
			q.Delivered = false
			h.Exchanges = []Exchange{resultSent(1000, 1, protocol.StatusCompleted, "", "").responseLost(), q, resultSent(1500, 1, protocol.StatusCompleted, "", "").rejected()}
		}, asked},
		{"the job is not known when it is asked for", func(h *History) {
			q := jobQueried(1200, "/jobs/1")
			q.AgentStatus = 404
			h.Exchanges = []Exchange{resultSent(1000, 1, protocol.StatusCompleted, "", "").responseLost(), q, resultSent(1500, 1, protocol.StatusCompleted, "", "").rejected()}
		}, all},
		{"another agent asked", func(h *History) {
			q := jobQueried(1200, "/jobs/1")
			q.Agent = 1
			h.Exchanges = []Exchange{resultSent(1000, 1, protocol.StatusCompleted, "", "").responseLost(), q, resultSent(1500, 1, protocol.StatusCompleted, "", "").rejected()}
		}, asked},
		{"sent again after a clear refusal", func(h *History) {
			x := resultSent(1000, 1, protocol.StatusCompleted, "", "")
			x.MasterStatus, x.AgentStatus = 0, 503
			h.Exchanges = []Exchange{x, resultSent(1500, 1, protocol.StatusCompleted, "", "")}
		}, all},
		{"sent again before it had arrived", func(h *History) {
			x := resultSent(1000, 1, protocol.StatusCompleted, "", "").responseLost()
			x.MasterStatus, x.Received = 0, false
			h.Exchanges = []Exchange{x, resultSent(1500, 1, protocol.StatusCompleted, "", "")}
		}, all},

		{"sent after a 409", func(h *History) {
			x := resultSent(1000, 1, protocol.StatusCompleted, "", "").rejected()
			h.Exchanges = []Exchange{x, resultSent(3000, 1, protocol.StatusCompleted, "", "").rejected()}
		}, stale},
		{"sent though it was given away", func(h *History) {
			h.Exchanges = []Exchange{jobQueried(1000, "/jobs/1", JobView{Job: "a", NodeID: "m", Retries: 1}), resultSent(3000, 1, protocol.StatusCompleted, "", "").rejected()}
		}, stale},
		{"sent though another node has it", func(h *History) {
			h.Exchanges = []Exchange{jobQueried(1000, "/jobs/1", JobView{Job: "a", NodeID: "m"}), resultSent(3000, 1, protocol.StatusCompleted, "", "").rejected()}
		}, stale},
		{"sent again to a master that had taken it and forgot", func(h *History) {
			q := jobQueried(2900, "/jobs/1")
			q.AgentStatus, q.Views = 404, nil
			h.Exchanges = []Exchange{resultSent(1000, 1, protocol.StatusCompleted, "", "").responseLost(), jobQueried(1200, "/jobs/1", JobView{Job: "a", Retries: 1}), q, resultSent(3000, 1, protocol.StatusCompleted, "", "").rejected()}
		}, all},
		{"sent again to a master that had taken it and knows", func(h *History) {
			h.Exchanges = []Exchange{resultSent(1000, 1, protocol.StatusCompleted, "", "").responseLost(), jobQueried(1200, "/jobs/1", JobView{Job: "a", Retries: 1}), resultSent(3000, 1, protocol.StatusCompleted, "", "").rejected()}
		}, stale},
		{"sent while it stands", func(h *History) {
			h.Exchanges = []Exchange{jobQueried(1000, "/jobs/1", JobView{Job: "a", NodeID: "n"}), resultSent(3000, 1, protocol.StatusCompleted, "", "")}
		}, all},
		{"sent by a process that had not been told", func(h *History) {
			x := resultSent(6000, 1, protocol.StatusCompleted, "", "").rejected()
			x.Process = 2
			h.Exchanges = []Exchange{jobQueried(1000, "/jobs/1", JobView{Job: "a", NodeID: "m"}), x}
		}, all},
		{"told while it stood still", func(h *History) {
			h.Faults = []InjectedFault{injected("agent: SIGSTOP", 900, 2900)}
			h.Exchanges = []Exchange{jobQueried(1000, "/jobs/1", JobView{Job: "a", NodeID: "m"}), resultSent(3000, 1, protocol.StatusCompleted, "", "").rejected()}
		}, all},

		{"a restart replaces what was sent", func(h *History) {
			h.Exchanges = []Exchange{failureSent(1000, protocol.ReasonUserError, "").responseLost(), jobQueried(1200, "/jobs/1"), resultSent(1500, 1, protocol.StatusCompleted, "", "").rejected()}
			h.Jobs["a"].RequestUnknown = true
		}, one},

		{"a late heartbeat", func(h *History) { h.Heartbeats = append(h.Heartbeats, Heartbeat{Agent: 0, Process: 1, At: at(2400)}) }, beats},
		{"two late heartbeats that nobody but the agent has seen", func(h *History) {
			h.Heartbeats = append(h.Heartbeats, Heartbeat{0, 1, at(2400), 6})
		}, all},
		{"a late heartbeat, after one that the proxy alone has seen", func(h *History) {
			h.Heartbeats = append(h.Heartbeats, Heartbeat{0, 1, at(2600), 5})
			h.Exchanges = append(h.Exchanges, Exchange{Agent: 0, Process: 1, Span: span(2400, 2410), Call: CallHeartbeat, AgentStatus: 200})
		}, beats},
		{"a heartbeat of the previous process that comes late", func(h *History) {
			h.Exchanges = append(h.Exchanges, Exchange{Agent: 0, Process: 2, Span: span(9000, 9010), Call: CallHeartbeat, AgentStatus: 404})
			h.Heartbeats = append(h.Heartbeats, Heartbeat{Agent: 0, Process: 2, At: at(12000), Number: 1})
		}, all},
		{"a late heartbeat of the next process", func(h *History) { h.Heartbeats = append(h.Heartbeats, Heartbeat{Agent: 0, Process: 2, At: at(9000)}) }, all},
		{"a late heartbeat, whose actor was hit", func(h *History) {
			f := injected("actor: hang", 1200, 1300)
			f.Actor = "agent/heartbeat"
			h.Faults = []InjectedFault{f}
			h.Heartbeats = append(h.Heartbeats, Heartbeat{Agent: 0, Process: 1, At: at(4400)})
		}, all},
		{"a late heartbeat, and another actor was hit", func(h *History) {
			f := injected("actor: hang", 1200, 1300)
			f.Actor = "agent/poller"
			h.Faults = []InjectedFault{f}
			h.Heartbeats = append(h.Heartbeats, Heartbeat{Agent: 0, Process: 1, At: at(4400)})
		}, beats},
		{"a late heartbeat on a machine that stood still", func(h *History) {
			h.Stalls = []Span{span(1300, 2500)}
			h.Heartbeats = append(h.Heartbeats, Heartbeat{Agent: 0, Process: 1, At: at(3000)})
		}, all},

		{"no more heartbeats before the end", func(h *History) { h.Processes[0].StopRequested = time.Time{} }, beats},
		{"no more heartbeats before it is told to end", func(h *History) { h.Processes[0].StopRequested = at(3000) }, beats},
		{"heartbeats up to the end", func(h *History) { h.Processes[0].StopRequested, h.Processes[0].To = time.Time{}, at(1900) }, all},
		{"no more heartbeats, for it stands still", func(h *History) {
			h.Processes[0].StopRequested = time.Time{}
			h.Faults = []InjectedFault{injected("agent: SIGSTOP", 1100, 5000)}
		}, all},
		{"no more heartbeats that anybody could see", func(h *History) {
			h.Processes[0].StopRequested = time.Time{}
			h.Faults = []InjectedFault{injected("net: partition", 1100, 5000)}
		}, all},
		{"no heartbeat at all", func(h *History) { h.addRegistration(5200); h.Processes[1].To = at(9000) }, beats},
		{"no heartbeat of a process that ended at once", func(h *History) { h.addRegistration(5200); h.Processes[1].To = at(6000) }, all},
		{"no heartbeat without a session", func(h *History) { h.Processes[1].To = at(9000) }, all},

		{"FFmpeg outlives the agent", func(h *History) { h.Processes[0].Survivors = []string{"ffmpeg (pid 7, state R)"} }, outlives},
		{"a workspace is left", func(h *History) { h.Cleanups[0].Remaining = []string{"workspace a-00000000-1"} }, cleans},
		{"an output is cut short", func(h *History) { h.Outputs[0].Problem = "it has 50 frames instead of 100" }, output},
		{"an output is missing", func(h *History) { h.Outputs = nil }, output},

		{"goroutines leak", func(h *History) { h.IdleUsage[1].Goroutines = 60 }, levels},
		{"descriptors leak", func(h *History) { h.IdleUsage[1].Descriptors = 40 }, levels},
		{"threads leak", func(h *History) { h.IdleUsage[1].Threads = 80 }, levels},
		{"heap leaks", func(h *History) { h.IdleUsage[1].HeapBytes = 90 << 20 }, levels},
		{"memory leaks", func(h *History) { h.IdleUsage[1].ResidentBytes = 200 << 20 }, levels},
		{"files are left", func(h *History) { h.IdleUsage[1].DiskBytes = 60 << 20 }, levels},

		{"cards are not read again", func(h *History) { h.UnreadSensors = []string{"nvml of agent 0: it hangs"} }, levels},
		{"a temporary output is left", func(h *History) { h.IdleUsage[1].Leftovers = []string{"/out/.a.partial-X.mp4"} }, levels},
		{"a cgroup is there at the first rest", func(h *History) { h.IdleUsage[0].Leftovers = []string{"/sys/fs/cgroup/ffmpeg-agent-1"} }, levels},

		{"a failure for nothing", func(h *History) { h.Exchanges[0] = failureSent(1000, protocol.ReasonRuntimeError, "exit status 1") }, reason},
		{"killed, and says so", func(h *History) {
			h.Faults = []InjectedFault{injected("ffmpeg: SIGKILL", 900, 910)}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonRuntimeError, "ffmpeg was killed by SIGKILL")
		}, all},
		{"ended while it opened its input", func(h *History) {
			h.Faults = []InjectedFault{injected("ffmpeg: SIGTERM", 900, 910)}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonRuntimeError, "ffmpeg: exit status 1: Invalid data found when processing input")
		}, all},
		{"told to end, and exits otherwise", func(h *History) {
			h.Faults = []InjectedFault{injected("ffmpeg: SIGTERM", 900, 910)}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonRuntimeError, "ffmpeg: exit status 134")
		}, reason},
		{"killed, and names another signal", func(h *History) {
			h.Faults = []InjectedFault{injected("ffmpeg: SIGKILL", 900, 910)}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonRuntimeError, "ffmpeg was killed by SIGSEGV")
		}, reason},
		{"killed, and blames the input", func(h *History) {
			h.Faults = []InjectedFault{injected("ffmpeg: SIGKILL", 900, 910)}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonInputError, "SIGKILL")
		}, reason},
		{"another attempt was killed", func(h *History) {
			f := injected("ffmpeg: SIGKILL", 900, 910)
			f.Attempt.Number = 2
			h.Faults = []InjectedFault{f}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonRuntimeError, "ffmpeg was killed by SIGKILL")
		}, reason},
		{"stalled", func(h *History) {
			h.Faults = []InjectedFault{injected("ffmpeg: stopped for good", 100, 910)}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonTimeout, "no progress")
		}, all},
		{"the agent died", func(h *History) {
			h.Exchanges[0] = failureSent(6000, protocol.ReasonPlatformError, "interrupted")
			h.Exchanges[0].Process = 2
		}, all},
		{"the agent died before the job came", func(h *History) {
			h.Jobs["a"].Submitted = at(5500)
			h.Exchanges[0] = failureSent(6000, protocol.ReasonPlatformError, "interrupted")
		}, reason},
		{"the job's actor was hit, which is to cost nothing", func(h *History) {
			f := injected("actor: panic", 900, 910)
			f.Actor = "agent/jobs/job-a-1"
			h.Faults = []InjectedFault{f}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonPlatformError, "the agent failed")
		}, reason},
		{"the actor of all jobs was hit, which is to cost none", func(h *History) {
			f := injected("actor: panic", 900, 910)
			f.Actor = "agent/jobs"
			h.Faults = []InjectedFault{f}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonPlatformError, "the agent failed")
		}, reason},
		{"the disk was full", func(h *History) {
			h.Faults = []InjectedFault{injected("disk: outputs full", 0, 2000)}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonResourceError, "no space left")
		}, all},
		{"the disk had been full too shortly to be seen", func(h *History) {
			h.Faults = []InjectedFault{injected("disk: outputs full", -2000, 900)}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonRuntimeError, "ffmpeg: exit status 1")
			h.setEnergy(60, 100, 1)
		}, all},
		{"the disk had been full before FFmpeg ran", func(h *History) {
			h.Faults = []InjectedFault{injected("disk: outputs full", -2000, -1)}
			h.Jobs["a"].Submitted = at(-3000)
			h.Exchanges[0] = failureSent(1200, protocol.ReasonRuntimeError, "ffmpeg: exit status 1")
			h.setEnergy(60, 100, 1)
		}, reason},
		{"the disk was full while the agent stood still", func(h *History) {
			h.Faults = []InjectedFault{injected("disk: outputs full", -2000, 1100), injected("agent: SIGSTOP", 50, 1100)}
			h.Exchanges[0] = failureSent(1200, protocol.ReasonRuntimeError, "ffmpeg: exit status 1")
			h.setEnergy(60, 100, 1)
		}, all},
		{"the disk had been full long enough to be seen, and it is not said", func(h *History) {
			h.Faults = []InjectedFault{injected("disk: outputs full", -2000, 1100)}
			h.Exchanges[0] = failureSent(1200, protocol.ReasonRuntimeError, "ffmpeg: exit status 1")
			h.setEnergy(60, 100, 1)
		}, reason},
		{"the disk is full, and it is not said", func(h *History) {
			h.Faults = []InjectedFault{injected("disk: outputs full", 0, 2000)}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonRuntimeError, "ffmpeg: exit status 1")
		}, reason},
		{"drained in a hurry", func(h *History) {
			h.Faults = []InjectedFault{injected("agent: SIGTERM", 500, 1500)}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonPlatformError, "interrupted: agent shutting down")
		}, all},
		{"handed back, for it was told to end", func(h *History) {
			h.Faults = []InjectedFault{injected("agent: SIGTERM", 500, 1500)}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonPlatformError, "returned unstarted: the agent is shutting down")
		}, all},
		{"handed back for nothing", func(h *History) {
			h.Exchanges[0] = failureSent(1000, protocol.ReasonPlatformError, "returned unstarted: the agent is shutting down")
		}, reason},
		{"another agent's disk was full", func(h *History) {
			f := injected("disk: data full", 0, 2000)
			f.Agent = 1
			h.Faults = []InjectedFault{f}
			h.Exchanges[0] = failureSent(1000, protocol.ReasonResourceError, "no space left")
		}, reason},
		{"canceled by nobody", func(h *History) { h.Exchanges[0] = resultSent(1000, 1, protocol.StatusCanceled, "", "") }, reason},
		{"canceled", func(h *History) {
			h.Jobs["a"].Canceled, h.Jobs["a"].Status = true, protocol.StatusCanceled
			h.Exchanges[0] = resultSent(1000, 1, protocol.StatusCanceled, "", "")
		}, all},
		{"what cannot be done was done", func(h *History) { h.Jobs["a"].WantFailure = protocol.ReasonUserError }, reason},
		{"what cannot be done fails for something else", func(h *History) {
			h.Jobs["a"].WantFailure = protocol.ReasonUserError
			h.Exchanges[0] = failureSent(1000, protocol.ReasonInputError, "no such file")
		}, reason},
		{"killed, and reported at once", func(h *History) { h.killDuringJob("run", 1500) }, all},
		{"killed, and reported late", func(h *History) { h.killDuringJob("run", 3500) }, again},
		{"killed, and reported late for a fault", func(h *History) {
			h.killDuringJob("run", 3500)
			h.Faults = append(h.Faults, InjectedFault{PlannedFault: PlannedFault{Number: 2, Kind: "net: partition", Agent: 0}, Span: span(1000, 2000)})
		}, all},
		{"killed, and reported late for a fault of the master that another agent was to see", func(h *History) {
			h.killDuringJob("run", 3500)
			h.Faults = append(h.Faults, InjectedFault{PlannedFault: PlannedFault{Number: 2, Kind: "master: SIGSTOP", Agent: 1}, Span: span(1000, 2000)})
		}, all},
		{"killed, and reported late at another agent's fault", func(h *History) {
			h.killDuringJob("run", 3500)
			h.Faults = append(h.Faults, InjectedFault{PlannedFault: PlannedFault{Number: 2, Kind: "net: partition", Agent: 1}, Span: span(1000, 2000)})
		}, again},
		{"killed, and killed again before it could report", func(h *History) {
			h.killDuringJob("run", 3500)
			h.Processes[1].To = at(1500)
		}, all},
		{"killed, and the result was on its way", func(h *History) { h.killDuringJob("journal", 850) }, all},
		{"killed, and the result had just been sent", func(h *History) { h.killDuringJob("prepare", 450) }, all},
		{"killed, and the result of it was sent long before", func(h *History) {
			h.killDuringJob("run", 100)
			h.Jobs["a"].Submitted = at(50)
		}, again},
		{"killed, and begun anew", func(h *History) {
			h.killDuringJob("prepare", 4000)
			h.Exchanges[0].Result.Status, h.Exchanges[0].Result.FailureReason = protocol.StatusCompleted, ""
		}, all},

		{"killed, begun anew, and killed again", func(h *History) {
			h.killDuringJob("prepare", 4000)
			again := h.Faults[0]
			again.Number, again.Span = 2, span(3200, 3300)
			h.Faults = append(h.Faults, again)
			h.Processes[1].To = at(3300)
			h.Processes = append(h.Processes, Process{Agent: 0, Number: 3, PID: 300, Span: Span{From: at(3400)}})
			h.Exchanges[0].Process = 3
		}, all},
		{"joules as they were", func(h *History) { h.setEnergy(60, 100, 1) }, all},
		{"half of the time was missed, and it is said", func(h *History) { h.setEnergy(30, 50, 1) }, all},
		{"half of the time was missed, and it is not said", func(h *History) { h.setEnergy(30, 100, 1) }, joules},
		{"too many joules", func(h *History) { h.setEnergy(70, 100, 1) }, joules},
		{"too few joules just after a stall", func(h *History) { h.setEnergy(30, 100, 1); h.Stalls = []Span{span(-3000, -500)} }, all},
		{"too few joules long after a stall", func(h *History) { h.setEnergy(30, 100, 1); h.Stalls = []Span{span(-9000, -3000)} }, joules},
		{"too many joules, within a bound that says so", func(h *History) { h.setEnergy(70, 100, 12) }, all},
		{"a false zero", func(h *History) { h.setEnergy(0, 100, 0) }, joules},
		{"an estimate, for want of a counter", func(h *History) { h.setEnergy(30, 50, 1); h.addEstimate(50) }, all},
		{"an estimate beside a counter", func(h *History) { h.setEnergy(60, 100, 1); h.addEstimate(100) }, joules},
		{"a zone counts that lies inside another", func(h *History) { h.setEnergy(60, 100, 1); h.NestedZones = map[string]bool{"zone": true} }, joules},
		{"a zone that there is not", func(h *History) { h.setEnergy(60, 100, 1); delete(h.TruePower, "zone") }, joules},
		{"the machine's are not the zones'", func(h *History) {
			h.setEnergy(60, 100, 1)
			h.Exchanges[0].Result.AnalyzerOutput["energy"].(map[string]any)["machine"] = map[string]any{"joules": 100.0}
		}, joules},
		{"an attempt ends twice", func(h *History) { h.addEvent(0, 1, eventEnded, 900) }, tried},
		{"an attempt ends twice, for it was given out twice", func(h *History) {
			h.addEvent(0, 1, eventEnded, 900)
			h.Exchanges = append(h.Exchanges, jobOffered(800, 1))
		}, tried},
		{"FFmpeg is started twice", func(h *History) { h.addEvent(0, 1, eventStarted, 900) }, tried},
		{"an attempt ends twice beside a damaged journal", func(h *History) {
			h.addEvent(0, 1, eventEnded, 900)
			h.Faults = append(h.Faults, InjectedFault{PlannedFault: PlannedFault{Kind: "journal: bytes flipped"}, Span: span(500, 600), Effect: "yes"})
		}, all},
		{"the next attempt ends", func(h *History) { h.addEvent(0, 2, eventEnded, 900) }, all},
		{"an attempt ends in the next process", func(h *History) { h.addEvent(0, 1, eventEnded, 6000) }, all},
		{"an attempt ends with another agent", func(h *History) { h.addEvent(1, 1, eventEnded, 900) }, all},
		{"no log says that what is completed ended", func(h *History) { h.Events = h.Events[:1] }, tried},
		{"heartbeats twice as often as they are due", func(h *History) { h.addHeartbeats(60) }, storm},
		{"heartbeats as often as they are due", func(h *History) { h.addHeartbeats(12) }, all},
		{"a kind of fault that is never seen", func(h *History) { h.addUnobserved(4) }, effect},
		{"a kind of fault that there was nothing for", func(h *History) {
			h.addUnobserved(4)
			h.Faults[0].Skipped = true
		}, all},
		{"a kind of fault that never had a target", func(h *History) {
			h.addUnobserved(minTargetless)
			for i := range h.Faults {
				h.Faults[i].Skipped = true
			}
		}, effect},
		{"a kind of fault that the run cannot play", func(h *History) {
			h.addUnobserved(minTargetless)
			for i := range h.Faults {
				h.Faults[i].Skipped, h.Faults[i].Unavailable = true, true
			}
		}, all},
		{"a kind of fault that was not seen yet", func(h *History) { h.addUnobserved(3) }, all},
		{"told of the job in answer to a question for another", func(h *History) {
			h.Exchanges = []Exchange{jobQueried(100, "/jobs/8", JobView{Job: "a", NodeID: "other", Retries: 5}), resultSent(1000, 1, protocol.StatusCompleted, "", "")}
		}, all},
		{"told of an earlier attempt elsewhere", func(h *History) {
			h.Exchanges = []Exchange{jobQueried(100, "/jobs/1", JobView{Job: "a", NodeID: "other", Retries: 0}), resultSent(1000, 2, protocol.StatusCompleted, "", "")}
		}, all},
		{"a heartbeat that the proxy alone has seen", func(h *History) {
			h.Heartbeats = []Heartbeat{{0, 1, at(0), 1}, {0, 1, at(1600), 3}}
			h.Exchanges = append(h.Exchanges, Exchange{Agent: 0, Process: 1, Span: span(800, 810), Call: CallHeartbeat, AgentStatus: 200})
		}, all},
		{"a job whose submission got no answer", func(h *History) {
			h.Jobs["a"].RequestUnknown = true
			h.Exchanges[0] = failureSent(1000, protocol.ReasonInputError, "no such file")
		}, all},
		{"a result of nobody's job", func(h *History) { h.Exchanges[0].Result.JobID = "b" }, reason},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := passingHistory()
			c.change(h)
			h.offerLeases()
			fired := false
			for _, f := range h.Check() {
				switch its := c.fires != "" && strings.HasPrefix(f.Invariant, c.fires); {
				case its && len(f.Violations) == 0:
					t.Errorf("%s: does not fire", f.Invariant)
				case its:
					fired = true
				case len(f.Violations) > 0:
					t.Errorf("%s fires: %q", f.Invariant, f.Violations)
				}
			}
			if c.fires != "" && !fired {
				t.Errorf("no invariant begins with %q", c.fires)
			}
		})
	}
}

// TestLeasesInWords: which sendings of job a's first attempt follow a word of its lease.
func TestLeasesInWords(t *testing.T) {
	result := resultSent(6000, 1, protocol.StatusCompleted, "", "")
	view := func(node string, retries int, status protocol.Status) JobView {
		return JobView{Job: "a", NodeID: node, Retries: retries, Status: status}
	}
	half := jobOffered(5000, 1)
	half.Delivered, half.Views = false, nil
	fallen := jobOffered(5000, 1)
	fallen.Delivered = false
	elsewhere := jobOffered(5000, 1)
	elsewhere.Agent = 1
	missing := jobQueried(5000, "/jobs/1")
	missing.MasterStatus, missing.AgentStatus = 404, 404
	for _, c := range []struct {
		name   string
		before []Exchange
		faults []InjectedFault
		stalls []Span
		fires  bool
	}{
		{name: "nothing was told", fires: true},
		{name: "given", before: []Exchange{jobOffered(2000, 1)}},
		{name: "given long ago", before: []Exchange{jobOffered(1000, 1)}, fires: true},
		{name: "given long ago, and asked after", before: []Exchange{jobOffered(100, 1), jobQueried(5900, "/jobs/1", view("n", 0, protocol.StatusProcessing))}},
		{name: "given long ago, and found in the list", before: []Exchange{jobOffered(100, 1), jobsListed(5900, view("n", 0, protocol.StatusPaused))}},
		{name: "given long ago, while this program stood still", before: []Exchange{jobOffered(1000, 1)}, stalls: []Span{span(2000, 4000)}},
		{name: "given long ago, and connecting took long", before: []Exchange{jobOffered(1000, 1)}, faults: []InjectedFault{injected("net: partition", 2000, 5500)}},
		{name: "given to an earlier process", before: []Exchange{jobOffered(5000, 1).fromProcess(0)}, fires: true},
		{name: "given to another agent", before: []Exchange{elsewhere}, fires: true},
		{name: "given by half an answer", before: []Exchange{half}, fires: true},
		{name: "given over a link that fell", before: []Exchange{fallen}},
		{name: "given too late", before: []Exchange{jobOffered(6500, 1)}, fires: true},
		{name: "canceled", before: []Exchange{jobQueried(5000, "/jobs/1", view("n", 0, protocol.StatusCanceled))}},
		{name: "over", before: []Exchange{jobQueried(5000, "/jobs/1", view("n", 0, protocol.StatusFailed))}, fires: true},
		{name: "another node's", before: []Exchange{jobsListed(5000, view("m", 0, protocol.StatusAssigned))}, fires: true},
		{name: "a later attempt's", before: []Exchange{jobOffered(5000, 2)}, fires: true},
		{name: "another job", before: []Exchange{jobQueried(5000, "/jobs/1", JobView{Job: "b", NodeID: "n", Status: protocol.StatusAssigned})}, fires: true},
		{name: "not in the list", before: []Exchange{jobsListed(5000)}},
		{name: "unknown when asked for", before: []Exchange{missing}},
		{name: "an earlier attempt, which the master went back to", before: []Exchange{jobQueried(5000, "/jobs/1", view("n", -1, protocol.StatusQueued))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := passingHistory()
			h.Exchanges, h.Faults, h.Stalls = append(c.before, result), c.faults, c.stalls
			if f := h.checkLeaseConfirmed(); (len(f.Violations) > 0) != c.fires || f.Checked != 1 {
				t.Errorf("%d checked, %q", f.Checked, f.Violations)
			}
		})
	}
}

// TestOneResult: what may differ between two sendings of an attempt.
func TestOneResult(t *testing.T) {
	completed := resultSent(1000, 1, protocol.StatusCompleted, "", "")
	interrupted := failureSent(6000, protocol.ReasonPlatformError, "interrupted").fromProcess(2)
	damage := injected("journal: bytes flipped", 4000, 5000)
	elsewhere := damage
	elsewhere.Agent = 1
	for _, c := range []struct {
		name   string
		change func(*History)
		fires  bool
	}{
		{"a restart replaces it", func(h *History) { h.Exchanges = []Exchange{completed, interrupted} }, true},
		{"it is sent again as it was", func(h *History) {
			h.Exchanges = []Exchange{completed, resultSent(6000, 1, protocol.StatusCompleted, "", "").fromProcess(2)}
		}, false},
		{"its reason changes", func(h *History) {
			h.Exchanges = []Exchange{failureSent(1000, protocol.ReasonTimeout, "no progress"), interrupted}
		}, true},
		{"of two attempts", func(h *History) {
			h.Exchanges = []Exchange{failureSent(1000, protocol.ReasonTimeout, ""), resultSent(6000, 2, protocol.StatusCompleted, "", "")}
		}, false},
		{"of two nodes", func(h *History) {
			h.Exchanges = []Exchange{completed, failureSent(6000, protocol.ReasonPlatformError, "interrupted").fromProcess(2)}
			h.Exchanges[1].Result.NodeID = "m"
		}, false},
		{"of two epochs", func(h *History) {
			h.Exchanges = []Exchange{completed, interrupted}
			h.Epochs[0].To = at(3000)
			h.Epochs = append(h.Epochs, MasterEpoch{Number: 2, Span: Span{From: at(3001)}})
		}, false},
		{"the journal was damaged", func(h *History) {
			h.Exchanges, h.Faults = []Exchange{completed, interrupted}, []InjectedFault{damage}
		}, false},
		{"another agent's journal was damaged", func(h *History) {
			h.Exchanges, h.Faults = []Exchange{completed, interrupted}, []InjectedFault{elsewhere}
		}, true},
		{"it was given out again", func(h *History) { h.Exchanges = []Exchange{completed, jobOffered(3000, 1), interrupted} }, false},
		{"the next was given out", func(h *History) { h.Exchanges = []Exchange{completed, jobOffered(3000, 2), interrupted} }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := passingHistory()
			c.change(h)
			if f := h.checkResultsEqual(); (len(f.Violations) > 0) != c.fires || f.Checked != 2 {
				t.Errorf("%d checked, %q", f.Checked, f.Violations)
			}
		})
	}
}

// TestExcusesAreNamed: a killed job that is reported late for a fault is no case, and said.
func TestExcusesAreNamed(t *testing.T) {
	h := passingHistory()
	h.killDuringJob("run", 3500)
	h.Faults = append(h.Faults, InjectedFault{PlannedFault: PlannedFault{Number: 2, Kind: "net: partition"}, Span: span(1000, 2000)})
	if f := h.checkRequeued(); f.Checked != 0 || !strings.Contains(f.Note, "excused: net: partition 1") {
		t.Errorf("%d checked, %q", f.Checked, f.Note)
	}
}

func TestWhatWasNeverCheckedIsNamed(t *testing.T) {
	got := Unchecked([]Finding{{Invariant: "a", Checked: 1}, {Invariant: "no case", Inapplicable: true}, {Invariant: "b"}})
	if len(got) != 1 || got[0] != "b" {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsCheckedIsCounted(t *testing.T) {
	h := passingHistory()
	h.killDuringJob("run", 1500)
	h.setEnergy(60, 100, 1)
	h.addHeartbeats(3)
	h.Cleanups, h.Outputs = passingHistory().Cleanups, passingHistory().Outputs
	for _, f := range h.Check() {
		if f.Checked == 0 && !strings.HasPrefix(f.Invariant, "a failure says") {
			t.Errorf("%s: nothing was checked", f.Invariant)
		}
	}
}

// TestDeadLetterOfAForgottenJobIsExcused: a master that has lost its memory rejects the
// results of jobs that it had.
func TestDeadLetterOfAForgottenJobIsExcused(t *testing.T) {
	h := History{Epochs: []MasterEpoch{{Number: 1, Span: Span{From: at(0), To: at(3000)}}, {Number: 2, Span: Span{From: at(3000)}}}}
	for _, test := range []struct {
		memory int
		moment time.Time
		want   bool
	}{{1, at(2000), true}, {1, at(4000), false}, {2, at(4000), true}} {
		if got := h.knownAt(&Job{Epoch: test.memory}, test.moment); got != test.want {
			t.Errorf("a job of memory %d at %s: got remembered %t, want %t", test.memory, test.moment, got, test.want)
		}
	}
}

// TestRequeuedAttemptMayOnlyComplete: masters in use re-queue running jobs of live nodes, and
// take a completed result all the same.
func TestRequeuedAttemptMayOnlyComplete(t *testing.T) {
	heartbeat := func(ms int) Exchange {
		return Exchange{Agent: 0, Process: 1, Span: span(ms, ms+5), Call: CallHeartbeat, AgentStatus: 200, Delivered: true}
	}
	requeued := JobView{Job: "a", Retries: 1, Status: protocol.StatusPending}
	for name, c := range map[string]struct {
		fences    bool
		status    protocol.Status
		told      JobView
		heartbeat int // ms; of the only one between the lease and the result
		allowed   bool
	}{
		"completed":                       {false, protocol.StatusCompleted, requeued, 3000, true},
		"failed":                          {false, protocol.StatusFailed, requeued, 3000, false},
		"to a master that fences":         {true, protocol.StatusCompleted, requeued, 3000, false},
		"after a silence":                 {false, protocol.StatusCompleted, requeued, 5900, false},
		"completed elsewhere meanwhile":   {false, protocol.StatusCompleted, JobView{Job: "a", NodeID: "m", Retries: 1, Status: protocol.StatusCompleted}, 3000, false},
		"running elsewhere":               {false, protocol.StatusCompleted, JobView{Job: "a", NodeID: "m", Retries: 1, Status: protocol.StatusRunning}, 3000, true},
		"canceled after it was re-queued": {false, protocol.StatusCompleted, JobView{Job: "a", Retries: 1, Status: protocol.StatusCanceled}, 3000, false},
		"failed by the master meanwhile":  {false, protocol.StatusCompleted, JobView{Job: "a", Retries: 1, Status: protocol.StatusFailed}, 3000, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := passingHistory()
			h.Epochs[0].Fences = c.fences
			h.Exchanges = []Exchange{jobOffered(0, 1), heartbeat(c.heartbeat), jobQueried(5000, "/jobs/1", c.told), resultSent(6000, 1, c.status, "", "")}
			if got := len(h.checkSupersededNotSent().Violations) == 0; got != c.allowed {
				t.Errorf("sending it after the answer: allowed %t, want %t", got, c.allowed)
			}
			if got := len(h.checkLeaseConfirmed().Violations) == 0; got != c.allowed {
				t.Errorf("the answer confirms the lease: %t, want %t", got, c.allowed)
			}
		})
	}
}

// TestLaterResultOfAnEarlierAttemptEndsNoCause: it came after the attempt had failed.
func TestLaterResultOfAnEarlierAttemptEndsNoCause(t *testing.T) {
	h := passingHistory()
	h.Epochs[0].Fences = false
	h.Exchanges = []Exchange{
		resultSent(1000, 2, protocol.StatusFailed, protocol.ReasonRuntimeError, "FFmpeg was killed by SIGKILL"),
		resultSent(2000, 1, protocol.StatusCompleted, "", ""),
	}
	h.Faults = []InjectedFault{{PlannedFault: PlannedFault{Kind: "ffmpeg: SIGKILL"}, Span: span(900, 990), Attempt: Attempt{"a", 2}}}
	if f := h.checkFailureReasons(); len(f.Violations) > 0 {
		t.Errorf("got %v", f.Violations)
	}
}

// TestAttemptFaultHitsItsCurrentLease: a running attempt answers for a later lease.
func TestAttemptFaultHitsItsCurrentLease(t *testing.T) {
	for fences, want := range map[bool]int{false: 0, true: 1} {
		h := passingHistory()
		h.Epochs[0].Fences = fences
		h.Exchanges = []Exchange{resultSent(1000, 2, protocol.StatusFailed, protocol.ReasonRuntimeError, "FFmpeg was killed by SIGKILL")}
		h.Faults = []InjectedFault{{PlannedFault: PlannedFault{Kind: "ffmpeg: SIGKILL"}, Span: span(900, 990), Attempt: Attempt{"a", 1}}}
		if f := h.checkFailureReasons(); len(f.Violations) != want {
			t.Errorf("fencing %t: got %v, want %d violations", fences, f.Violations, want)
		}
	}
}

// TestFencingIsNotMissedWithoutFencingMaster: such a run has no case of it.
func TestFencingIsNotMissedWithoutFencingMaster(t *testing.T) {
	for _, fences := range []bool{true, false} {
		h := &History{Epochs: []MasterEpoch{{Number: 1, Fences: fences}}}
		if got := len(Unchecked([]Finding{h.checkAcceptedOnce()})); (got == 1) != fences {
			t.Errorf("master that fences: %t: got %d unchecked invariants", fences, got)
		}
	}
}
