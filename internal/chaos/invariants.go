package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// Finding is how one invariant fared.
type Finding struct {
	Invariant  string
	Checked    int // cases that were looked at
	Excused    int // cases that could not tell
	Note       string
	Violations []string
}

func (f *Finding) violate(format string, args ...any) {
	f.Violations = append(f.Violations, fmt.Sprintf(format, args...))
}

// Judge looks at a history for all that must always hold.
func (h *History) Check() []Finding {
	return []Finding{
		h.checkJobsEnd(), h.checkAcceptedOnce(), h.checkQueriedBeforeResend(), h.checkSupersededNotSent(), h.checkLeaseConfirmed(), h.checkResultsEqual(), h.checkAttemptRunsOnce(), h.checkHeartbeatGaps(),
		h.checkNothingOutlives(), h.checkCleanup(), h.checkRequeued(), h.checkOutputs(), h.checkUsage(), h.checkFailureReasons(), h.checkJoules(), h.checkHeartbeatRate(), h.checkFaultsObserved(),
	}
}

func timestamp(t time.Time) string { return t.Format("15:04:05.000") }

// everyJobEnds: each job that a master accepted ends there, and no agent keeps anything.
func (h *History) checkJobsEnd() Finding {
	f := Finding{Invariant: "every accepted job ends in one record"}
	outcomes := map[protocol.Status]int{}
	forgotten := 0
	for _, j := range h.sortedJobs() {
		switch {
		case j.Forgotten:
			forgotten++
		case !j.Status.Terminal():
			f.Checked++
			f.violate("job %s, submitted %s, is %s after %d retries", j.ID, timestamp(j.Submitted), j.Status, j.Retries)
		default:
			f.Checked++
			outcomes[j.Status]++
			if j.Status == protocol.StatusCanceled && !j.Canceled {
				f.violate("job %s is canceled, and nobody canceled it", j.ID)
			}
			if j.Status == protocol.StatusFailed && j.Retries < j.MaxRetries {
				f.violate("job %s failed for good after %d of %d retries", j.ID, j.Retries, j.MaxRetries)
			}
		}
	}
	if h.Unsettled != "" {
		f.violate("the agents did not come to rest: %s", h.Unsettled)
	}
	if h.UnexpectedDeadLetters > 0 {
		f.violate("%d results became dead letters, though no master forgot their jobs", h.UnexpectedDeadLetters)
	}
	f.Note = fmt.Sprintf("%d completed, %d failed after all retries, %d canceled, %d forgotten by their master",
		outcomes[protocol.StatusCompleted], outcomes[protocol.StatusFailed], outcomes[protocol.StatusCanceled], forgotten)
	return f
}

func (h *History) sortedJobs() []*Job {
	var jobs []*Job
	for _, j := range h.Jobs {
		jobs = append(jobs, j)
	}
	slices.SortFunc(jobs, func(a, b *Job) int {
		if c := a.Submitted.Compare(b.Submitted); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return jobs
}

// acceptedOnce: a master that fences takes each attempt's result once.
func (h *History) checkAcceptedOnce() Finding {
	f := Finding{Invariant: "no attempt is accepted twice by a master that fences"}
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

// memoryAt is the master's memory at a moment.
func (h *History) epochAt(at time.Time) MasterEpoch {
	for _, m := range h.Epochs {
		if m.Overlaps(at, at) {
			return m
		}
	}
	return MasterEpoch{}
}

// sendings are an agent's sendings of one attempt's result, in order.
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

// askedFirst: a result that the master may have taken is not sent again before the agent
// has asked how the job stands.
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

// asked reports whether an agent was told how a job stands between two moments: by a whole
// answer, and not one that says that the master cannot tell.
func (h *History) queried(s delivery, from, to time.Time) bool {
	return slices.ContainsFunc(h.Exchanges, func(x Exchange) bool {
		return x.Agent == s.agent && (x.Call == CallJobs || x.Call == CallJob && h.asksFor(&x, s.attempt.Job)) &&
			x.From.After(from) && x.From.Before(to) && x.maybeRead() && (x.AgentStatus/100 == 2 || x.AgentStatus == 404)
	})
}

// supersededStaysSo: a result is not sent by a life that was told, by a 409 or when it
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

// margin is what an answer may take to be read, and a request that was decided on before
// to be sent.
const readDelay = 500 * time.Millisecond

// superseded finds the answer that told a life, before it sent a result, that the
// attempt is not the job's any more. What was on its way while the agent stood still, or
// its link was down, may never have been read; and what is told once the master has taken
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
			if v.Job == sent.Result.JobID && moved && !(h.acceptedBefore(sent, e.To) && h.lastQueryUnknown(sent)) {
				return e
			}
		}
	}
	return nil
}

