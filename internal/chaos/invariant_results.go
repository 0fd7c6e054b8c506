package chaos

import (
	"fmt"
	"slices"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// checkAcceptedOnce: a master that fences takes each attempt's result once.
func (h *History) checkAcceptedOnce() Finding {
	f := Finding{
		Invariant:    "no attempt is accepted twice by a master that fences",
		Inapplicable: !slices.ContainsFunc(h.Epochs, func(e MasterEpoch) bool { return e.Fences }),
	}
	first := map[Attempt]Exchange{}
	for _, x := range h.Exchanges {
		if x.Result == nil || x.MasterStatus/100 != 2 || !h.epochAt(x.From).Fences {
			continue
		}
		f.Checked++
		if earlier, repeated := first[x.Attempt()]; repeated {
			f.violate("job %s, attempt %d: accepted from agent %d at %s and from agent %d at %s", x.Result.JobID, x.Result.Attempt,
				earlier.Agent, timestamp(earlier.From), x.Agent, timestamp(x.From))
		}
		first[x.Attempt()] = x
	}
	return f
}

// epochAt is the master's epoch at a moment.
func (h *History) epochAt(at time.Time) MasterEpoch {
	for _, m := range h.Epochs {
		if m.Overlaps(at, at) {
			return m
		}
	}
	return MasterEpoch{}
}

// delivery are an agent's sendings of one attempt's result, in order.
type delivery struct {
	agent     int
	attempt   Attempt
	exchanges []int // indices of exchanges
}

func (h *History) deliveries() []delivery {
	var deliveries []delivery
	index := map[[2]any]int{}
	for i, x := range h.Exchanges {
		if x.Result == nil {
			continue
		}
		key := [2]any{x.Agent, x.Attempt()}
		n, known := index[key]
		if !known {
			n = len(deliveries)
			index[key] = n
			deliveries = append(deliveries, delivery{agent: x.Agent, attempt: x.Attempt()})
		}
		deliveries[n].exchanges = append(deliveries[n].exchanges, i)
	}
	for i := range deliveries {
		slices.SortFunc(deliveries[i].exchanges, func(a, b int) int { return h.Exchanges[a].From.Compare(h.Exchanges[b].From) })
	}
	return deliveries
}

// checkQueriedBeforeResend: a result that the master may have taken is not sent again before the agent
// has asked for the job's status.
func (h *History) checkQueriedBeforeResend() Finding {
	f := Finding{Invariant: "no result is sent again without asking first"}
	resent := 0
	for _, s := range h.deliveries() {
		f.Checked++
		for k := 1; k < len(s.exchanges); k++ {
			resent++
			before, now := &h.Exchanges[s.exchanges[k-1]], &h.Exchanges[s.exchanges[k]]
			maybeAccepted := before.Received && before.AgentStatus == 0 || before.AgentStatus/100 == 2
			if maybeAccepted && !h.queried(s, before.From, now.From) {
				f.violate("agent %d sent the result of job %s, attempt %d, at %s (%s, given %d) and again at %s, and did not ask between",
					s.agent, s.attempt.Job, s.attempt.Number, timestamp(before.From), before.Fault, before.AgentStatus, timestamp(now.From))
			}
		}
	}
	f.Note = fmt.Sprintf("%d sendings were repeated", resent)
	return f
}

// queried reports whether an agent received a job's state between two moments: in a whole
// answer, and not one that says that the master does not know it.
func (h *History) queried(s delivery, from, to time.Time) bool {
	return slices.ContainsFunc(h.Exchanges, func(x Exchange) bool {
		return x.Agent == s.agent && (x.Call == CallJobs || x.Call == CallJob && h.asksFor(&x, s.attempt.Job)) &&
			x.From.After(from) && x.From.Before(to) && x.maybeRead() && (x.AgentStatus/100 == 2 || x.AgentStatus == 404)
	})
}

// checkSupersededNotSent: a result is not sent by a process that learned, by a 409 or when it
// asked, that its attempt is no longer the job's.
func (h *History) checkSupersededNotSent() Finding {
	f := Finding{Invariant: "a superseded result is not sent"}
	sent := 0
	for _, s := range h.deliveries() {
		for _, i := range s.exchanges {
			f.Checked++
			x := &h.Exchanges[i]
			if e := h.supersededBy(x); e != nil {
				sent++
				f.violate("agent %d sent the result of job %s, attempt %d, at %s, and had been told at %s that it is superseded (%s %s: %d %+v)",
					x.Agent, s.attempt.Job, s.attempt.Number, timestamp(x.From), timestamp(e.To), e.Call, e.Path, e.AgentStatus, e.Views)
			}
		}
	}
	return f
}

// readDelay is what an answer may take to be read, and a request that was decided on before
// to be sent.
const readDelay = 500 * time.Millisecond

// supersededBy finds the answer that informed a process, before it sent a result, that the
// attempt is not the job's any more. What was on its way while the agent stood still, or
// its link was down, may never have been read; and what is answered once the master has taken
// this very result is what came of it, which means nothing when the master has forgotten it since.
func (h *History) supersededBy(sent *Exchange) *Exchange {
	wait := readDelay
	if h.sentBefore(sent) {
		wait = 0 // it is decided on by the answer to a question that was asked for it
	}
	for i := range h.Exchanges {
		e := &h.Exchanges[i]
		if e.Agent != sent.Agent || e.Process != sent.Process || !e.Delivered || !e.To.Add(wait).Before(sent.From) || h.agentStopped(e.Agent, e.From, e.To.Add(wait)) {
			continue
		}
		if e.Result != nil && e.Attempt() == sent.Attempt() && e.AgentStatus == 409 && e.MasterStatus == 409 {
			return e
		}
		if e.Call != CallJob || !h.asksFor(e, sent.Result.JobID) {
			continue // a master that takes an id for a sequence number answers with another job
		}
		for _, v := range e.Views {
			elsewhere := v.NodeID != "" && v.NodeID != sent.Result.NodeID
			moved := 1+v.Retries > sent.Result.Attempt || 1+v.Retries == sent.Result.Attempt && elsewhere
			if v.Job == sent.Result.JobID && moved && !h.takesCompleted(sent, v) && !(h.acceptedBefore(sent, e.To) && h.lastQueryUnknown(sent)) {
				return e
			}
		}
	}
	return nil
}

// sentBefore reports whether a process had sent a result before.
func (h *History) sentBefore(sent *Exchange) bool {
	return slices.ContainsFunc(h.Exchanges, func(x Exchange) bool {
		return x.Result != nil && x.Attempt() == sent.Attempt() && x.Agent == sent.Agent && x.Process == sent.Process && x.From.Before(sent.From)
	})
}

// acceptedBefore reports whether the master took an earlier sending of a result before a moment.
func (h *History) acceptedBefore(sent *Exchange, before time.Time) bool {
	return slices.ContainsFunc(h.Exchanges, func(x Exchange) bool {
		return x.Result != nil && x.Attempt() == sent.Attempt() && x.Result.NodeID == sent.Result.NodeID && x.MasterStatus/100 == 2 && x.From.Before(before)
	})
}

// lastQueryUnknown reports whether the latest answer to a process's query for a job, before
// it sent a result, is that the master does not know it.
func (h *History) lastQueryUnknown(sent *Exchange) bool {
	var last *Exchange
	for i := range h.Exchanges {
		e := &h.Exchanges[i]
		if e.Agent == sent.Agent && e.Process == sent.Process && e.Call == CallJob && h.asksFor(e, sent.Result.JobID) && e.maybeRead() &&
			e.To.Before(sent.From.Add(timingTolerance)) && (last == nil || e.To.After(last.To)) {
			last = e
		}
	}
	return last != nil && !slices.ContainsFunc(last.Views, func(v JobView) bool { return v.Job == sent.Result.JobID })
}

// asksFor reports whether a request asks for a job, by its id or its sequence number.
func (h *History) asksFor(x *Exchange, job string) bool {
	paths := []string{"/jobs/" + job}
	if j := h.Jobs[job]; j != nil {
		paths = append(paths, fmt.Sprintf("/jobs/%d", j.Sequence))
	}
	return slices.Contains(paths, x.Path)
}

// agentStopped reports whether an agent was made to stand still in a stretch of time.
func (h *History) agentStopped(agent int, from, to time.Time) bool {
	return slices.ContainsFunc(h.Faults, func(f InjectedFault) bool {
		return f.Agent == agent && f.Kind == "agent: SIGSTOP" && f.Overlaps(from, to)
	})
}

// checkResultsEqual: what is sent of an attempt is the same each time, but where the agent's
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

// offered reports whether the master gave an attempt out between two moments.
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

// checkAttemptRunsOnce: a process starts FFmpeg once for an attempt, and ends the attempt once, however
// often the master offers it and whatever actor crashes or hangs meanwhile. Both happen again
// only where the journal was damaged.
func (h *History) checkAttemptRunsOnce() Finding {
	f := Finding{Invariant: "a process runs an attempt once"}
	type event struct {
		agent, process int
		attempt        Attempt
		what           string
	}
	last := map[event]AttemptEvent{}
	logsEnds := map[int]bool{} // agents whose logs have job ends
	for _, s := range h.Events {
		d := event{s.Agent, h.processAt(s.Agent, s.At), s.Attempt, s.Message}
		before, repeated := last[d]
		last[d] = s
		f.Checked++
		logsEnds[s.Agent] = logsEnds[s.Agent] || s.Message == eventEnded
		if repeated && !h.journalDamaged(s.Agent, before.At, s.At) {
			f.violate("agent %d, process #%d, says %q of job %s, attempt %d, at %s and again at %s",
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

// processAt is the number of the process that an agent was in; 0: none.
func (h *History) processAt(agent int, at time.Time) (number int) {
	for _, l := range h.Processes {
		if l.Agent == agent && !l.From.After(at) {
			number = max(number, l.Number)
		}
	}
	return number
}

// journalDamaged reports whether an agent's journal was damaged in a stretch of time.
func (h *History) journalDamaged(agent int, from, to time.Time) bool {
	for _, f := range h.Faults {
		if f.Agent == agent && f.Kind == "journal: bytes flipped" && f.Overlaps(from, to) {
			return true
		}
	}
	return false
}
