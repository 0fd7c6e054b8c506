package exporters

import (
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// BuildInfo says what was built.
type BuildInfo struct {
	Version  string
	Revision string // of the source; "" when unknown
}

// agentCollector exports how the agent itself fares.
type agentCollector struct {
	status   func() messages.Status
	snapshot func() *energy.Snapshot
	build    BuildInfo
	actors   actorTotals

	buildInfo, started, up                  *prometheus.Desc
	registered, ready, check, draining      *prometheus.Desc
	slots, phases, outcomes                 *prometheus.Desc
	delivered, superseded, deadLetters      *prometheus.Desc
	heartbeats, heartbeatAge, heartbeatLast *prometheus.Desc
	records, oldest                         *prometheus.Desc
	power                                   *prometheus.Desc
	actor                                   actorDescs
	sampler                                 samplerDescs
}

type actorDescs struct {
	running, mailbox                       *prometheus.Desc
	restarts, abandoned, failures, dropped *prometheus.Desc
}

type samplerDescs struct {
	up, zones, age, samples, faults *prometheus.Desc
	gaps, zoneFaults                *prometheus.Desc
}

// NewAgent collects for port 9091 from the agent's status and from the energy ledger's
// latest snapshot, which may be nil while there is none.
func NewAgent(status func() messages.Status, snapshot func() *energy.Snapshot, build BuildInfo) prometheus.Collector {
	var d describer
	c := &agentCollector{
		status: status, snapshot: snapshot, build: build, actors: newActorTotals(),

		buildInfo: d.desc("ffmpeg_agent_build_info", "What was built, and with which Go.", "version", "revision", "goversion"),
		started:   d.desc("ffmpeg_agent_start_time_seconds", "When the agent started, as Unix time."),
		up:        d.desc("ffmpeg_agent_uptime_seconds", "Time since the agent started."),

		registered: d.desc("ffmpeg_agent_registered", "Whether the agent has a session with its master."),
		ready:      d.desc("ffmpeg_agent_ready", "Whether the agent would take a job now: all checks pass."),
		check:      d.desc("ffmpeg_agent_check_passed", "Whether a precondition of taking a job holds; /ready has the reasons.", "check"),
		draining:   d.desc("ffmpeg_agent_draining", "Whether the agent finishes its jobs and takes no more."),

		slots:       d.desc("ffmpeg_agent_job_slots", "Jobs that may run at once."),
		phases:      d.desc("ffmpeg_agent_jobs_active", "Jobs under way, by how far they are.", "phase"),
		outcomes:    d.desc("ffmpeg_agent_jobs_total", "Jobs that ended with a result, by what it says.", "outcome"),
		delivered:   d.desc("ffmpeg_agent_results_delivered_total", "Results that the master took."),
		superseded:  d.desc("ffmpeg_agent_superseded_total", "Attempts discarded because the master had given the job away, running or waiting to be sent."),
		deadLetters: d.desc("ffmpeg_agent_dead_letters_total", "Results that the master refused for good."),

		heartbeats:    d.desc("ffmpeg_agent_heartbeats_total", "Heartbeats, by whether the master answered well.", "result"),
		heartbeatAge:  d.desc("ffmpeg_agent_heartbeat_age_seconds", "Time since the last heartbeat that the master answered well."),
		heartbeatLast: d.desc("ffmpeg_agent_heartbeat_last_attempt_age_seconds", "Time since a heartbeat was last attempted."),

		records: d.desc("ffmpeg_agent_journal_records", "Attempts in the journal, by how far they are.", "state"),
		oldest:  d.desc("ffmpeg_agent_journal_oldest_unsent_age_seconds", "Age of the oldest result that the master has not taken yet; absent when there is none."),
		power:   d.desc("ffmpeg_agent_power_watts", "Power of the machine's counted zones, measured or estimated.", "source"),

		actor: actorDescs{
			running:   d.desc("ffmpeg_agent_actor_running", "Whether the actor runs, neither hung nor waiting for its restart; of job, how many do.", "actor"),
			mailbox:   d.desc("ffmpeg_agent_actor_mailbox_depth", "Messages that wait for the actor.", "actor"),
			restarts:  d.desc("ffmpeg_agent_actor_restarts_total", "Restarts of the actor after crashes.", "actor"),
			abandoned: d.desc("ffmpeg_agent_actor_abandoned_total", "Times that the actor hung and was replaced.", "actor"),
			failures:  d.desc("ffmpeg_agent_actor_failures_total", "Crashes of the actor and of work it started.", "actor"),
			dropped:   d.desc("ffmpeg_agent_actor_dropped_messages_total", "Messages to the actor that were lost.", "actor"),
		},
		sampler: samplerDescs{
			up:         d.desc("ffmpeg_agent_sampler_up", "Whether the sampler reads its sensors.", "sampler", "source"),
			zones:      d.desc("ffmpeg_agent_sampler_zones", "Energy zones that the sampler reads.", "sampler"),
			age:        d.desc("ffmpeg_agent_sampler_age_seconds", "Time since the sampler's last sample.", "sampler"),
			samples:    d.desc("ffmpeg_agent_sampler_samples_total", "Samples that the sampler brought.", "sampler"),
			faults:     d.desc("ffmpeg_agent_sampler_faults_total", "Readings of a zone that failed.", "sampler"),
			gaps:       d.desc("ffmpeg_agent_energy_gaps_total", "Times that the energy used between two readings of the zone could not be told.", "zone", "id"),
			zoneFaults: d.desc("ffmpeg_agent_energy_faults_total", "Readings of the zone that failed.", "zone", "id"),
		},
	}
	return newCollector("agent", d.all, c.update)
}

// NewRuntime collects the figures of the process and of Go's runtime in it.
func NewRuntime() []prometheus.Collector {
	return []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
}

func (c *agentCollector) update(m *metrics) {
	s := c.status()
	m.gauge(c.buildInfo, 1, c.build.Version, c.build.Revision, runtime.Version())
	if !s.StartedAt.IsZero() {
		m.gauge(c.started, float64(s.StartedAt.UnixMilli())/1000)
		m.gauge(c.up, s.At.Sub(s.StartedAt).Seconds())
	}
	c.updateReadiness(m, &s)
	c.updateJobs(m, &s)
	c.updateHeartbeat(m, &s)
	c.updateJournal(m, &s)
	c.updateActors(m, s.Actors)
	c.updateSamplers(m, &s)
	if s.Power != nil {
		m.gauge(c.power, float64(*s.Power), string(s.Source))
	}
}

func (c *agentCollector) updateReadiness(m *metrics, s *messages.Status) {
	ready := true
	for _, check := range preconditions(s) {
		ready = ready && check.OK()
		m.flag(c.check, check.OK(), check.Name)
	}
	m.flag(c.ready, ready)
	m.flag(c.registered, s.Session != nil)
	m.flag(c.draining, s.Draining)
}

func (c *agentCollector) updateJobs(m *metrics, s *messages.Status) {
	m.gauge(c.slots, float64(s.Slots))
	phases := map[job.Phase]int{
		job.PhasePrepare: 0, job.PhaseRun: 0, job.PhaseCheck: 0, job.PhaseQuality: 0, job.PhaseJournal: 0,
	}
	for _, j := range s.Jobs {
		phases[j.Phase]++
	}
	for phase, jobs := range phases {
		m.gauge(c.phases, float64(jobs), string(phase))
	}
	m.counter(c.outcomes, float64(s.Counts.Completed), "completed")
	m.counter(c.outcomes, float64(s.Counts.Failed), "failed")
	m.counter(c.outcomes, float64(s.Counts.Canceled), "canceled")
	m.counter(c.delivered, float64(s.Counts.Delivered))
	m.counter(c.superseded, float64(s.Counts.Superseded))
	m.counter(c.deadLetters, float64(s.Counts.DeadLetters))
}

func (c *agentCollector) updateHeartbeat(m *metrics, s *messages.Status) {
	h := s.Heartbeat
	if h == nil {
		return
	}
	m.counter(c.heartbeats, float64(h.Sent), "sent")
	m.counter(c.heartbeats, float64(h.Failed), "failed")
	m.since(c.heartbeatAge, s.At, h.LastSuccess)
	m.since(c.heartbeatLast, s.At, h.LastAttempt)
}

func (c *agentCollector) updateJournal(m *metrics, s *messages.Status) {
	j := s.Journal
	m.gauge(c.records, float64(j.Unfinished), "unfinished")
	m.gauge(c.records, float64(j.Unsent), "unsent")
	m.gauge(c.records, float64(j.Sent), "sent")
	m.gauge(c.records, float64(j.Superseded), "superseded")
	m.gauge(c.records, float64(j.DeadLetters), "dead_letter")
	m.since(c.oldest, s.At, j.OldestAt)
}

// since is a gauge of the age of something that has happened.
func (m *metrics) since(d *prometheus.Desc, now time.Time, then *time.Time, labels ...string) {
	if then != nil && !then.IsZero() {
		m.gauge(d, max(now.Sub(*then), 0).Seconds(), labels...)
	}
}

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

func (c *agentCollector) updateSamplers(m *metrics, s *messages.Status) {
	for _, h := range s.Samplers {
		if h.Absent != "" {
			continue
		}
		m.flag(c.sampler.up, h.Error == "", h.Name, h.Source)
		m.gauge(c.sampler.zones, float64(h.Zones), h.Name)
	}
	snapshot := c.snapshot()
	if snapshot == nil {
		return
	}
	for name, state := range snapshot.Samplers {
		m.since(c.sampler.age, s.At, &state.At, name)
		m.counter(c.sampler.samples, float64(state.Samples), name)
		m.counter(c.sampler.faults, float64(state.Faults), name)
	}
	for i, name := range zoneNames(snapshot) {
		z := &snapshot.Zones[i]
		m.counter(c.sampler.gaps, float64(z.Gaps), name, z.ID)
		m.counter(c.sampler.zoneFaults, float64(z.Faults), name, z.ID)
	}
}

// actorTotals adds up actors by what they are: one each, but for those of single jobs,
// which come and go and are one together.
type actorTotals struct {
	byName map[string]*actorTotal
	seen   map[string]messages.ActorStatus // by path, to add only what is new
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

// actorName is the actor's path, less the ids of jobs in it.
func actorName(path string) string {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if strings.HasPrefix(part, "job-") {
			parts[i] = "job"
		}
	}
	return strings.Join(parts, "/")
}