// sentBefore reports whether a life had sent a result before.
func (h *History) sentBefore(sent *Exchange) bool {
	return slices.ContainsFunc(h.Exchanges, func(x Exchange) bool {
		return x.Result != nil && x.Attempt() == sent.Attempt() && x.Agent == sent.Agent && x.Process == sent.Process && x.From.Before(sent.From)
	})
}

// taken reports whether the master took an earlier sending of a result before a moment.
func (h *History) acceptedBefore(sent *Exchange, before time.Time) bool {
	return slices.ContainsFunc(h.Exchanges, func(x Exchange) bool {
		return x.Result != nil && x.Attempt() == sent.Attempt() && x.Result.NodeID == sent.Result.NodeID && x.MasterStatus/100 == 2 && x.From.Before(before)
	})
}

// forgotten reports whether the latest that a life was told of a job when it asked for it, before
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

// about reports whether a request asks for a job, by its id or its sequence number.
func (h *History) asksFor(x *Exchange, job string) bool {
	paths := []string{"/jobs/" + job}
	if j := h.Jobs[job]; j != nil {
		paths = append(paths, fmt.Sprintf("/jobs/%d", j.Sequence))
	}
	return slices.Contains(paths, x.Path)
}

// stood reports whether an agent was made to stand still in a stretch of time.
func (h *History) agentStopped(agent int, from, to time.Time) bool {
	return slices.ContainsFunc(h.Faults, func(f InjectedFault) bool {
		return f.Agent == agent && f.Kind == "agent: SIGSTOP" && f.Overlaps(from, to)
	})
}

// heartbeats: attempts are at most two intervals apart within a life and up to its end, but
// for the time in which the process or this program was not scheduled, the heartbeat itself
// was hit, or the agent had been told to end.
func (h *History) checkHeartbeatGaps() Finding {
	f := Finding{Invariant: fmt.Sprintf("heartbeats at most 2 × %s apart", h.HeartbeatInterval)}
	const allowance = 300 * time.Millisecond // for being noticed, and for a machine that is shared
	last := map[[2]int]Heartbeat{}           // by agent and life
	longest := time.Duration(0)
	for _, b := range h.heartbeatAttempts() {
		before, known := last[[2]int{b.Agent, b.Process}]
		last[[2]int{b.Agent, b.Process}] = b
		if !known {
			continue
		}
		f.Checked++
		gap := b.At.Sub(before.At) / time.Duration(1+h.unseenHeartbeats(before, b))
		if h.heartbeatFaulted(b.Agent, before.At, b.At) {
			continue
		}
		longest = max(longest, gap)
		if gap > 2*h.HeartbeatInterval+allowance+h.stalledFor(before.At, b.At) {
			f.violate("agent %d, life %d: no heartbeat for %s from %s on", b.Agent, b.Process, gap.Round(time.Millisecond), timestamp(before.At))
		}
	}
	for i := range h.Processes {
		l := &h.Processes[i]
		allowed, end := 2*h.HeartbeatInterval, l.activeUntil()
		from := last[[2]int{l.Agent, l.Number}].At
		if from.IsZero() {
			allowed, from = firstHeartbeatIntervals*h.HeartbeatInterval, h.registeredAt(l)
		}
		if from.IsZero() || end.IsZero() {
			continue
		}
		f.Checked++
		gap := end.Sub(from)
		if h.heartbeatFaulted(l.Agent, from, end) || h.disconnected(l.Agent, from, end) {
			continue // beats that nobody but the agent could see count when it tells of them later
		}
		longest = max(longest, gap)
		if gap > allowed+allowance+h.stalledFor(from, end) {
			f.violate("agent %d, life %d: no heartbeat for %s from %s on, up to its end", l.Agent, l.Number, gap.Round(time.Millisecond), timestamp(from))
		}
	}
	f.Note = fmt.Sprintf("longest gap %s", longest.Round(time.Millisecond))
	return f
}

