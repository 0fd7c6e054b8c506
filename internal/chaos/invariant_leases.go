package chaos

import (
	"fmt"
	"slices"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// How far the proxies' times may be off from what an agent goes by: an answer is read
// before its end is noted, and a request arrives after it was decided on.
const timingTolerance = 300 * time.Millisecond

// maxConnectDelay is how long an agent's connecting may take that began before its network was
// cut, so that a request arrives that much after it was decided on.
const maxConnectDelay = 5 * time.Second

// checkLeaseConfirmed: a result is sent only by a process to which the master has confirmed, no longer ago than it
// is patient with a silent agent, that the attempt is the agent's.
func (h *History) checkLeaseConfirmed() Finding {
	f := Finding{Invariant: "a result follows a word of its lease"}
	unknown := 0
	for i := range h.Exchanges {
		x := &h.Exchanges[i]
		if x.Result == nil {
			continue
		}
		f.Checked++
		switch h.bestLeaseStatus(x) {
		case leaseConfirmed:
		case leaseUnknown:
			unknown++
		default:
			f.violate("agent %d, process #%d, sent the result of job %s, attempt %d (%s, %q), at %s, and had not been told since %s that the attempt is its own",
				x.Agent, x.Process, x.Result.JobID, x.Result.Attempt, x.Result.Status, x.Result.Error, timestamp(x.From), timestamp(x.From.Add(-unavailableAfter)))
		}
	}
	f.Note = fmt.Sprintf("%d to a master that was asked, and does not know the job", unknown)
	return f
}

// leaseStatus is what a response says about the agent's own attempt.
type leaseStatus int

const (
	leaseUnconfirmed leaseStatus = iota // nothing, or that it is over
	leaseUnknown                        // the master does not know the job, or not that much of it
	leaseConfirmed                      // it is the agent's, or was canceled
)

// bestLeaseStatus is the best status of an attempt that a process received before it sent its result, and
// not too long before.
func (h *History) bestLeaseStatus(sent *Exchange) leaseStatus {
	best := leaseUnconfirmed
	for i := range h.Exchanges {
		e := &h.Exchanges[i]
		if e.Agent != sent.Agent || e.Process != sent.Process || !e.maybeRead() || !e.From.Before(sent.From) || e.To.After(sent.From.Add(timingTolerance)) {
			continue
		}
		if ago := sent.From.Sub(e.To); ago <= unavailableAfter+timingTolerance+h.stalledFor(e.To, sent.From) ||
			ago <= unavailableAfter+maxConnectDelay && h.disconnected(sent.Agent, sent.From.Add(-maxConnectDelay), sent.From) {
			best = max(best, h.leaseStatusIn(e, sent))
		}
	}
	return best
}

// leaseStatusIn is what a response said about the attempt of a result.
func (h *History) leaseStatusIn(e, sent *Exchange) leaseStatus {
	r := sent.Result
	for _, v := range e.Views {
		if v.Job != r.JobID {
			continue // a master that takes an id for a sequence number answers with another job
		}
		held := v.Status.HeldByNode() || v.Status == protocol.StatusPaused || v.Status == protocol.StatusCanceled
		switch {
		case 1+v.Retries < r.Attempt:
			return leaseUnknown
		case 1+v.Retries == r.Attempt && (v.NodeID == r.NodeID || v.NodeID == "") && held:
			return leaseConfirmed
		case h.takesCompleted(sent, v):
			return leaseConfirmed
		}
		return leaseUnconfirmed
	}
	if e.Call == CallJobs && e.AgentStatus == 200 || e.Call == CallJob && e.AgentStatus == 404 && h.asksFor(e, r.JobID) {
		return leaseUnknown
	}
	return leaseUnconfirmed
}

// takesCompleted reports whether a master that answered this about a job still takes a result of an
// attempt that it has re-queued: the master does not fence and waits for the job's end, the
// result is a completed one, and the agent's heartbeats were answered all along.
func (h *History) takesCompleted(sent *Exchange, v JobView) bool {
	over := v.Status == protocol.StatusCompleted || v.Status == protocol.StatusCanceled
	return !over && sent.Result.Status == protocol.StatusCompleted && !h.epochAt(sent.From).Fences && !h.silent(sent)
}

// silent reports whether no heartbeat of an agent was answered for longer than the master
// waits, between its getting the attempt of a result and its sending that.
func (h *History) silent(sent *Exchange) bool {
	given := slices.IndexFunc(h.Exchanges, func(e Exchange) bool {
		return e.Agent == sent.Agent && e.Process == sent.Process && e.AgentStatus == 200 && e.gives(sent.Result)
	})
	if given < 0 {
		return true
	}
	last := h.Exchanges[given].From
	for _, e := range h.Exchanges { // heartbeats are one after another
		if e.Agent != sent.Agent || e.Call != CallHeartbeat || e.AgentStatus != 200 || !e.To.After(last) || e.To.After(sent.From) {
			continue
		}
		if e.To.Sub(last) > unavailableAfter+timingTolerance {
			return true
		}
		last = e.From
	}
	return sent.From.Sub(last) > unavailableAfter+timingTolerance
}

// gives reports whether an answer assigned the attempt of a result to its node.
func (e *Exchange) gives(r *protocol.JobResult) bool {
	return slices.ContainsFunc(e.Views, func(v JobView) bool {
		return v.Job == r.JobID && 1+v.Retries == r.Attempt && v.NodeID == r.NodeID && v.Status.HeldByNode()
	})
}

// disconnected reports whether an agent's network was cut in a period.
func (h *History) disconnected(agent int, from, to time.Time) bool {
	for _, f := range h.Faults {
		if f.Agent == agent && (f.Kind == "net: partition" || f.Kind == "net: connection refused") && f.Overlaps(from, to) {
			return true
		}
	}
	return false
}
