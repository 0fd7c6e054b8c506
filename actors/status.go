package actors

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// counts are totals since the agent started. They outlive restarts of actors.
type counts struct {
	completed, failed, canceled, superseded, delivered, deadLetters atomic.Uint64

	mu    sync.Mutex
	ended Ended
}

// Ended sums up the encodes that have ended, whatever their outcome.
type Ended struct {
	Frames, Dropped int64
	Media           time.Duration
}

// Ended returns the sum over all attempts that Status does not list any more.
func (a *Agent) Ended() Ended {
	c := &a.shared.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// left adds an attempt that has ended.
func (c *counts) left(e job.Encode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended.Frames += e.Progress.Frames // as while it ran
	c.ended.Dropped += e.Dropped
	c.ended.Media += e.Media
}

func (c *counts) count(e *job.Outcome) {
	switch {
	case e.Canceled:
		c.canceled.Add(1)
	case e.Failure != nil:
		c.failed.Add(1)
	default:
		c.completed.Add(1)
	}
}

func (c *counts) read() messages.Counts {
	return messages.Counts{
		Completed:   c.completed.Load(),
		Failed:      c.failed.Load(),
		Canceled:    c.canceled.Load(),
		Superseded:  c.superseded.Load(),
		Delivered:   c.delivered.Load(),
		DeadLetters: c.deadLetters.Load(),
	}
}

// Status returns the state of the agent. It waits for no actor, so that it answers even
// when one hangs.
func (a *Agent) Status() messages.Status {
	s := a.shared
	status := messages.Status{
		StartedAt: s.started,
		At:        time.Now(),
		Address:   s.Facts.Address,
		Session:   s.snapshots.Session(),
		Heartbeat: s.snapshots.Heartbeat(),
		Draining:  s.snapshots.Draining(),
		Slots:     s.settings.Load().Slots,
		Checks:    checks(s.snapshots.Gates()),
		Jobs:      jobStatuses(s.attempts.list(), s.snapshots.Energy()),
		Actors:    actorStatuses(a.system.Stats()),
		Samplers:  s.snapshots.Samplers(),
		Listeners: s.snapshots.listening(),
		Source:    energy.Unavailable,
		Journal:   s.Journal.Stats(),
		Counts:    s.counts.read(),
		Host:      s.snapshots.Host(),
	}
	if snapshot := s.snapshots.Energy(); snapshot != nil {
		if watts, source, known := snapshot.Power(); known {
			status.Power, status.Source = &watts, source
		}
	}
	return status
}

func (s *Snapshots) listening() []messages.ListenerHealth {
	all := []messages.ListenerHealth{}
	s.listeners.Range(func(name, why any) bool {
		all = append(all, messages.ListenerHealth{Name: name.(string), Error: why.(string)})
		return true
	})
	slices.SortFunc(all, func(a, b messages.ListenerHealth) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func checks(gates map[string]string) []messages.Check {
	all := []messages.Check{}
	for name, reason := range gates {
		all = append(all, messages.Check{Name: name, Reason: reason})
	}
	slices.SortFunc(all, func(a, b messages.Check) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func jobStatuses(attempts []*attempt, snapshot *energy.Snapshot) []messages.JobStatus {
	jobs := []messages.JobStatus{}
	for _, a := range attempts {
		state := a.run.Snapshot()
		encode, lease := state.Encode, a.currentLease()
		j := messages.JobStatus{
			Key: lease.Key(), Scenario: lease.Job.Scenario, Phase: state.Phase(), Encoder: encode.Encoder,
			Started: encode.Started, Progress: encode.Progress, Source: energy.Unavailable,
		}
		if state.Process != nil && encode.Exited == nil {
			j.PID = state.Process.PID
		}
		j.ETA = eta(&encode, j.Progress)
		if snapshot != nil {
			if cost, open := snapshot.Job(a.key.String()); open {
				j.Energy, j.Power, j.Source = cost.Energy, cost.Power, cost.Source
			}
		}
		jobs = append(jobs, j)
	}
	slices.SortFunc(jobs, func(a, b messages.JobStatus) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return jobs
}

// eta extrapolates the speed so far; nil before there is one.
func eta(e *job.Encode, p job.Progress) *time.Duration {
	if e.Started == nil || e.Exited != nil || p.Percent <= 0 || p.Percent > 100 {
		return nil
	}
	left := time.Duration(float64(p.At.Sub(*e.Started)) * (100 - p.Percent) / p.Percent)
	if left < 0 {
		return nil
	}
	return &left
}

func actorStatuses(stats []supervision.ActorStats) []messages.ActorStatus {
	all := make([]messages.ActorStatus, len(stats))
	for i, a := range stats {
		all[i] = messages.ActorStatus{
			Path: a.Path, State: string(a.State), Restarts: a.Restarts, Abandoned: a.Abandoned,
			Failures: a.Failures, MailboxDepth: a.MailboxDepth, Dropped: a.Dropped, LastFailure: a.LastFailure,
		}
		if !a.LastFailureAt.IsZero() {
			all[i].LastFailureAt = &a.LastFailureAt
		}
	}
	return all
}
