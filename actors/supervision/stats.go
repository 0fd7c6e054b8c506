package supervision

import (
	"cmp"
	"slices"
	"time"
)

// State is how an actor is.
type State string

// The states of an actor.
const (
	Running    State = "running"
	Restarting State = "restarting" // it crashed and waits for its restart, or is in it
	Hung       State = "hung"       // it does not answer
	Stopping   State = "stopping"
	Stopped    State = "stopped"
)

// ActorStats is how one role in the tree does. The counters only ever grow, also
// over restarts of the parent; those of Temporary actors go with them.
type ActorStats struct {
	Name              string
	Path              string // names from the root, joined by "/"
	Parent            string // path; "" for a root
	Temporary         bool
	State             State
	Restarts          int // after crashes
	Abandoned         int // times an incarnation that hung was abandoned
	Failures          int // panics of all kinds, those of goroutines among them
	GoroutineFailures int // of work started by Go
	Goroutines        int // started by Go and running
	Dropped           int // messages lost: told to nobody, to a stopping or to a hung actor
	MailboxDepth      int // messages waiting
	LastFailure       string
	LastFailureAt     time.Time // zero when there was none
}

// Stats returns the state of all roles, sorted by path. It waits for no actor.
func (s *System) Stats() []ActorStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := make([]ActorStats, 0, len(s.roles))
	for _, r := range s.roles {
		stats = append(stats, s.statsOf(r))
	}
	slices.SortFunc(stats, func(a, b ActorStats) int { return cmp.Compare(a.Path, b.Path) })
	return stats
}

func (s *System) statsOf(r *role) ActorStats {
	stats := ActorStats{
		Name:              r.name,
		Path:              r.path,
		Parent:            r.parent,
		Temporary:         r.spec.Temporary,
		State:             Stopped,
		Restarts:          r.restarts,
		Abandoned:         r.abandoned,
		Failures:          r.failures,
		GoroutineFailures: r.goroutineFailures,
		Dropped:           int(r.drops.Load()),
		LastFailure:       r.lastFailure,
		LastFailureAt:     r.lastFailureAt,
	}
	if c := r.cell.Load(); c != nil {
		stats.State = s.stateOf(c)
		stats.Goroutines = c.goroutines
		stats.MailboxDepth = c.mailbox.UserMessageCount()
	}
	return stats
}

func (s *System) stateOf(c *cell) State {
	switch {
	case c.finished:
		return Stopped
	case c.abandoned.Load() || s.overdue(c):
		return Hung
	}
	switch phase(c.phase.Load()) {
	case failed, restarting:
		return Restarting
	case stopping:
		return Stopping
	case stopped:
		return Stopped
	}
	return Running
}
