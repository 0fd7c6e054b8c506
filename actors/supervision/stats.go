package supervision

import (
	"cmp"
	"slices"
	"time"
)

// State of an actor.
type State string

// The states of an actor.
const (
	Running    State = "running"
	Restarting State = "restarting" // crashed; the next incarnation has not started
	Hung       State = "hung"       // does not answer its probe
	Stopping   State = "stopping"
	Stopped    State = "stopped"
)

// ActorStats describes one actor. Its counters never decrease, not even when its supervisor
// restarts.
type ActorStats struct {
	Path          string // names from the root, joined by "/"
	Parent        string // path of the supervisor; "" at the root
	State         State
	Restarts      int // after crashes
	Abandoned     int // incarnations that hung
	Failures      int // panics and Goexits, including those of goroutines
	Dropped       int // messages sent to the actor while it was stopped, or queued when it stopped
	MailboxDepth  int // messages waiting
	LastFailure   string
	LastFailureAt time.Time // zero if there was none
}

// Stats returns the state of all actors, sorted by path. It does not wait for any actor. It includes actors that
// stopped with their supervisor or by StopInOrder, until an incarnation of the supervisor has handled
// *actor.Started without spawning them again.
func (s *System) Stats() []ActorStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := make([]ActorStats, 0, len(s.children))
	for _, r := range s.children {
		stats = append(stats, r.currentStats())
	}
	slices.SortFunc(stats, func(a, b ActorStats) int { return cmp.Compare(a.Path, b.Path) })
	return stats
}

// currentStats is called with System.mu held.
func (r *Ref) currentStats() ActorStats {
	stats := r.stats
	stats.State = r.state()
	r.mu.Lock()
	defer r.mu.Unlock()
	stats.Dropped, stats.MailboxDepth = r.dropped, len(r.queue)
	return stats
}

func (r *Ref) state() State {
	i := r.current
	switch {
	case i == nil:
		return Stopped
	case i.abandoned || r.sys.overdue(i):
		return Hung
	case i.phase == running:
		return Running
	case i.phase == crashed || !i.stopped:
		return Restarting
	}
	return Stopping
}

// Lookup returns the Ref of the actor at a path of names joined by "/", and false
// if Stats has none there.
func (s *System) Lookup(path string) (*Ref, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.children[path]
	return r, ok
}
