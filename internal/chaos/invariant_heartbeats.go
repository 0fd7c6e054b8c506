package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// checkHeartbeatGaps: attempts are at most two intervals apart within a process and up to its end, but
// for the time in which the process or this program was not scheduled, the heartbeat itself
// was hit, or the agent had been asked to end.
func (h *History) checkHeartbeatGaps() Finding {
	f := Finding{Invariant: fmt.Sprintf("heartbeats at most 2 × %s apart", h.HeartbeatInterval)}
	const allowance = 300 * time.Millisecond // for being noticed, and for a machine that is shared
	last := map[[2]int]Heartbeat{}           // by agent and process
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
			f.violate("agent %d, process #%d: no heartbeat for %s from %s on", b.Agent, b.Process, gap.Round(time.Millisecond), timestamp(before.At))
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
			continue // heartbeats that only the agent could see count when its status lists them later
		}
		longest = max(longest, gap)
		if gap > allowed+allowance+h.stalledFor(from, end) {
			f.violate("agent %d, process #%d: no heartbeat for %s from %s on, up to its end", l.Agent, l.Number, gap.Round(time.Millisecond), timestamp(from))
		}
	}
	f.Note = fmt.Sprintf("longest gap %s", longest.Round(time.Millisecond))
	return f
}

// firstHeartbeatIntervals is in how many intervals after its session a process has to have attempted one.
const firstHeartbeatIntervals = 4

// activeUntil is until when a process has to do all that it should; zero: it has not ended.
func (l *Process) activeUntil() time.Time {
	if !l.StopRequested.IsZero() && (l.To.IsZero() || l.StopRequested.Before(l.To)) {
		return l.StopRequested
	}
	return l.To
}

// registeredAt is when a process first received its session; zero: it did not.
func (h *History) registeredAt(l *Process) time.Time {
	for i := range h.Exchanges {
		if x := &h.Exchanges[i]; x.Agent == l.Agent && x.Process == l.Number && x.Call == CallRegister && x.Delivered && x.AgentStatus/100 == 2 {
			return x.To
		}
	}
	return time.Time{}
}

// unseenHeartbeats is how many heartbeats an agent counted between two that follow each other for all
// that was seen: it may have been too busy to answer, and its network cut.
func (h *History) unseenHeartbeats(before, after Heartbeat) int {
	var from, to *Heartbeat // that the agent's own status lists, around the two
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

// heartbeatAttempts are the heartbeats that agents attempted, by their status and by what
// came to the proxies: at times one of the two sees nothing. What came before a process's status had
// a heartbeat may be of the previous process: a network brings what a dead process has sent.
func (h *History) heartbeatAttempts() []Heartbeat {
	type process struct{ agent, number int }
	heartbeats, first := slices.Clone(h.Heartbeats), map[process]time.Time{}
	for _, b := range slices.Backward(h.Heartbeats) {
		first[process{b.Agent, b.Process}] = b.At
	}
	for i := range h.Exchanges {
		x := &h.Exchanges[i]
		if begun, known := first[process{x.Agent, x.Process}]; x.Call == CallHeartbeat && known && !x.From.Before(begun) {
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

// checkHeartbeatRate: heartbeats come as often as they should and little more, so that no timer has
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
			f.violate("agent %d, process #%d, from %s to %s: %d heartbeats, %d are due", l.Agent, l.Number, timestamp(l.From), timestamp(end), heartbeats, due)
		}
	}
	return f
}

// lastActivity is when the last request ended, and no earlier than a moment.
func (h *History) lastActivity(last time.Time) time.Time {
	for i := range h.Exchanges {
		if to := h.Exchanges[i].To; to.After(last) {
			last = to
		}
	}
	return last
}
