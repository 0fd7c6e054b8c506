package chaos

import (
	"fmt"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// How far the proxies' times may be off from what an agent goes by: an answer is read
// before its end is noted, and a request arrives after it was decided on.
const noted = 300 * time.Millisecond

// connectWithin is how long an agent's connecting may take that began before its network was
// cut, so that a request arrives that much after it was decided on.
const connectWithin = 5 * time.Second

// wordFirst: a result is sent only by a life that the master has told, no longer ago than it
// is patient with a silent agent, that the attempt is the agent's.
func (h *History) wordFirst() Finding {
	f := Finding{Invariant: "a result follows a word of its lease"}
	unknown := 0
	for i := range h.Exchanges {
		x := &h.Exchanges[i]
		if x.Result == nil {
			continue
		}
		f.Checked++
		switch h.lastWord(x) {
		case stands:
		case unlisted:
			unknown++
		default:
			f.breach("agent %d, life %d, sent the result of job %s, attempt %d (%s, %q), at %s, and had not been told since %s that the attempt is its own",
				x.Agent, x.Life, x.Result.JobID, x.Result.Attempt, x.Result.Status, x.Result.Error, stamp(x.From), stamp(x.From.Add(-silentAfter)))
		}
	}
	f.Note = fmt.Sprintf("%d to a master that was asked, and does not know the job", unknown)
	return f
}

// word is what an answer tells an agent of an attempt of its own.
type word int

const (
	noWord   word = iota // nothing, or that it is over
	unlisted             // the master does not know the job, or not that much of it
	stands               // it is the agent's, or was canceled
)

// lastWord is the best that a life was told of an attempt before it sent its result, and
// not too long before.
func (h *History) lastWord(sent *Exchange) word {
	best := noWord
	for i := range h.Exchanges {
		e := &h.Exchanges[i]
		if e.Agent != sent.Agent || e.Life != sent.Life || !e.complete() || !e.From.Before(sent.From) || e.To.After(sent.From.Add(noted)) {
			continue
		}
		if ago := sent.From.Sub(e.To); ago <= silentAfter+noted+h.stalled(e.To, sent.From) ||
			ago <= silentAfter+connectWithin && h.cutOff(sent.Agent, sent.From.Add(-connectWithin), sent.From) {
			best = max(best, h.word(e, sent.Result))
		}
	}
	return best
}

// word is what an answer told of the attempt of a result.
func (h *History) word(e *Exchange, r *protocol.JobResult) word {
	for _, v := range e.Views {
		if v.Job != r.JobID {
			continue // a master that takes an id for a sequence number answers with another job
		}
		held := v.Status.HeldByNode() || v.Status == protocol.StatusPaused || v.Status == protocol.StatusCanceled
		switch {
		case 1+v.Retries < r.Attempt:
			return unlisted
		case 1+v.Retries == r.Attempt && (v.NodeID == r.NodeID || v.NodeID == "") && held:
			return stands
		}
		return noWord
	}
	if e.Call == CallJobs && e.Given == 200 || e.Call == CallJob && e.Given == 404 && h.about(e, r.JobID) {
		return unlisted
	}
	return noWord
}

// cutOff reports whether an agent's way to its master was cut in a stretch of time.
func (h *History) cutOff(agent int, from, to time.Time) bool {
	for _, f := range h.Faults {
		if f.Agent == agent && (f.Kind == "net: partition" || f.Kind == "net: connection refused") && f.Touches(from, to) {
			return true
		}
	}
	return false
}

// oneResult: what is sent of an attempt is the same each time, but where the agent's
// journal was damaged meanwhile, or the master gave the attempt out once more.
func (h *History) oneResult() Finding {
	f := Finding{Invariant: "an attempt has one result"}
	excused := 0
	for _, s := range h.sendings() {
		last := map[string]*Exchange{} // by node
		for _, i := range s.of {
			f.Checked++
			now := &h.Exchanges[i]
			before := last[now.Result.NodeID]
			last[now.Result.NodeID] = now
			switch {
			case before == nil, h.memoryAt(before.From).Number != h.memoryAt(now.From).Number:
			case before.Result.Status == now.Result.Status && before.Result.FailureReason == now.Result.FailureReason:
			case h.damaged(s.agent, before.From, now.From), h.givenAgain(s, before.From, now.From):
				excused++
			default:
				f.breach("agent %d sent of job %s, attempt %d, at %s: %s %s %q, and at %s: %s %s %q", s.agent, s.attempt.Job, s.attempt.Number,
					stamp(before.From), before.Result.Status, before.Result.FailureReason, before.Result.Error,
					stamp(now.From), now.Result.Status, now.Result.FailureReason, now.Result.Error)
			}
		}
	}
	f.Note = fmt.Sprintf("%d differ for a damaged journal, or an attempt that was given out again", excused)
	return f
}

// triedOnce: a life starts FFmpeg once for an attempt, and ends the attempt once, however
// often the master offers it and whatever actor crashes or hangs meanwhile. Both happen again
// only where the journal was damaged.
func (h *History) triedOnce() Finding {
	f := Finding{Invariant: "a life tries an attempt once"}
	type deed struct {
		agent, life int
		attempt     Attempt
		what        string
	}
	last := map[deed]Step{}
	tells := map[int]bool{} // agents whose logs tell of ends
	for _, s := range h.Steps {
		d := deed{s.Agent, h.lifeAt(s.Agent, s.At), s.Attempt, s.What}
		before, repeated := last[d]
		last[d] = s
		f.Checked++
		tells[s.Agent] = tells[s.Agent] || s.What == stepEnded
		if repeated && !h.damaged(s.Agent, before.At, s.At) {
			f.breach("agent %d, life %d, says %q of job %s, attempt %d, at %s and again at %s",
				s.Agent, d.life, s.What, s.Attempt.Job, s.Attempt.Number, stamp(before.At), stamp(s.At))
		}
	}
	for i := range h.Exchanges {
		if x := &h.Exchanges[i]; x.Result != nil && x.Result.Status == protocol.StatusCompleted && !tells[x.Agent] {
			f.breach("agent %d sent that job %s is completed, and its log tells of no end", x.Agent, x.Result.JobID)
		}
	}
	return f
}

// lifeAt is the number of the life that an agent was in; 0: none.
func (h *History) lifeAt(agent int, at time.Time) (number int) {
	for _, l := range h.Lives {
		if l.Agent == agent && !l.From.After(at) {
			number = max(number, l.Number)
		}
	}
	return number
}

// damaged reports whether an agent's journal was damaged in a stretch of time.
func (h *History) damaged(agent int, from, to time.Time) bool {
	for _, f := range h.Faults {
		if f.Agent == agent && f.Kind == "journal: bytes flipped" && f.Touches(from, to) {
			return true
		}
	}
	return false
}

// givenAgain reports whether the master gave an attempt out between two moments.
func (h *History) givenAgain(s sendings, from, to time.Time) bool {
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