// fewBeats is in how many intervals after its session a life has to have attempted one.
const firstHeartbeatIntervals = 4

// due is until when a life has to do all that it should; zero: it has not ended.
func (l *Process) activeUntil() time.Time {
	if !l.StopRequested.IsZero() && (l.To.IsZero() || l.StopRequested.Before(l.To)) {
		return l.StopRequested
	}
	return l.To
}

// session is when a life was first told its session; zero: it was not.
func (h *History) registeredAt(l *Process) time.Time {
	for i := range h.Exchanges {
		if x := &h.Exchanges[i]; x.Agent == l.Agent && x.Process == l.Number && x.Call == CallRegister && x.Delivered && x.AgentStatus/100 == 2 {
			return x.To
		}
	}
	return time.Time{}
}

// untold is how many heartbeats an agent counted between two that follow each other for all
// that was seen: it may have been too busy to tell, and its network cut.
func (h *History) unseenHeartbeats(before, after Heartbeat) int {
	var from, to *Heartbeat // that the agent itself told, around the two
	for i := range h.Heartbeats {
		switch b := &h.Heartbeats[i]; {
		case b.Agent != before.Agent || b.Process != before.Process:
		case !b.At.After(before.At):
			from = b
		case to == nil && !b.At.Before(after.At):
			to = b
		}
	}
	if from == nil || to == nil || from.Number == 0 || to.Number == 0 {
		return 0
	}
	seen := 1 // to
	for i := range h.Exchanges {
		if x := &h.Exchanges[i]; x.Call == CallHeartbeat && x.Agent == after.Agent && !x.From.Before(after.At) && x.From.Before(to.At) {
			seen++
		}
	}
	return max(0, to.Number-from.Number-seen)
}

// attempted are the heartbeats that agents attempted, by what their status told and by what
// came to the proxies: at times one of the two sees nothing. What came before a life told of
// a heartbeat may be of the life before: a network brings what a dead process has sent.
func (h *History) heartbeatAttempts() []Heartbeat {
	type life struct{ agent, number int }
	heartbeats, first := slices.Clone(h.Heartbeats), map[life]time.Time{}
	for _, b := range slices.Backward(h.Heartbeats) {
		first[life{b.Agent, b.Process}] = b.At
	}
	for i := range h.Exchanges {
		x := &h.Exchanges[i]
		if begun, known := first[life{x.Agent, x.Process}]; x.Call == CallHeartbeat && known && !x.From.Before(begun) {
			heartbeats = append(heartbeats, Heartbeat{Agent: x.Agent, Process: x.Process, At: x.From})
		}
	}
	slices.SortStableFunc(heartbeats, func(a, b Heartbeat) int { return a.At.Compare(b.At) })
	return heartbeats
}

func (h *History) heartbeatFaulted(agent int, from, to time.Time) bool {
	return slices.ContainsFunc(h.Faults, func(f InjectedFault) bool {
		hits := f.Kind == "agent: SIGSTOP" || strings.HasPrefix(f.Kind, "actor: ") && f.Actor == "agent/heartbeat"
		return f.Agent == agent && hits && f.Overlaps(from, to)
	})
}

