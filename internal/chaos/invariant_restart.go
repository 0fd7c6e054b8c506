package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// checkNothingOutlives: 2 s after an agent's end nothing of it runs or listens.
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
			f.violate("agent %d, process #%d, ended %s (%s): %s", l.Agent, l.Number, timestamp(l.To), l.Exit, strings.Join(l.Survivors, ", "))
		}
	}
	f.Note = fmt.Sprintf("longest %s", longest.Round(time.Millisecond))
	return f
}

// checkCleanup: a process removes what dead ones left.
func (h *History) checkCleanup() Finding {
	f := Finding{Invariant: "the next process cleans up"}
	longest := time.Duration(0)
	for _, c := range h.Cleanups {
		f.Checked += c.Items
		longest = max(longest, c.Took)
		if len(c.Remaining) > 0 {
			f.violate("agent %d, process #%d, has left after %s: %s", c.Agent, c.Process, c.Took.Round(time.Second), strings.Join(c.Remaining, ", "))
		}
	}
	f.Note = fmt.Sprintf("longest %s", longest.Round(time.Millisecond))
	return f
}

// requeueWithin is how long after its start a process may take to have the master take what
// the one before it was killed at.
const requeueWithin = 2 * time.Second

// checkRequeued: what a killed agent was at work on is reported by its next process at once, where
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
			excuses["the next process ended"]++
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

// killedAgain reports whether a later process was killed at the same attempt, which it had
// begun anew then.
func (h *History) killedAgain(killed InjectedFault) bool {
	return slices.ContainsFunc(h.Faults, func(f InjectedFault) bool {
		return f.Kind == killDuringJobKind && f.Agent == killed.Agent && f.Attempt == killed.Attempt && f.From.After(killed.From)
	})
}

// nextProcess is the first that an agent began after a moment.
func (h *History) nextProcess(agent int, after time.Time) *Process {
	for i := range h.Processes {
		if l := &h.Processes[i]; l.Agent == agent && l.From.After(after) {
			return l
		}
	}
	return nil
}

// otherFault names what touches a stretch of time, beside kills in a job, and is in the way of
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
