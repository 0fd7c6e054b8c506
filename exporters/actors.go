package exporters

import (
	"maps"
	"slices"
	"strings"

	"ffmpeg-agent/messages"
)

func (c *agentCollector) updateActors(m *metrics, actors []messages.ActorStatus) {
	c.actors.add(actors)
	for _, name := range slices.Sorted(maps.Keys(c.actors.byName)) {
		t := c.actors.byName[name]
		m.gauge(c.actor.running, float64(t.running), name)
		m.gauge(c.actor.mailbox, float64(t.mailbox), name)
		m.counter(c.actor.restarts, float64(t.restarts), name)
		m.counter(c.actor.abandoned, float64(t.abandoned), name)
		m.counter(c.actor.failures, float64(t.failures), name)
		m.counter(c.actor.dropped, float64(t.dropped), name)
	}
}

// actorTotals accumulates the counters of actors by name. All job actors share one name,
// because they are temporary; their counters must not go back when one of them ends.
type actorTotals struct {
	byName map[string]*actorTotal
	seen   map[string]messages.ActorStatus // by path, to add only increments
}

type actorTotal struct {
	running, mailbox                       int
	restarts, abandoned, failures, dropped int
}

func newActorTotals() actorTotals {
	return actorTotals{byName: map[string]*actorTotal{}}
}

func (t *actorTotals) add(actors []messages.ActorStatus) {
	for _, total := range t.byName {
		total.running, total.mailbox = 0, 0
	}
	seen := make(map[string]messages.ActorStatus, len(actors))
	for _, a := range actors {
		name := actorName(a.Path)
		total := t.byName[name]
		if total == nil {
			total = &actorTotal{}
			t.byName[name] = total
		}
		if a.State == "running" {
			total.running++
		}
		total.mailbox += a.MailboxDepth
		before := t.seen[a.Path]
		total.restarts += max(a.Restarts-before.Restarts, 0)
		total.abandoned += max(a.Abandoned-before.Abandoned, 0)
		total.failures += max(a.Failures-before.Failures, 0)
		total.dropped += max(a.Dropped-before.Dropped, 0)
		seen[a.Path] = a
	}
	t.seen = seen
}

// actorName returns the actor's path with "job" in place of each job's name.
func actorName(path string) string {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if strings.HasPrefix(part, "job-") {
			parts[i] = "job"
		}
	}
	return strings.Join(parts, "/")
}