// stalled is for how long this program was not scheduled in a stretch of time.
func (h *History) stalledFor(from, to time.Time) (sum time.Duration) {
	for _, s := range h.Stalls {
		if s.Overlaps(from, to) {
			sum += s.To.Sub(s.From)
		}
	}
	return sum
}

// nothingOutlives: 2 s after an agent's end nothing of it runs or listens.
func (h *History) checkNothingOutlives() Finding {
	f := Finding{Invariant: "nothing outlives the agent by 2 s"}
	longest := time.Duration(0)
	for _, l := range h.Processes {
		if l.To.IsZero() {
			continue
		}
		f.Checked++
		longest = max(longest, l.GoneAfter)
		if len(l.Survivors) > 0 {
			f.violate("agent %d, life %d, ended %s (%s): %s", l.Agent, l.Number, timestamp(l.To), l.Exit, strings.Join(l.Survivors, ", "))
		}
	}
	f.Note = fmt.Sprintf("longest %s", longest.Round(time.Millisecond))
	return f
}

// cleanedUp: a life removes what dead ones left.
func (h *History) checkCleanup() Finding {
	f := Finding{Invariant: "the next life cleans up"}
	longest := time.Duration(0)
	for _, c := range h.Cleanups {
		f.Checked += c.Items
		longest = max(longest, c.Took)
		if len(c.Remaining) > 0 {
			f.violate("agent %d, life %d, has left after %s: %s", c.Agent, c.Process, c.Took.Round(time.Second), strings.Join(c.Remaining, ", "))
		}
	}
	f.Note = fmt.Sprintf("longest %s", longest.Round(time.Millisecond))
	return f
}

// requeueWithin is how long after its start a life may take to have the master take what
// the one before it was killed at.
const requeueWithin = 2 * time.Second

// requeued: what a killed agent was at work on is reported by its next life at once, where
// nothing else is in the way.
func (h *History) checkRequeued() Finding {
	f := Finding{Invariant: fmt.Sprintf("an interrupted job is re-queued within %s of the restart", requeueWithin)}
	var delays []time.Duration
	rerun := 0
	excuses := map[string]int{}
	phases := map[string]int{}
	for _, killed := range h.Faults {
		if killed.Kind != killDuringJobKind || killed.Effect == "" {
			continue
		}
		phase, _, _ := strings.Cut(killed.Effect, ":")
		phases[phase]++
		next := h.nextProcess(killed.Agent, killed.From)
		if killed.Attempt.Job == "" || next == nil {
			f.Excused++
			continue
		}
		due := next.From.Add(requeueWithin)
		sent := slices.IndexFunc(h.Exchanges, func(x Exchange) bool {
			// The job was seen in a status that may have been as old as the look before.
			return x.Agent == killed.Agent && x.Result != nil && x.Attempt() == killed.Attempt && x.MasterStatus != 0 && x.To.After(killed.From.Add(-statusInterval))
		})
		switch {
		case sent >= 0 && h.Exchanges[sent].To.Before(next.From): // its result was on its way already
			f.Excused++
		case sent >= 0 && h.Exchanges[sent].To.Before(due):
			f.Checked++
			delays = append(delays, h.Exchanges[sent].To.Sub(next.From))
		case phase == "prepare" && (sent >= 0 && h.Exchanges[sent].Result.Status == protocol.StatusCompleted || h.killedAgain(killed)):
			f.Checked++ // killed before anything of it was on disk: found at the master, and begun anew
			rerun++
		case !next.To.IsZero() && next.To.Before(due):
			f.Excused++
			excuses["its next life ended"]++
		case h.otherFault(killed, next.From, due) != "":
			f.Excused++
			excuses[h.otherFault(killed, next.From, due)]++
		case h.stalledFor(next.From, due) > 0:
			f.Excused++
			excuses["this program stood still"]++
		default:
			f.Checked++
			f.violate("agent %d was killed at job %s, attempt %d, and began anew at %s: not reported by %s", killed.Agent, killed.Attempt.Job, killed.Attempt.Number, timestamp(next.From), timestamp(due))
		}
	}
	slices.Sort(delays)
	if len(delays) > 0 {
		f.Note = fmt.Sprintf("median %s, longest %s, %d begun anew; killed in %s",
			delays[len(delays)/2].Round(time.Millisecond), delays[len(delays)-1].Round(time.Millisecond), rerun, formatCounts(phases))
	}
	if excused := formatCounts(excuses); excused != "" {
		f.Note += "; excused: " + excused
	}
	return f
}

