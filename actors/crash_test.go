package actors

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// TestCrashRestartsOneActor crashes each actor while a job runs. It restarts and is
// counted, no other actor but its children restarts, heartbeats go on, and FFmpeg survives.
func TestCrashRestartsOneActor(t *testing.T) {
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
	// The job can still be canceled and reported.
	s.post("/jobs/" + job.ID + "/cancel")
	if r := s.result(job.ID, 1); r.Status != protocol.StatusCanceled || r.EnergyJoules == nil {
		t.Errorf("status %s, joules %v", r.Status, r.EnergyJoules)
	}
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
}

func (s *site) restarts() map[string]int {
	all := map[string]int{}
	for _, a := range s.agent.Actors() {
		if a.Parent != "agent/jobs" {
			all[a.Path] = a.Restarts
		}
	}
	return all
}

// jobActor waits for the actor of the only running job and returns its path.
func (s *site) jobActor() (path string) {
	s.t.Helper()
	s.until("the actor of the job", func() bool {
		for _, a := range s.agent.Actors() {
			if a.Parent == "agent/jobs" && a.State == supervision.Running {
				path = a.Path
			}
		}
		return path != ""
	})
	return path
}

func TestJobSurvivesCrashOfItsActor(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	submitted := s.submit(ffmpegtest.Lasting(t, 2))
	pid := s.ffmpegPID(submitted.ID)
	path := s.jobActor()
	must(t, s.agent.Crash(path))
	s.until("the restart", func() bool { stats, ok := s.stats(path); return ok && stats.Restarts == 1 })
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("FFmpeg did not survive: %v", err)
	}
	if r := s.result(submitted.ID, 1); r.Status != protocol.StatusCompleted {
		t.Errorf("got status %s (%s), want completed", r.Status, r.Error)
	}
}

// panics is a run whose check panics once.
type panics struct {
	Run
	once *sync.Once
}

func (r panics) Check(ctx context.Context) error {
	r.once.Do(func() { panic("on purpose") })
	return r.Run.Check(ctx)
}

type panickingRunner struct {
	Runner
	once *sync.Once
}

func (r panickingRunner) Begin(l job.Lease) Run { return panics{r.Runner.Begin(l), r.once} }

func TestPanicInAJobFailsItAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSite(t, func(c *siteConfig) {
		c.dir = dir
		c.wrap = func(p *Dependencies) { p.Runner = panickingRunner{p.Runner, new(sync.Once)} }
	})
	submitted := s.submit(ffmpegtest.Quick())
	r := s.result(submitted.ID, 1)
	if r.Status != protocol.StatusFailed || r.FailureReason != protocol.ReasonPlatformError || !strings.Contains(r.Error, "on purpose") {
		t.Errorf("got status %s, reason %s: %s; want failed, platform_error", r.Status, r.FailureReason, r.Error)
	}
	if r := s.result(submitted.ID, 2); r.Status != protocol.StatusCompleted {
		t.Errorf("second attempt: got status %s: %s", r.Status, r.Error)
	}
	s.until("the removal of the workspaces", func() bool {
		left, err := filepath.Glob(filepath.Join(dir, "work", "*"))
		must(t, err)
		return len(left) == 0
	})
	for path, n := range s.restarts() {
		if n > 0 {
			t.Errorf("%s was restarted %d times", path, n)
		}
	}
	s.until("the end of the attempts", func() bool { return len(s.agent.shared.attempts.list()) == 0 })
	// Nothing asks for the lease of a job that has ended. A watcher would within 100 ms.
	var asked atomic.Int64
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/jobs/") && r.URL.Path != "/jobs/next" {
			asked.Add(1)
		}
		next.ServeHTTP(w, r)
	})
	from := time.Now()
	s.until("some heartbeats", func() bool { return len(s.beatsSince(from)) >= 4 })
	if n := asked.Load(); n > 0 {
		t.Errorf("the lease of an ended job was asked for %d times, want 0", n)
	}
}

// TestHungActorIsReplaced hangs each actor but the heartbeat, in an agent of its own. It is
// replaced and counted, and FFmpeg survives.
func TestHungActorIsReplaced(t *testing.T) {
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

func TestHungHeartbeatEndsTheAgent(t *testing.T) {
	t.Parallel()
	fatal := make(chan string, 1)
	s := newSite(t, func(c *siteConfig) {
		c.hangAfter = 500 * time.Millisecond
		c.fatal = func(reason string) { fatal <- reason }
	})
	s.until("a heartbeat", func() bool { return s.agent.Snapshots().Heartbeat() != nil })
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

// TestEndOfJobSurvivesCrashOfItsActor: the actor of a job crashes while the end of the
// attempt waits for jobs, which hangs.
func TestEndOfJobSurvivesCrashOfItsActor(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	submitted := s.submit(ffmpegtest.Long())
	s.ffmpegPID(submitted.ID)
	path, running := s.jobActor(), s.agent.shared.attempts.list()[0]
	must(t, s.agent.Hang("agent/jobs", 3*time.Second))
	s.post("/jobs/" + submitted.ID + "/cancel")
	s.until("the end of the attempt", running.ended)
	must(t, s.agent.Crash(path))
	if r := s.result(submitted.ID, 1); r.Status != protocol.StatusCanceled {
		t.Errorf("got status %s, want canceled", r.Status)
	}
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
}
