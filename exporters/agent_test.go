package exporters_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/exporters"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
)

func newAgent(s *messages.Status, snapshot *energy.Snapshot) prometheus.Collector {
	return exporters.NewAgent(func() messages.Status { return *s }, func() *energy.Snapshot { return snapshot },
		exporters.BuildInfo{Version: "1.2.3", Revision: "abc"})
}

func TestAgentScrape(t *testing.T) {
	snapshot := &energy.Snapshot{
		Zones: []energy.ZoneState{
			{Zone: &energy.Zone{ID: "intel-rapl:0", Name: "package-0"}, Gaps: 3, Faults: 4},
		},
		Samplers: map[string]energy.SamplerState{"rapl": {At: start.Add(59 * time.Second), Samples: 600, Faults: 4}},
	}
	s := status(encoding("job-a", 500))
	s.Actors = append(s.Actors,
		messages.ActorStatus{Path: "agent/jobs/job-secretid-1", State: "running", MailboxDepth: 2, Failures: 1},
		messages.ActorStatus{Path: "agent/jobs/job-other-2", State: "running", MailboxDepth: 1})
	s.Checks[0].Reason = "only 3 GiB free"
	s.LogLinesDropped = 12
	scrape := scrapeOf(t, newAgent(&s, snapshot))
	golden(t, "agent", scrape)
	lint(t, scrape)
	if strings.Contains(scrape, "secretid") || strings.Contains(scrape, "job-a") {
		t.Errorf("scrape contains a job ID:\n%s", scrape)
	}
}

func TestAgentScrapeAtStart(t *testing.T) {
	scrape := scrapeOf(t, newAgent(&messages.Status{At: start, Source: energy.Unavailable}, nil))
	golden(t, "agent_starting", scrape)
	wantAbsent(t, scrape, "ffmpeg_agent_heartbeat", "ffmpeg_agent_power", "ffmpeg_agent_journal_oldest", "ffmpeg_agent_sampler", "ffmpeg_agent_start")
	wantValue(t, scrape, "ffmpeg_agent_ready", "0")
}

func TestJobActorCountersSurviveTheActor(t *testing.T) {
	s := status()
	job := func(path string, failures int) messages.ActorStatus {
		return messages.ActorStatus{Path: path, State: "running", Failures: failures, MailboxDepth: 1}
	}
	server := serve(t, exporters.Config{Name: "agent", Collectors: []prometheus.Collector{newAgent(&s, nil)}})
	for _, step := range []struct {
		actors            []messages.ActorStatus
		failures, running string
	}{
		{[]messages.ActorStatus{job("agent/jobs/job-a-1", 1)}, "1", "1"},
		{[]messages.ActorStatus{job("agent/jobs/job-a-1", 2), job("agent/jobs/job-b-2", 1)}, "3", "2"},
		{[]messages.ActorStatus{job("agent/jobs/job-b-2", 1)}, "3", "1"},
		{nil, "3", "0"},
		{[]messages.ActorStatus{job("agent/jobs/job-c-3", 1)}, "4", "1"},
	} {
		s.Actors = step.actors
		scrape := server.scrape()
		wantValue(t, scrape, `ffmpeg_agent_actor_failures_total{actor="agent/jobs/job"}`, step.failures)
		wantValue(t, scrape, `ffmpeg_agent_actor_running{actor="agent/jobs/job"}`, step.running)
		wantValue(t, scrape, `ffmpeg_agent_actor_mailbox_depth{actor="agent/jobs/job"}`, step.running)
	}
}

func TestRuntimeMetrics(t *testing.T) {
	s := status()
	scrape := serve(t, exporters.Config{
		Name: "agent", Collectors: append(exporters.NewRuntime(), newAgent(&s, nil)),
	}).scrape()
	for _, name := range []string{"go_goroutines ", "process_open_fds ", "process_resident_memory_bytes "} {
		if !strings.Contains(scrape, "\n"+name) {
			t.Errorf("scrape lacks %s", name)
		}
	}
}
