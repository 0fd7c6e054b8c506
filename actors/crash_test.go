package actors

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

// TestACrashStaysWhereItIs crashes each actor of the tree while a job runs: it is
// back soon, its restart is counted, nobody but its own children is touched,
// heartbeats go on, and the job's FFmpeg survives.
func TestACrashStaysWhereItIs(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	job := s.submit(ffmpegtest.Long())
	pid := s.ffmpegPID(job.ID)
	begun := time.Now()

	for _, path := range []string{
		"agent/uploader", "agent/registrar", "agent/heartbeat", "agent/samplers", "agent/samplers/rapl",
		"agent/samplers/host", "agent/meter", "agent/janitor", "agent/poller", "agent/jobs", "agent",
	} {
		t.Run(path, func(t *testing.T) {
			before := s.restarts()
			crashed := time.Now()
			must(t, s.agent.Crash(path))
			s.until("the restart of "+path, func() bool {
				stats, ok := s.stats(path)
				return ok && stats.State == supervision.Running && stats.Restarts == before[path]+1
			})
			t.Logf("back after %s", time.Since(crashed).Round(time.Millisecond))
			for other, restarts := range s.restarts() {
				if other != path && restarts != before[other] {
					t.Errorf("%s was restarted as well", other)
				}
			}
			if err := syscall.Kill(pid, 0); err != nil {
				t.Fatalf("FFmpeg did not survive: %v", err)
			}
		})
	}
	s.checkBeats(begun)
	// The job is still led to its end: the actor that adopted it stops it when told.
	s.post("/jobs/" + job.ID + "/cancel")
	if r := s.result(job.ID, 1); r.Status != protocol.StatusCanceled || r.EnergyJoules == nil {
		t.Errorf("status %s, joules %v", r.Status, r.EnergyJoules)
	}
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
}

func (s *site) restarts() map[string]int {
	all := map[string]int{}
	for _, a := range s.agent.Actors() {
		if !a.Temporary {
			all[a.Path] = a.Restarts
		}
	}
	return all
}

func TestACrashedJobIsReportedAsFailed(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	job := s.submit(ffmpegtest.Long())
	pid := s.ffmpegPID(job.ID)
	for _, a := range s.agent.Actors() {
		if a.Parent == "agent/jobs" {
			must(t, s.agent.Crash(a.Path))
		}
	}
	r := s.result(job.ID, 1)
	if r.Status != protocol.StatusFailed || r.FailureReason != protocol.ReasonPlatformError {
		t.Errorf("status %s, reason %s: %s", r.Status, r.FailureReason, r.Error)
	}
	s.until("FFmpeg's end", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	s.await("the second attempt", func(e devmaster.Event) bool {
		return e.Kind == devmaster.JobAssigned && e.JobID == job.ID && e.Attempt == 2
	})
}

// TestAHungActorIsReplaced hangs each actor but the heartbeat in an agent of its own: it is
// replaced, counted, and the job's FFmpeg survives.
func TestAHungActorIsReplaced(t *testing.T) {
	for _, path := range []string{
		"agent/uploader", "agent/registrar", "agent/samplers", "agent/samplers/rapl", "agent/samplers/host",
		"agent/meter", "agent/janitor", "agent/poller", "agent/jobs",
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, func(c *siteConfig) { c.hangAfter = time.Second })
			job := s.submit(ffmpegtest.Long())
			pid := s.ffmpegPID(job.ID)
			hung := time.Now()
			must(t, s.agent.Hang(path, 3*time.Second))
			s.until("the replacement of "+path, func() bool {
				stats, ok := s.stats(path)
				return ok && stats.State == supervision.Running && stats.Abandoned == 1
			})
			t.Logf("replaced after %s", time.Since(hung).Round(10*time.Millisecond))
			if err := syscall.Kill(pid, 0); err != nil {
				t.Fatalf("FFmpeg did not survive: %v", err)
			}
			s.post("/jobs/" + job.ID + "/cancel")
			if r := s.result(job.ID, 1); r.Status != protocol.StatusCanceled {
				t.Errorf("status %s", r.Status)
			}
			s.checkBeats(hung)
		})
	}
}

func TestAHungHeartbeatEndsTheAgent(t *testing.T) {
	t.Parallel()
	fatal := make(chan string, 1)
	s := newSite(t, func(c *siteConfig) {
		c.hangAfter = 500 * time.Millisecond
		c.fatal = func(reason string) { fatal <- reason }
	})
	s.until("a heartbeat", func() bool { return s.agent.Board().Heartbeat() != nil })
	must(t, s.agent.Hang("agent/heartbeat", 2*time.Second))
	select {
	case reason := <-fatal:
		if !strings.Contains(reason, "heartbeat") {
			t.Errorf("the reason is %q", reason)
		}
	case <-time.After(hang):
		t.Error("the agent goes on without heartbeats")
	}
	if s.agent.Live() == nil {
		t.Error("the watchdog would still be fed")
	}
}
