package exporters

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// BuildInfo identifies the agent's build.
type BuildInfo struct {
	Version  string
	Revision string // source revision, "" if unknown
}

// agentCollector exports the state of the agent itself.
type agentCollector struct {
	status   func() messages.Status
	snapshot func() *energy.Snapshot
	build    BuildInfo
	actors   actorTotals

	buildInfo, started, up                  *prometheus.Desc
	registered, ready, check, draining      *prometheus.Desc
	slots, phases, outcomes                 *prometheus.Desc
	inputBytes, outputBytes                 *prometheus.Desc
	delivered, superseded, deadLetters      *prometheus.Desc
	heartbeats, heartbeatAge, heartbeatLast *prometheus.Desc
	records, oldest                         *prometheus.Desc
	power, logDropped                       *prometheus.Desc
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

// NewAgent returns the collector of port 9091. snapshot returns the latest snapshot of the
// energy ledger, or nil if there is none yet.
func NewAgent(status func() messages.Status, snapshot func() *energy.Snapshot, build BuildInfo) prometheus.Collector {
	var d describer
	c := &agentCollector{
		status: status, snapshot: snapshot, build: build, actors: newActorTotals(),

		buildInfo: d.desc("ffmpeg_agent_build_info", "A metric with a constant value of 1, labeled with the agent's version, source revision and Go version.", "version", "revision", "goversion"),
		started:   d.desc("ffmpeg_agent_start_time_seconds", "Start time of the agent since the Unix epoch."),
		up:        d.desc("ffmpeg_agent_uptime_seconds", "Time since the agent started."),

		registered: d.desc("ffmpeg_agent_registered", "Whether the agent has a session with the master."),
		ready:      d.desc("ffmpeg_agent_ready", "Whether the agent would take a job now, that is, all checks pass."),
		check:      d.desc("ffmpeg_agent_check_passed", "Whether a precondition for taking jobs is met; /ready lists the reasons.", "check"),
		draining:   d.desc("ffmpeg_agent_draining", "Whether the agent is draining: finishing its jobs without taking new ones."),

		slots:       d.desc("ffmpeg_agent_job_slots", "Number of jobs that can run at the same time."),
		phases:      d.desc("ffmpeg_agent_jobs_active", "Running jobs by phase.", "phase"),
		outcomes:    d.desc("ffmpeg_agent_jobs_total", "Jobs that ended with a result, by outcome.", "outcome"),
		inputBytes:  d.desc("ffmpeg_agent_input_bytes_total", "Size of the inputs of completed jobs; inputs of unknown size, such as streams, are not included."),
		outputBytes: d.desc("ffmpeg_agent_output_bytes_total", "Size of the outputs of completed jobs."),
		delivered:   d.desc("ffmpeg_agent_results_delivered_total", "Results accepted by the master."),
		superseded:  d.desc("ffmpeg_agent_superseded_total", "Attempts discarded, while running or before delivery, because the master had reassigned the job."),
		deadLetters: d.desc("ffmpeg_agent_dead_letters_total", "Results permanently rejected by the master."),

		heartbeats:    d.desc("ffmpeg_agent_heartbeats_total", "Heartbeats by result.", "result"),
		heartbeatAge:  d.desc("ffmpeg_agent_heartbeat_age_seconds", "Time since the last successful heartbeat."),
		heartbeatLast: d.desc("ffmpeg_agent_heartbeat_last_attempt_age_seconds", "Time since the last heartbeat attempt."),

		records: d.desc("ffmpeg_agent_journal_records", "Attempts in the journal by state.", "state"),
		oldest:  d.desc("ffmpeg_agent_journal_oldest_unsent_age_seconds", "Age of the oldest undelivered result; absent if there is none."),
		power:   d.desc("ffmpeg_agent_power_watts", "Total power of the counted energy zones, measured or estimated.", "source"),

		logDropped: d.desc("ffmpeg_agent_log_lines_dropped_total", "Log lines dropped because the output did not accept them."),

		actor: actorDescs{
			running:   d.desc("ffmpeg_agent_actor_running", "Whether the actor is running, i.e. neither hung nor waiting to restart; for job actors, the number running.", "actor"),
			mailbox:   d.desc("ffmpeg_agent_actor_mailbox_depth", "Messages queued in the actor's mailbox.", "actor"),
			restarts:  d.desc("ffmpeg_agent_actor_restarts_total", "Restarts of the actor after a crash.", "actor"),
			abandoned: d.desc("ffmpeg_agent_actor_abandoned_total", "Times the actor hung and was replaced.", "actor"),
			failures:  d.desc("ffmpeg_agent_actor_failures_total", "Crashes of the actor and of goroutines it started.", "actor"),
			dropped:   d.desc("ffmpeg_agent_actor_dropped_messages_total", "Messages to the actor that were dropped.", "actor"),
		},
		sampler: samplerDescs{
			up:         d.desc("ffmpeg_agent_sampler_up", "Whether the sampler can read its sensors.", "sampler", "source"),
			zones:      d.desc("ffmpeg_agent_sampler_zones", "Number of energy zones read by the sampler.", "sampler"),
			age:        d.desc("ffmpeg_agent_sampler_age_seconds", "Time since the sampler's last sample.", "sampler"),
			samples:    d.desc("ffmpeg_agent_sampler_samples_total", "Samples taken by the sampler.", "sampler"),
			faults:     d.desc("ffmpeg_agent_sampler_faults_total", "Failed zone readings of the sampler.", "sampler"),
			gaps:       d.desc("ffmpeg_agent_energy_gaps_total", "Times the energy between two readings of the zone could not be determined.", "zone", "id"),
			zoneFaults: d.desc("ffmpeg_agent_energy_faults_total", "Failed readings of the zone.", "zone", "id"),
		},
	}
	return newCollector("agent", d.all, c.update)
}

// NewRuntime returns the standard collectors for the process and the Go runtime.
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
	m.counter(c.logDropped, float64(s.LogLinesDropped))
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
		job.PhasePrepare: 0, job.PhaseFetch: 0, job.PhaseRun: 0, job.PhaseCheck: 0, job.PhaseQuality: 0, job.PhaseJournal: 0,
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
	m.counter(c.inputBytes, float64(s.Counts.InputBytes))
	m.counter(c.outputBytes, float64(s.Counts.OutputBytes))
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
	m.age(c.heartbeatAge, s.At, h.LastSuccess)
	m.age(c.heartbeatLast, s.At, h.LastAttempt)
}

func (c *agentCollector) updateJournal(m *metrics, s *messages.Status) {
	j := s.Journal
	m.gauge(c.records, float64(j.Unfinished), "unfinished")
	m.gauge(c.records, float64(j.Unsent), "unsent")
	m.gauge(c.records, float64(j.Sent), "sent")
	m.gauge(c.records, float64(j.Superseded), "superseded")
	m.gauge(c.records, float64(j.DeadLetters), "dead_letter")
	m.age(c.oldest, s.At, j.OldestAt)
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
		m.age(c.sampler.age, s.At, &state.At, name)
		m.counter(c.sampler.samples, float64(state.Samples), name)
		m.counter(c.sampler.faults, float64(state.Faults), name)
	}
	for i, name := range zoneNames(snapshot) {
		z := &snapshot.Zones[i]
		m.counter(c.sampler.gaps, float64(z.Gaps), name, z.ID)
		m.counter(c.sampler.zoneFaults, float64(z.Faults), name, z.ID)
	}
}
