package chaos

import (
	"fmt"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// How far the proxies' times may be off from what an agent goes by: an answer is read
// before its end is noted, and a request arrives after it was decided on.
const timingTolerance = 300 * time.Millisecond

// connectWithin is how long an agent's connecting may take that began before its network was
// cut, so that a request arrives that much after it was decided on.
const maxConnectDelay = 5 * time.Second

// wordFirst: a result is sent only by a life that the master has told, no longer ago than it
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
			f.violate("agent %d, life %d, sent the result of job %s, attempt %d (%s, %q), at %s, and had not been told since %s that the attempt is its own",
				x.Agent, x.Process, x.Result.JobID, x.Result.Attempt, x.Result.Status, x.Result.Error, timestamp(x.From), timestamp(x.From.Add(-unavailableAfter)))
		}
	}
	f.Note = fmt.Sprintf("%d to a master that was asked, and does not know the job", unknown)
	return f
}

// word is what an answer tells an agent of an attempt of its own.
type leaseStatus int

const (
	leaseUnconfirmed leaseStatus = iota // nothing, or that it is over
	leaseUnknown                        // the master does not know the job, or not that much of it
	leaseConfirmed                      // it is the agent's, or was canceled
)

// lastWord is the best that a life was told of an attempt before it sent its result, and
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
			best = max(best, h.leaseStatusIn(e, sent.Result))
		}
	}
	return best
}

// word is what an answer told of the attempt of a result.
func (h *History) leaseStatusIn(e *Exchange, r *protocol.JobResult) leaseStatus {
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
		}
		return leaseUnconfirmed
	}
	if e.Call == CallJobs && e.AgentStatus == 200 || e.Call == CallJob && e.AgentStatus == 404 && h.asksFor(e, r.JobID) {
		return leaseUnknown
	}
	return leaseUnconfirmed
}

// cutOff reports whether an agent's way to its master was cut in a stretch of time.
func (h *History) disconnected(agent int, from, to time.Time) bool {
	for _, f := range h.Faults {
		if f.Agent == agent && (f.Kind == "net: partition" || f.Kind == "net: connection refused") && f.Overlaps(from, to) {
			return true
		}
	}
	return false
}

// oneResult: what is sent of an attempt is the same each time, but where the agent's
// journal was damaged meanwhile, or the master gave the attempt out once more.
func (h *History) checkResultsEqual() Finding {
	f := Finding{Invariant: "an attempt has one result"}
	excused := 0
	for _, s := range h.deliveries() {
		last := map[string]*Exchange{} // by node
		for _, i := range s.exchanges {
			f.Checked++
			now := &h.Exchanges[i]
			before := last[now.Result.NodeID]
			last[now.Result.NodeID] = now
			switch {
			case before == nil, h.epochAt(before.From).Number != h.epochAt(now.From).Number:
			case before.Result.Status == now.Result.Status && before.Result.FailureReason == now.Result.FailureReason:
			case h.journalDamaged(s.agent, before.From, now.From), h.offered(s, before.From, now.From):
				excused++
			default:
				f.violate("agent %d sent of job %s, attempt %d, at %s: %s %s %q, and at %s: %s %s %q", s.agent, s.attempt.Job, s.attempt.Number,
					timestamp(before.From), before.Result.Status, before.Result.FailureReason, before.Result.Error,
					timestamp(now.From), now.Result.Status, now.Result.FailureReason, now.Result.Error)
			}
		}
	}
	f.Note = fmt.Sprintf("%d differ for a damaged journal, or an attempt that was given out again", excused)
	return f
}

// triedOnce: a life starts FFmpeg once for an attempt, and ends the attempt once, however
// often the master offers it and whatever actor crashes or hangs meanwhile. Both happen again
// only where the journal was damaged.
func (h *History) checkAttemptRunsOnce() Finding {
	f := Finding{Invariant: "a life tries an attempt once"}
	type event struct {
		agent, process int
		attempt        Attempt
		what           string
	}
	last := map[event]AttemptEvent{}
	logsEnds := map[int]bool{} // agents whose logs tell of ends
	for _, s := range h.Events {
		d := event{s.Agent, h.processAt(s.Agent, s.At), s.Attempt, s.Message}
		before, repeated := last[d]
		last[d] = s
		f.Checked++
		logsEnds[s.Agent] = logsEnds[s.Agent] || s.Message == eventEnded
		if repeated && !h.journalDamaged(s.Agent, before.At, s.At) {
			f.violate("agent %d, life %d, says %q of job %s, attempt %d, at %s and again at %s",
				s.Agent, d.process, s.Message, s.Attempt.Job, s.Attempt.Number, timestamp(before.At), timestamp(s.At))
		}
	}
	for i := range h.Exchanges {
		if x := &h.Exchanges[i]; x.Result != nil && x.Result.Status == protocol.StatusCompleted && !logsEnds[x.Agent] {
			f.violate("agent %d sent that job %s is completed, and its log tells of no end", x.Agent, x.Result.JobID)
		}
	}
	return f
}

// lifeAt is the number of the life that an agent was in; 0: none.
func (h *History) processAt(agent int, at time.Time) (number int) {
	for _, l := range h.Processes {
		if l.Agent == agent && !l.From.After(at) {
			number = max(number, l.Number)
		}
	}
	return number
}

// damaged reports whether an agent's journal was damaged in a stretch of time.
func (h *History) journalDamaged(agent int, from, to time.Time) bool {
	for _, f := range h.Faults {
		if f.Agent == agent && f.Kind == "journal: bytes flipped" && f.Overlaps(from, to) {
			return true
		}
	}
	return false
}

// givenAgain reports whether the master gave an attempt out between two moments.
func (h *History) offered(s delivery, from, to time.Time) bool {
	for i := range h.Exchanges {
		e := &h.Exchanges[i]
		if e.Agent != s.agent || e.Call != CallNext || !e.From.After(from) || !e.From.Before(to) {
			continue
		}
		for _, v := range e.Views {
			if v.Job == s.attempt.Job && 1+v.Retries == s.attempt.Number {
				return true
			}
		}
	}
	return false
}
