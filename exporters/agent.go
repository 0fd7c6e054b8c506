package exporters

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
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
	attempts, walls, energy                 *prometheus.Desc
	certificates                            *prometheus.Desc
	heartbeatLastAt, heartbeatAttemptAt     *prometheus.Desc
	oldestAt                                *prometheus.Desc
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
		outcomes:    d.desc("ffmpeg_agent_jobs_total", "Jobs by outcome; one that failed in several attempts counts once, and once more if it completed after that.", "outcome"),
		attempts:    d.desc("ffmpeg_agent_attempts_total", "Attempts at jobs that ended with a result, by outcome and, where they failed, by the failure reason reported to the master.", "outcome", "reason"),
		walls:       d.desc("ffmpeg_agent_encode_duration_seconds", "How long FFmpeg ran for an attempt, by outcome.", "outcome"),
		energy:      d.desc("ffmpeg_agent_job_energy_joules_total", "Energy charged to attempts at jobs, by codec and source (measured or estimated); attempts whose energy is unknown are not included.", "codec", "source"),
		inputBytes:  d.desc("ffmpeg_agent_input_bytes_total", "Size of the inputs of completed jobs; inputs of unknown size, such as streams, are not included."),
		outputBytes: d.desc("ffmpeg_agent_output_bytes_total", "Size of the outputs of completed jobs."),
		delivered:   d.desc("ffmpeg_agent_results_delivered_total", "Results accepted by the master."),
		superseded:  d.desc("ffmpeg_agent_superseded_total", "Attempts discarded, while running or before delivery, because the master had reassigned the job."),
		deadLetters: d.desc("ffmpeg_agent_dead_letters_total", "Results permanently rejected by the master."),

		heartbeats:    d.desc("ffmpeg_agent_heartbeats_total", "Heartbeats by result.", "result"),
		heartbeatAge:  d.desc("ffmpeg_agent_heartbeat_age_seconds", "Time since the last successful heartbeat."),
		heartbeatLast: d.desc("ffmpeg_agent_heartbeat_last_attempt_age_seconds", "Time since the last heartbeat attempt."),

		heartbeatLastAt:    d.desc("ffmpeg_agent_heartbeat_last_success_timestamp_seconds", "Time of the last successful heartbeat since the Unix epoch."),
		heartbeatAttemptAt: d.desc("ffmpeg_agent_heartbeat_last_attempt_timestamp_seconds", "Time of the last heartbeat attempt since the Unix epoch."),
		oldestAt:           d.desc("ffmpeg_agent_journal_oldest_unsent_timestamp_seconds", "When the oldest undelivered result was recorded, since the Unix epoch; absent if there is none."),
		certificates:       d.desc("ffmpeg_agent_certificate_expiry_timestamp_seconds", "When a certificate expires, since the Unix epoch: the master's as last presented, and this agent's own.", "certificate"),

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
	for _, cert := range s.Certificates {
		m.timestamp(c.certificates, &cert.ExpiresAt, cert.Name)
	}
	if s.Power != nil {
		m.gauge(c.power, float64(*s.Power), string(s.Source))
	}
}

// failureReasons have a series each from the start, so that a first failure is an increase.
var failureReasons = []protocol.FailureReason{
	protocol.ReasonCapabilityMismatch, protocol.ReasonUserError, protocol.ReasonInputError, protocol.ReasonNetworkError,
	protocol.ReasonTimeout, protocol.ReasonResourceError, protocol.ReasonPlatformError, protocol.ReasonRuntimeError,
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
	m.counter(c.outcomes, float64(s.Counts.JobsCompleted), "completed")
	m.counter(c.outcomes, float64(s.Counts.JobsFailed), "failed")
	m.counter(c.outcomes, float64(s.Counts.JobsCanceled), "canceled")
	m.counter(c.attempts, float64(s.Counts.Completed), "completed", "")
	m.counter(c.attempts, float64(s.Counts.Canceled), "canceled", "")
	for _, reason := range failureReasons {
		m.counter(c.attempts, float64(s.Counts.FailedByReason[reason]), "failed", string(reason))
	}
	for outcome, h := range s.Counts.Walls {
		m.histogram(c.walls, h, string(outcome))
	}
	for _, charged := range s.Counts.Energy {
		m.counter(c.energy, charged.Joules, charged.Codec, charged.Source)
	}
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
	m.timestamp(c.heartbeatLastAt, h.LastSuccess)
	m.timestamp(c.heartbeatAttemptAt, h.LastAttempt)
}

func (c *agentCollector) updateJournal(m *metrics, s *messages.Status) {
	j := s.Journal
	m.gauge(c.records, float64(j.Unfinished), "unfinished")
	m.gauge(c.records, float64(j.Unsent), "unsent")
	m.gauge(c.records, float64(j.Sent), "sent")
	m.gauge(c.records, float64(j.Superseded), "superseded")
	m.gauge(c.records, float64(j.DeadLetters), "dead_letter")
	m.age(c.oldest, s.At, j.OldestAt)
	m.timestamp(c.oldestAt, j.OldestAt)
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
