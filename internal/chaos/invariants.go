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
	Invariant string
	Checked   int // cases that were looked at
	Excused   int // cases that could not tell
	Note      string
	Breaches  []string
}

func (f *Finding) breach(format string, args ...any) {
	f.Breaches = append(f.Breaches, fmt.Sprintf(format, args...))
}

// Judge looks at a history for all that must always hold.
func (h *History) Judge() []Finding {
	return []Finding{
		h.everyJobEnds(), h.acceptedOnce(), h.askedFirst(), h.supersededStaysSo(), h.wordFirst(), h.oneResult(), h.triedOnce(), h.heartbeats(),
		h.nothingOutlives(), h.cleanedUp(), h.requeued(), h.outputsWhole(), h.levelsReturn(), h.trueReasons(), h.joulesTrue(), h.noStorm(), h.allShow(),
	}
}

func stamp(t time.Time) string { return t.Format("15:04:05.000") }

// everyJobEnds: each job that a master accepted ends there, and no agent keeps anything.
func (h *History) everyJobEnds() Finding {
	f := Finding{Invariant: "every accepted job ends in one record"}
	outcomes := map[protocol.Status]int{}
	forgotten := 0
	for _, j := range h.sortedJobs() {
		switch {
		case j.Forgotten:
			forgotten++
		case !j.Status.Terminal():
			f.Checked++
			f.breach("job %s, submitted %s, is %s after %d retries", j.ID, stamp(j.Submitted), j.Status, j.Retries)
		default:
			f.Checked++
			outcomes[j.Status]++
			if j.Status == protocol.StatusCanceled && !j.Canceled {
				f.breach("job %s is canceled, and nobody canceled it", j.ID)
			}
			if j.Status == protocol.StatusFailed && j.Retries < j.Limit {
				f.breach("job %s failed for good after %d of %d retries", j.ID, j.Retries, j.Limit)
			}
		}
	}
	if h.Unsettled != "" {
		f.breach("the agents did not come to rest: %s", h.Unsettled)
	}
	if h.DeadLost > 0 {
		f.breach("%d results became dead letters, though no master forgot their jobs", h.DeadLost)
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
func (h *History) acceptedOnce() Finding {
	f := Finding{Invariant: "no attempt is accepted twice by a master that fences"}
	first := map[Attempt]Exchange{}
	for _, x := range h.Exchanges {
		if x.Result == nil || x.Answered/100 != 2 || !h.memoryAt(x.From).Fenced {
			continue
		}
		f.Checked++
		if earlier, again := first[x.Attempt()]; again {
			f.breach("job %s, attempt %d: accepted from agent %d at %s and from agent %d at %s", x.Result.JobID, x.Result.Attempt,
				earlier.Agent, stamp(earlier.From), x.Agent, stamp(x.From))
		}
		first[x.Attempt()] = x
	}
	return f
}

// memoryAt is the master's memory at a moment.
func (h *History) memoryAt(at time.Time) Memory {
	for _, m := range h.Memories {
		if m.Touches(at, at) {
			return m
		}
	}
	return Memory{}
}

// sendings are an agent's sendings of one attempt's result, in order.
type sendings struct {
	agent   int
	attempt Attempt
	of      []int // indices of exchanges
}

func (h *History) sendings() []sendings {
	var all []sendings
	index := map[[2]any]int{}
	for i, x := range h.Exchanges {
		if x.Result == nil {
			continue
		}
		key := [2]any{x.Agent, x.Attempt()}
		n, known := index[key]
		if !known {
			n = len(all)
			index[key] = n
			all = append(all, sendings{agent: x.Agent, attempt: x.Attempt()})
		}
		all[n].of = append(all[n].of, i)
	}
	for i := range all {
		slices.SortFunc(all[i].of, func(a, b int) int { return h.Exchanges[a].From.Compare(h.Exchanges[b].From) })
	}
	return all
}

// askedFirst: a result that the master may have taken is not sent again before the agent
// has asked how the job stands.
func (h *History) askedFirst() Finding {
	f := Finding{Invariant: "no result is sent again without asking first"}
	again := 0
	for _, s := range h.sendings() {
		f.Checked++
		for k := 1; k < len(s.of); k++ {
			again++
			before, now := &h.Exchanges[s.of[k-1]], &h.Exchanges[s.of[k]]
			doubtful := before.Received && before.Given == 0 || before.Given/100 == 2
			if doubtful && !h.asked(s, before.From, now.From) {
				f.breach("agent %d sent the result of job %s, attempt %d, at %s (%s, given %d) and again at %s, and did not ask between",
					s.agent, s.attempt.Job, s.attempt.Number, stamp(before.From), before.Fault, before.Given, stamp(now.From))
			}
		}
	}
	f.Note = fmt.Sprintf("%d sendings were repeated", again)
	return f
}

// asked reports whether an agent was told how a job stands between two moments: by a whole
// answer, and not one that says that the master cannot tell.
func (h *History) asked(s sendings, from, to time.Time) bool {
	return slices.ContainsFunc(h.Exchanges, func(x Exchange) bool {
		return x.Agent == s.agent && (x.Call == CallJobs || x.Call == CallJob && h.about(&x, s.attempt.Job)) &&
			x.From.After(from) && x.From.Before(to) && x.complete() && (x.Given/100 == 2 || x.Given == 404)
	})
}

// supersededStaysSo: a result is not sent by a life that was told, by a 409 or when it
// asked, that its attempt is no longer the job's.
func (h *History) supersededStaysSo() Finding {
	f := Finding{Invariant: "a superseded result is not sent"}
	told := 0
	for _, s := range h.sendings() {
		for _, i := range s.of {
			f.Checked++
			x := &h.Exchanges[i]
			if e := h.superseded(x); e != nil {
				told++
				f.breach("agent %d sent the result of job %s, attempt %d, at %s, and had been told at %s that it is superseded (%s %s: %d %+v)",
					x.Agent, s.attempt.Job, s.attempt.Number, stamp(x.From), stamp(e.To), e.Call, e.Path, e.Given, e.Views)
			}
		}
	}
	return f
}

// margin is what an answer may take to be read, and a request that was decided on before
// to be sent.
const margin = 500 * time.Millisecond

// superseded finds the answer that told a life, before it sent a result, that the
// attempt is not the job's any more. What was on its way while the agent stood still, or
// its link was down, may never have been read; and what is told once the master has taken
// this very result is what came of it, which means nothing when the master has forgotten it since.
func (h *History) superseded(sent *Exchange) *Exchange {
	wait := margin
	if h.sentBefore(sent) {
		wait = 0 // it is decided on by the answer to a question that was asked for it
	}
	for i := range h.Exchanges {
		e := &h.Exchanges[i]
		if e.Agent != sent.Agent || e.Life != sent.Life || !e.Whole || !e.To.Add(wait).Before(sent.From) || h.stood(e.Agent, e.From, e.To.Add(wait)) {
			continue
		}
		if e.Result != nil && e.Attempt() == sent.Attempt() && e.Given == 409 && e.Answered == 409 {
			return e
		}
		if e.Call != CallJob || !h.about(e, sent.Result.JobID) {
			continue // a master that takes an id for a sequence number answers with another job
		}
		for _, v := range e.Views {
			elsewhere := v.NodeID != "" && v.NodeID != sent.Result.NodeID
			moved := 1+v.Retries > sent.Result.Attempt || 1+v.Retries == sent.Result.Attempt && elsewhere
			if v.Job == sent.Result.JobID && moved && !(h.taken(sent, e.To) && h.forgotten(sent)) {
				return e
			}
		}
	}
	return nil
}

// sentBefore reports whether a life had sent a result before.
func (h *History) sentBefore(sent *Exchange) bool {
	return slices.ContainsFunc(h.Exchanges, func(x Exchange) bool {
		return x.Result != nil && x.Attempt() == sent.Attempt() && x.Agent == sent.Agent && x.Life == sent.Life && x.From.Before(sent.From)
	})
}

// taken reports whether the master took an earlier sending of a result before a moment.
func (h *History) taken(sent *Exchange, before time.Time) bool {
	return slices.ContainsFunc(h.Exchanges, func(x Exchange) bool {
		return x.Result != nil && x.Attempt() == sent.Attempt() && x.Result.NodeID == sent.Result.NodeID && x.Answered/100 == 2 && x.From.Before(before)
	})
}

// forgotten reports whether the latest that a life was told of a job when it asked for it, before
// it sent a result, is that the master does not know it.
func (h *History) forgotten(sent *Exchange) bool {
	var last *Exchange
	for i := range h.Exchanges {
		e := &h.Exchanges[i]
		if e.Agent == sent.Agent && e.Life == sent.Life && e.Call == CallJob && h.about(e, sent.Result.JobID) && e.complete() &&
			e.To.Before(sent.From.Add(noted)) && (last == nil || e.To.After(last.To)) {
			last = e
		}
	}
	return last != nil && !slices.ContainsFunc(last.Views, func(v View) bool { return v.Job == sent.Result.JobID })
}

// about reports whether a request asks for a job, by its id or its sequence number.
func (h *History) about(x *Exchange, job string) bool {
	paths := []string{"/jobs/" + job}
	if j := h.Jobs[job]; j != nil {
		paths = append(paths, fmt.Sprintf("/jobs/%d", j.Sequence))
	}
	return slices.Contains(paths, x.Path)
}

// stood reports whether an agent was made to stand still in a stretch of time.
func (h *History) stood(agent int, from, to time.Time) bool {
	return slices.ContainsFunc(h.Faults, func(f Injected) bool {
		return f.Agent == agent && f.Kind == "agent: SIGSTOP" && f.Touches(from, to)
	})
}

// heartbeats: attempts are at most two intervals apart within a life and up to its end, but
// for the time in which the process or this program was not scheduled, the heartbeat itself
// was hit, or the agent had been told to end.
func (h *History) heartbeats() Finding {
	f := Finding{Invariant: fmt.Sprintf("heartbeats at most 2 × %s apart", h.Interval)}
	const allowance = 300 * time.Millisecond // for being noticed, and for a machine that is shared
	last := map[[2]int]Beat{}                // by agent and life
	longest := time.Duration(0)
	for _, b := range h.attempted() {
		before, known := last[[2]int{b.Agent, b.Life}]
		last[[2]int{b.Agent, b.Life}] = b
		if !known {
			continue
		}
		f.Checked++
		gap := b.At.Sub(before.At) / time.Duration(1+h.untold(before, b))
		if h.heartbeatHit(b.Agent, before.At, b.At) {
			continue
		}
		longest = max(longest, gap)
		if gap > 2*h.Interval+allowance+h.stalled(before.At, b.At) {
			f.breach("agent %d, life %d: no heartbeat for %s from %s on", b.Agent, b.Life, gap.Round(time.Millisecond), stamp(before.At))
		}
	}
	for i := range h.Lives {
		l := &h.Lives[i]
		allowed, end := 2*h.Interval, l.due()
		from := last[[2]int{l.Agent, l.Number}].At
		if from.IsZero() {
			allowed, from = fewBeats*h.Interval, h.session(l)
		}
		if from.IsZero() || end.IsZero() {
			continue
		}
		f.Checked++
		gap := end.Sub(from)
		if h.heartbeatHit(l.Agent, from, end) || h.cutOff(l.Agent, from, end) {
			continue // beats that nobody but the agent could see count when it tells of them later
		}
		longest = max(longest, gap)
		if gap > allowed+allowance+h.stalled(from, end) {
			f.breach("agent %d, life %d: no heartbeat for %s from %s on, up to its end", l.Agent, l.Number, gap.Round(time.Millisecond), stamp(from))
		}
	}
	f.Note = fmt.Sprintf("longest gap %s", longest.Round(time.Millisecond))
	return f
}

// fewBeats is in how many intervals after its session a life has to have attempted one.
const fewBeats = 4

// due is until when a life has to do all that it should; zero: it has not ended.
func (l *Life) due() time.Time {
	if !l.Told.IsZero() && (l.To.IsZero() || l.Told.Before(l.To)) {
		return l.Told
	}
	return l.To
}

// session is when a life was first told its session; zero: it was not.
func (h *History) session(l *Life) time.Time {
	for i := range h.Exchanges {
		if x := &h.Exchanges[i]; x.Agent == l.Agent && x.Life == l.Number && x.Call == CallRegister && x.Whole && x.Given/100 == 2 {
			return x.To
		}
	}
	return time.Time{}
}

// untold is how many heartbeats an agent counted between two that follow each other for all
// that was seen: it may have been too busy to tell, and its network cut.
func (h *History) untold(before, after Beat) int {
	var from, to *Beat // that the agent itself told, around the two
	for i := range h.Beats {
		switch b := &h.Beats[i]; {
		case b.Agent != before.Agent || b.Life != before.Life:
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
func (h *History) attempted() []Beat {
	type life struct{ agent, number int }
	beats, first := slices.Clone(h.Beats), map[life]time.Time{}
	for _, b := range slices.Backward(h.Beats) {
		first[life{b.Agent, b.Life}] = b.At
	}
	for i := range h.Exchanges {
		x := &h.Exchanges[i]
		if begun, known := first[life{x.Agent, x.Life}]; x.Call == CallHeartbeat && known && !x.From.Before(begun) {
			beats = append(beats, Beat{Agent: x.Agent, Life: x.Life, At: x.From})
		}
	}
	slices.SortStableFunc(beats, func(a, b Beat) int { return a.At.Compare(b.At) })
	return beats
}

func (h *History) heartbeatHit(agent int, from, to time.Time) bool {
	return slices.ContainsFunc(h.Faults, func(f Injected) bool {
		hits := f.Kind == "agent: SIGSTOP" || strings.HasPrefix(f.Kind, "actor: ") && f.Actor == "agent/heartbeat"
		return f.Agent == agent && hits && f.Touches(from, to)
	})
}

// stalled is for how long this program was not scheduled in a stretch of time.
func (h *History) stalled(from, to time.Time) (sum time.Duration) {
	for _, s := range h.Stalls {
		if s.Touches(from, to) {
			sum += s.To.Sub(s.From)
		}
	}
	return sum
}

// nothingOutlives: 2 s after an agent's end nothing of it runs or listens.
func (h *History) nothingOutlives() Finding {
	f := Finding{Invariant: "nothing outlives the agent by 2 s"}
	longest := time.Duration(0)
	for _, l := range h.Lives {
		if l.To.IsZero() {
			continue
		}
		f.Checked++
		longest = max(longest, l.Emptied)
		if len(l.Survivors) > 0 {
			f.breach("agent %d, life %d, ended %s (%s): %s", l.Agent, l.Number, stamp(l.To), l.Exit, strings.Join(l.Survivors, ", "))
		}
	}
	f.Note = fmt.Sprintf("longest %s", longest.Round(time.Millisecond))
	return f
}

// cleanedUp: a life removes what dead ones left.
func (h *History) cleanedUp() Finding {
	f := Finding{Invariant: "the next life cleans up"}
	longest := time.Duration(0)
	for _, c := range h.Cleaned {
		f.Checked += c.Things
		longest = max(longest, c.After)
		if len(c.Left) > 0 {
			f.breach("agent %d, life %d, has left after %s: %s", c.Agent, c.Life, c.After.Round(time.Second), strings.Join(c.Left, ", "))
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
func (h *History) requeued() Finding {
	f := Finding{Invariant: fmt.Sprintf("an interrupted job is re-queued within %s of the restart", requeueWithin)}
	var delays []time.Duration
	anew := 0
	excuses := map[string]int{}
	phases := map[string]int{}
	for _, killed := range h.Faults {
		if killed.Kind != killInAJob || killed.Seen == "" {
			continue
		}
		phase, _, _ := strings.Cut(killed.Seen, ":")
		phases[phase]++
		next := h.nextLife(killed.Agent, killed.From)
		if killed.Hit.Job == "" || next == nil {
			f.Excused++
			continue
		}
		due := next.From.Add(requeueWithin)
		taken := slices.IndexFunc(h.Exchanges, func(x Exchange) bool {
			// The job was seen in a status that may have been as old as the look before.
			return x.Agent == killed.Agent && x.Result != nil && x.Attempt() == killed.Hit && x.Answered != 0 && x.To.After(killed.From.Add(-lookInterval))
		})
		switch {
		case taken >= 0 && h.Exchanges[taken].To.Before(next.From): // its result was on its way already
			f.Excused++
		case taken >= 0 && h.Exchanges[taken].To.Before(due):
			f.Checked++
			delays = append(delays, h.Exchanges[taken].To.Sub(next.From))
		case phase == "prepare" && (taken >= 0 && h.Exchanges[taken].Result.Status == protocol.StatusCompleted || h.killedAgain(killed)):
			f.Checked++ // killed before anything of it was on disk: found at the master, and begun anew
			anew++
		case !next.To.IsZero() && next.To.Before(due):
			f.Excused++
			excuses["its next life ended"]++
		case h.disturbed(killed, next.From, due) != "":
			f.Excused++
			excuses[h.disturbed(killed, next.From, due)]++
		case h.stalled(next.From, due) > 0:
			f.Excused++
			excuses["this program stood still"]++
		default:
			f.Checked++
			f.breach("agent %d was killed at job %s, attempt %d, and began anew at %s: not reported by %s", killed.Agent, killed.Hit.Job, killed.Hit.Number, stamp(next.From), stamp(due))
		}
	}
	slices.Sort(delays)
	if len(delays) > 0 {
		f.Note = fmt.Sprintf("median %s, longest %s, %d begun anew; killed in %s",
			delays[len(delays)/2].Round(time.Millisecond), delays[len(delays)-1].Round(time.Millisecond), anew, tally(phases))
	}
	if excused := tally(excuses); excused != "" {
		f.Note += "; excused: " + excused
	}
	return f
}

// killedAgain reports whether a later life was killed at the same attempt, which it had
// begun anew then.
func (h *History) killedAgain(killed Injected) bool {
	return slices.ContainsFunc(h.Faults, func(f Injected) bool {
		return f.Kind == killInAJob && f.Agent == killed.Agent && f.Hit == killed.Hit && f.From.After(killed.From)
	})
}

// nextLife is the first that an agent began after a moment.
func (h *History) nextLife(agent int, after time.Time) *Life {
	for i := range h.Lives {
		if l := &h.Lives[i]; l.Agent == agent && l.From.After(after) {
			return l
		}
	}
	return nil
}

// disturbed names what touches a stretch of time, beside kills in a job, and is in the way of
// the agent that a fault hit, or of its master; empty: nothing is.
func (h *History) disturbed(hit Injected, from, to time.Time) string {
	for _, f := range h.Faults {
		concerns := f.Agent == hit.Agent || strings.HasPrefix(f.Kind, "master: ")
		if f.Number != hit.Number && f.Kind != killInAJob && concerns && f.Touches(from, to) {
			return f.Kind
		}
	}
	return ""
}

func tally(counts map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(all, ", ")
}

// outputsWhole: what stands under a final name is complete, and a job that completed has
// its output.
func (h *History) outputsWhole() Finding {
	f := Finding{Invariant: "an output is complete or absent"}
	stood := map[string]bool{}
	for _, o := range h.Outputs {
		f.Checked++
		stood[o.Path] = true
		if o.Problem != "" {
			f.breach("%s of job %s: %s", o.Path, o.Job, o.Problem)
		}
	}
	for _, j := range h.sortedJobs() {
		if j.Status == protocol.StatusCompleted && j.Output != "" && !stood[j.Output] {
			f.breach("job %s completed, and %s was never there", j.ID, j.Output)
		}
	}
	return f
}

// What an agent at rest may hold above its first rest.
const (
	moreGoroutines  = 6
	moreDescriptors = 6
	moreThreads     = 20
	moreHeap        = 24 << 20
	moreResident    = 64 << 20
	moreDisk        = 16 << 20
)

// levelsReturn: an agent at rest holds no more than when it first rested, and nothing that
// only a job needs.
func (h *History) levelsReturn() Finding {
	f := Finding{Invariant: "what the agent holds returns to its level"}
	first, last := map[int]Level{}, map[int]Level{}
	var most Level
	for _, sensors := range h.Blind {
		f.breach("not read again after the last fault: %s", sensors)
	}
	for _, l := range h.Rest {
		last[l.Agent] = l
		if len(l.Temporary) > 0 {
			f.breach("agent %d, life %d, at rest at %s: %s", l.Agent, l.Life, stamp(l.At), strings.Join(l.Temporary, ", "))
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
			{"goroutines", int64(base.Goroutines), int64(l.Goroutines), moreGoroutines, 1, nil},
			{"descriptors", int64(base.Descriptors), int64(l.Descriptors), moreDescriptors, 1, nil},
			{"threads", int64(base.Threads), int64(l.Threads), moreThreads, 1, nil},
			{"KiB of heap", base.Heap, l.Heap, moreHeap, 1 << 10, nil},
			{"KiB resident", base.Resident, l.Resident, moreResident, 1 << 10, nil},
			{"KiB of disk", base.Disk, l.Disk, moreDisk, 1 << 10, nil},
		} {
			f.Checked++
			if c.now > c.base+c.allowed {
				f.breach("agent %d, life %d, at rest at %s: %d %s, at first %d", l.Agent, l.Life, stamp(l.At), c.now/c.unit, c.what, c.base/c.unit)
			}
		}
		most.Goroutines, most.Descriptors = max(most.Goroutines, l.Goroutines-base.Goroutines), max(most.Descriptors, l.Descriptors-base.Descriptors)
		most.Threads, most.Resident = max(most.Threads, l.Threads-base.Threads), max(most.Resident, l.Resident-base.Resident)
	}
	f.Note = fmt.Sprintf("at most %+d goroutines, %+d descriptors, %+d threads, %+d MiB", most.Goroutines, most.Descriptors, most.Threads, most.Resident>>20)
	for _, n := range slices.Sorted(maps.Keys(first)) {
		a, b := first[n], last[n]
		f.Note += fmt.Sprintf("; agent %d, first to last: %d → %d goroutines, %d → %d descriptors, %.1f → %.1f MiB of heap, %d → %d MiB resident",
			n, a.Goroutines, b.Goroutines, a.Descriptors, b.Descriptors, float64(a.Heap)/(1<<20), float64(b.Heap)/(1<<20), a.Resident>>20, b.Resident>>20)
	}
	return f
}

// noStorm: heartbeats come as often as they should and little more, so that no timer has
// been left behind by a restart. Registering, and the heartbeat's own restart, beat once.
func (h *History) noStorm() Finding {
	f := Finding{Invariant: "no more heartbeats than are due"}
	const allowance = 5
	for _, l := range h.Lives {
		beats, extra := 0, 0
		for i := range h.Exchanges {
			x := &h.Exchanges[i]
			if x.Agent == l.Agent && x.Life == l.Number {
				beats += count(x.Call == CallHeartbeat)
				extra += count(x.Call == CallRegister)
			}
		}
		end := l.To
		if end.IsZero() {
			end = h.end(l.From)
		}
		for _, fault := range h.Faults {
			extra += count(fault.Agent == l.Agent && fault.Touches(l.From, end) && strings.HasPrefix(fault.Kind, "actor: "))
		}
		f.Checked++
		due := int(end.Sub(l.From)/h.Interval) + extra + allowance
		if beats > due+due/4 {
			f.breach("agent %d, life %d, from %s to %s: %d heartbeats, %d are due", l.Agent, l.Number, stamp(l.From), stamp(end), beats, due)
		}
	}
	return f
}

func count(holds bool) int {
	if holds {
		return 1
	}
	return 0
}

// end is when the last request ended, and no earlier than a moment.
func (h *History) end(last time.Time) time.Time {
	for i := range h.Exchanges {
		if to := h.Exchanges[i].To; to.After(last) {
			last = to
		}
	}
	return last
}

// triedOften is how often a kind of fault has to be played before it means something that
// none of them was seen to have an effect.
const triedOften = 4

// allShow: an agent that does what it should shows the effect of each kind of fault.
func (h *History) allShow() Finding {
	f := Finding{Invariant: "each kind of fault has its effect"}
	for _, t := range h.Tallies() {
		f.Checked++
		if t.Seen == 0 && t.Played-t.Idle >= triedOften {
			f.breach("%s was played %d times and never seen: %s", t.Kind, t.Played, t.Why)
		}
	}
	return f
}
