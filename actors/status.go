package actors

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// Facts returns what is known of this node; proved: its encoders have been tried.
func (a *Agent) Facts() (facts messages.NodeFacts, proved bool) {
	if proved := a.shared.proved.Load(); proved != nil {
		return *proved, true
	}
	return a.shared.Facts, false
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
		Slots:     s.settings().Slots,
		Checks:    append(checks(s.snapshots.Gates()), s.masterChecks()...),
		Jobs:      jobStatuses(s.attempts.list(), s.snapshots.Energy()),
		Actors:    actorStatuses(a.system.Stats()),
		Samplers:  s.snapshots.Samplers(),
		Listeners: s.snapshots.listening(),
		Source:    energy.Unavailable,
		Journal:   s.Journal.Stats(),
		Counts:    s.counts.read(),

		LastCompleted: s.counts.lastCompleted.Load(),
		LastGenerated: s.counts.lastGenerated.Load(),

		Host: s.snapshots.Host(),

		Configuration: s.snapshots.configuration.Load(),
	}
	if c := s.snapshots.Containers(); c != nil {
		status.Engine = &messages.EngineStatus{Since: c.Since, Containers: len(c.Running), Error: c.Error, Absent: c.Absent}
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

// masterChecks report whether this node is registered and the master has answered lately.
func (s *shared) masterChecks() []messages.Check {
	registered, reachable := messages.Check{Name: "registered"}, messages.Check{Name: "master"}
	session := s.snapshots.Session()
	if session == nil {
		registered.Reason = "not registered with the master"
		if why := s.snapshots.unregistered.Load(); why != nil {
			registered.Reason += ": " + *why
		}
		return []messages.Check{registered, s.keyCheck()}
	}
	// A session may be resumed, that is, older than this process.
	heard := s.started
	if session.Since.After(heard) {
		heard = session.Since
	}
	why := "no response yet"
	if h := s.snapshots.Heartbeat(); h != nil {
		if h.LastSuccess != nil && h.LastSuccess.After(heard) {
			heard = *h.LastSuccess
		}
		if h.Error != "" {
			why = h.Error
		}
	}
	if silence, limit := age(heard), s.settings().UnavailableAfter; silence > limit {
		reachable.Reason = fmt.Sprintf("no heartbeat answered for %s, and after %s the master reassigns the jobs of this node (master.unavailable_after): %s",
			silence.Round(time.Second), limit, why)
	}
	return []messages.Check{registered, reachable, s.keyCheck()}
}

// keyCheck reports whether the master refuses the key of this agent. A configured key that is
// missing fails only where the master does not answer without one.
func (s *shared) keyCheck() messages.Check {
	check := messages.Check{Name: "key"}
	registered := s.snapshots.Session() != nil
	heartbeat := s.snapshots.Heartbeat()
	refused := heartbeat != nil && heartbeat.KeyRefused
	missing := s.settings().KeyProblem
	const rejected = "the master rejected this agent's API key: "
	if why := s.snapshots.refused.Load(); missing != "" && (!registered || refused) {
		check.Reason = missing
		check.Public = "no API key: the file of master.api_key_file cannot be used; agent status names it"
	} else if why != nil && !registered {
		check.Reason = rejected + *why
	} else if refused {
		check.Reason = rejected + heartbeat.Error
	}
	return check
}

func jobStatuses(attempts []*attempt, snapshot *energy.Snapshot) []messages.JobStatus {
	jobs := []messages.JobStatus{}
	for _, a := range attempts {
		state := a.run.Snapshot()
		encode, lease := state.Encode, a.currentLease()
		j := messages.JobStatus{
			Key: lease.Key(), Scenario: lease.Job.Scenario, Phase: state.Phase(), Encoder: encode.Encoder,
			Started: encode.Started, Progress: encode.Progress, Fetch: encode.Fetch, Source: energy.Unavailable,
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
func eta(e *job.Encode, p job.Progress) *job.Seconds {
	if e.Started == nil || e.Exited != nil || p.Percent <= 0 || p.Percent > 100 {
		return nil
	}
	left := job.Seconds(float64(p.At.Sub(*e.Started)) * (100 - p.Percent) / p.Percent)
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