// killedAgain reports whether a later life was killed at the same attempt, which it had
// begun anew then.
func (h *History) killedAgain(killed InjectedFault) bool {
	return slices.ContainsFunc(h.Faults, func(f InjectedFault) bool {
		return f.Kind == killDuringJobKind && f.Agent == killed.Agent && f.Attempt == killed.Attempt && f.From.After(killed.From)
	})
}

// nextLife is the first that an agent began after a moment.
func (h *History) nextProcess(agent int, after time.Time) *Process {
	for i := range h.Processes {
		if l := &h.Processes[i]; l.Agent == agent && l.From.After(after) {
			return l
		}
	}
	return nil
}

// disturbed names what touches a stretch of time, beside kills in a job, and is in the way of
// the agent that a fault hit, or of its master; empty: nothing is.
func (h *History) otherFault(kill InjectedFault, from, to time.Time) string {
	for _, f := range h.Faults {
		concerns := f.Agent == kill.Agent || strings.HasPrefix(f.Kind, "master: ")
		if f.Number != kill.Number && f.Kind != killDuringJobKind && concerns && f.Overlaps(from, to) {
			return f.Kind
		}
	}
	return ""
}

func formatCounts(counts map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(all, ", ")
}

// outputsWhole: what stands under a final name is complete, and a job that completed has
// its output.
func (h *History) checkOutputs() Finding {
	f := Finding{Invariant: "an output is complete or absent"}
	found := map[string]bool{}
	for _, o := range h.Outputs {
		f.Checked++
		found[o.Path] = true
		if o.Problem != "" {
			f.violate("%s of job %s: %s", o.Path, o.Job, o.Problem)
		}
	}
	for _, j := range h.sortedJobs() {
		if j.Status == protocol.StatusCompleted && j.Output != "" && !found[j.Output] {
			f.violate("job %s completed, and %s was never there", j.ID, j.Output)
		}
	}
	return f
}

// What an agent at rest may hold above its first rest.
const (
	maxExtraGoroutines  = 6
	maxExtraDescriptors = 6
	maxExtraThreads     = 20
	maxExtraHeap        = 24 << 20
	maxExtraResident    = 64 << 20
	maxExtraDisk        = 16 << 20
)

