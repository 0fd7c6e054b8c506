package actors

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

func (s *site) drained() {
	s.t.Helper()
	select {
	case <-s.agent.Done():
	case <-time.After(hang):
		s.t.Fatalf("the drain did not end\nlog: %s", s.tail())
	}
	for _, late := range s.agent.Late() {
		s.t.Errorf("%s did not stop in time (%s)\nlog: %s", late.Name, late.Phase, s.tail())
	}
}

func TestDrainFinishesTheJobAndTakesNoOther(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	first := s.submit(ffmpegtest.Lasting(t, 3))
	s.ffmpegPID(first.ID)
	second := s.submit(ffmpegtest.Quick())
	begun := time.Now()
	s.agent.Drain(hang)
	s.drained()
	if r := s.result(first.ID, 1); r.Status != protocol.StatusCompleted {
		t.Errorf("the running job ended as %s: %s", r.Status, r.Error)
	}
	if job, _ := s.master().Job(second.ID); job.Status.HeldByNode() || job.Status.Terminal() {
		t.Errorf("a job was taken while draining: %s", job.Status)
	}
	s.checkBeats(begun)
}

func TestDrainSurvivesCrashOfJobsAndRoot(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"agent/jobs", "agent"} {
		t.Run(path, func(t *testing.T) {
			s := newSite(t, nil)
			job := s.submit(ffmpegtest.Long())
			s.ffmpegPID(job.ID)
			s.agent.Drain(time.Hour)
			s.until("the drain", func() bool { return s.agent.env.stop.drainOf("jobs") != nil })
			must(t, s.agent.Crash(path))
			s.until("the restart", func() bool { stats, _ := s.stats(path); return stats.Restarts == 1 })
			s.until("the job's adoption", func() bool { return s.logs.FilterMessage("going on with a running job").Len() == 1 })
			s.post("/jobs/" + job.ID + "/cancel")
			s.drained()
			if r := s.result(job.ID, 1); r.Status != protocol.StatusCanceled {
				t.Errorf("status %s", r.Status)
			}
		})
	}
}

func TestStopJobsReturnsTheJob(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	job := s.submit(ffmpegtest.Long())
	s.ffmpegPID(job.ID)
	s.agent.Drain(time.Hour)
	s.agent.StopJobs()
	s.drained()
	r := s.result(job.ID, 1)
	if r.Status != protocol.StatusFailed || r.FailureReason != protocol.ReasonPlatformError {
		t.Errorf("status %s, reason %s: %s", r.Status, r.FailureReason, r.Error)
	}
}

func TestDrainStopsJobsAtItsTimeout(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	job := s.submit(ffmpegtest.Long())
	s.ffmpegPID(job.ID)
	s.agent.Drain(100 * time.Millisecond)
	s.drained()
	if r := s.result(job.ID, 1); r.FailureReason != protocol.ReasonPlatformError {
		t.Errorf("reason %s", r.FailureReason)
	}
}

func TestDrainWithoutMasterKeepsTheResult(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	job := s.submit(ffmpegtest.Long())
	s.ffmpegPID(job.ID)
	s.link.cut()
	s.agent.Drain(0)
	s.drained()
	unsent, err := s.journal.Unsent()
	must(t, err)
	if len(unsent) != 1 || unsent[0].Lease.Job.ID != job.ID {
		t.Errorf("unsent results: %d", len(unsent))
	}
}

func TestLowDiskTakesNoJobs(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *siteConfig) { c.MinFreeDisk = func(total uint64) uint64 { return total + 1 } })
	job := s.submit(ffmpegtest.Quick())
	s.until("the closed gate", func() bool {
		return s.agent.Board().Gates()[gateDisk] != "" && s.logs.FilterMessage("taking no jobs").Len() > 0
	})
	from := time.Now()
	s.until("heartbeats", func() bool { return len(s.beatsSince(from)) >= 3 })
	if job, _ := s.master().Job(job.ID); job.Status.HeldByNode() {
		t.Error("a job was taken onto a full disk")
	}
}

func TestMissingFFmpegTakesNoJobs(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	s := newSite(t, func(c *siteConfig) { c.ffmpeg = filepath.Join(bin, "ffmpeg") })
	job := s.submit(ffmpegtest.Quick())
	s.until("the closed gate", func() bool { return strings.Contains(s.agent.Board().Gates()[gateFFmpeg], bin) })
	if job, _ := s.master().Job(job.ID); job.Status.HeldByNode() {
		t.Error("a job was taken without FFmpeg")
	}
	// Once installed it is found without a restart.
	real, err := exec.LookPath("ffmpeg")
	must(t, err)
	must(t, os.Symlink(real, filepath.Join(bin, "ffmpeg")))
	s.result(job.ID, 1)
}

// TestDrainSurvivesRestartsOfItsActors: poller and uploader restart while they drain.
func TestDrainSurvivesRestartsOfItsActors(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"agent/poller", "agent/uploader"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil)
			s.until("the session", func() bool { return s.agent.Board().Session() != nil })
			called, release := make(chan struct{}), make(chan struct{})
			var once sync.Once
			held := map[string]string{"agent/poller": "/jobs/next", "agent/uploader": "/results"}[path]
			s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == held {
					once.Do(func() { close(called) })
					select {
					case <-release:
					case <-r.Context().Done():
					}
				}
				next.ServeHTTP(w, r)
			})
			letGo := sync.OnceFunc(func() { close(release) })
			t.Cleanup(letGo)
			if path == "agent/uploader" {
				s.submit(ffmpegtest.Quick())
			}
			<-called // a call is in flight, so the drain cannot be ready at once
			s.agent.Drain(time.Hour)
			s.until("the drain", func() bool { return s.agent.env.stop.drainOf(filepath.Base(path)) != nil })
			must(t, s.agent.Crash(path))
			s.until("the restart", func() bool { stats, _ := s.stats(path); return stats.Restarts == 1 })
			letGo()
			s.drained()
		})
	}
}