// levelsReturn: an agent at rest holds no more than when it first rested, and nothing that
// only a job needs.
func (h *History) checkUsage() Finding {
	f := Finding{Invariant: "what the agent holds returns to its level"}
	first, last := map[int]Usage{}, map[int]Usage{}
	var most Usage
	for _, sensors := range h.UnreadSensors {
		f.violate("not read again after the last fault: %s", sensors)
	}
	for _, l := range h.IdleUsage {
		last[l.Agent] = l
		if len(l.Leftovers) > 0 {
			f.violate("agent %d, life %d, at rest at %s: %s", l.Agent, l.Process, timestamp(l.At), strings.Join(l.Leftovers, ", "))
		}
		base, known := first[l.Agent]
		if !known {
			first[l.Agent] = l
			continue
		}
		for _, c := range []struct {
			what          string
			base, now     int64
			allowed, unit int64
			most          *int64
		}{
			{"goroutines", int64(base.Goroutines), int64(l.Goroutines), maxExtraGoroutines, 1, nil},
			{"descriptors", int64(base.Descriptors), int64(l.Descriptors), maxExtraDescriptors, 1, nil},
			{"threads", int64(base.Threads), int64(l.Threads), maxExtraThreads, 1, nil},
			{"KiB of heap", base.HeapBytes, l.HeapBytes, maxExtraHeap, 1 << 10, nil},
			{"KiB resident", base.ResidentBytes, l.ResidentBytes, maxExtraResident, 1 << 10, nil},
			{"KiB of disk", base.DiskBytes, l.DiskBytes, maxExtraDisk, 1 << 10, nil},
		} {
			f.Checked++
			if c.now > c.base+c.allowed {
				f.violate("agent %d, life %d, at rest at %s: %d %s, at first %d", l.Agent, l.Process, timestamp(l.At), c.now/c.unit, c.what, c.base/c.unit)
			}
		}
		most.Goroutines, most.Descriptors = max(most.Goroutines, l.Goroutines-base.Goroutines), max(most.Descriptors, l.Descriptors-base.Descriptors)
		most.Threads, most.ResidentBytes = max(most.Threads, l.Threads-base.Threads), max(most.ResidentBytes, l.ResidentBytes-base.ResidentBytes)
	}
	f.Note = fmt.Sprintf("at most %+d goroutines, %+d descriptors, %+d threads, %+d MiB", most.Goroutines, most.Descriptors, most.Threads, most.ResidentBytes>>20)
	for _, n := range slices.Sorted(maps.Keys(first)) {
		a, b := first[n], last[n]
		f.Note += fmt.Sprintf("; agent %d, first to last: %d → %d goroutines, %d → %d descriptors, %.1f → %.1f MiB of heap, %d → %d MiB resident",
			n, a.Goroutines, b.Goroutines, a.Descriptors, b.Descriptors, float64(a.HeapBytes)/(1<<20), float64(b.HeapBytes)/(1<<20), a.ResidentBytes>>20, b.ResidentBytes>>20)
	}
	return f
}

// noStorm: heartbeats come as often as they should and little more, so that no timer has
// been left behind by a restart. Registering, and the heartbeat's own restart, beat once.
func (h *History) checkHeartbeatRate() Finding {
	f := Finding{Invariant: "no more heartbeats than are due"}
	const allowance = 5
	for _, l := range h.Processes {
		heartbeats, extra := 0, 0
		for i := range h.Exchanges {
			x := &h.Exchanges[i]
			if x.Agent == l.Agent && x.Process == l.Number {
				heartbeats += boolToInt(x.Call == CallHeartbeat)
				extra += boolToInt(x.Call == CallRegister)
			}
		}
		end := l.To
		if end.IsZero() {
			end = h.lastActivity(l.From)
		}
		for _, fault := range h.Faults {
			extra += boolToInt(fault.Agent == l.Agent && fault.Overlaps(l.From, end) && strings.HasPrefix(fault.Kind, "actor: "))
		}
		f.Checked++
		due := int(end.Sub(l.From)/h.HeartbeatInterval) + extra + allowance
		if heartbeats > due+due/4 {
			f.violate("agent %d, life %d, from %s to %s: %d heartbeats, %d are due", l.Agent, l.Number, timestamp(l.From), timestamp(end), heartbeats, due)
		}
	}
	return f
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// end is when the last request ended, and no earlier than a moment.
func (h *History) lastActivity(last time.Time) time.Time {
	for i := range h.Exchanges {
		if to := h.Exchanges[i].To; to.After(last) {
			last = to
		}
	}
	return last
}

// triedOften is how often a kind of fault has to be played before it means something that
// none of them was seen to have an effect.
const minInjections = 4

// allShow: an agent that does what it should shows the effect of each kind of fault.
func (h *History) checkFaultsObserved() Finding {
	f := Finding{Invariant: "each kind of fault has its effect"}
	for _, t := range h.Tallies() {
		f.Checked++
		if t.Observed == 0 && t.Injected-t.Skipped >= minInjections {
			f.violate("%s was played %d times and never seen: %s", t.Kind, t.Injected, t.Error)
		}
	}
	return f
}
