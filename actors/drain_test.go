package actors

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
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

func TestDrainIsUndone(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	first := s.submit(ffmpegtest.Long())
	s.ffmpegPID(first.ID)
	undo := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		defer cancel()
		must(t, s.agent.UndoDrain(ctx))
		if s.agent.Status().Draining {
			t.Error("the agent still drains")
		}
	}
	undo() // there is nothing to undo
	s.agent.Drain(time.Hour)
	undo() // while the poller stops
	s.agent.Drain(time.Hour)
	s.until("the drain", func() bool { return s.agent.shared.stop.drainOf("jobs") != nil })
	undo()
	second := s.submit(ffmpegtest.Quick())
	s.post("/jobs/" + first.ID + "/cancel")
	if r := s.result(second.ID, 1); r.Status != protocol.StatusCompleted {
		t.Errorf("the job after the drain ended as %s: %s", r.Status, r.Error)
	}
	s.agent.Drain(hang)
	s.drained()
	if err := s.agent.UndoDrain(t.Context()); !errors.Is(err, ErrTooLate) {
		t.Errorf("after the drain: got %v, want %v", err, ErrTooLate)
	}
}

func TestDrainSurvivesCrashOfJobsAndRoot(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"agent/jobs", "agent"} {
		t.Run(path, func(t *testing.T) {
			s := newSite(t, nil)
			job := s.submit(ffmpegtest.Long())
			s.ffmpegPID(job.ID)
			s.agent.Drain(time.Hour)
			s.until("the drain", func() bool { return s.agent.shared.stop.drainOf("jobs") != nil })
			must(t, s.agent.Crash(path))
			s.until("the restart", func() bool { stats, _ := s.stats(path); return stats.Restarts == 1 })
			s.until("the job's adoption", func() bool { return s.logs.FilterMessage("adopting a running job").Len() == 1 })
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
	s.until("the closed gate", func() bool {
		return s.agent.Snapshots().Gates()[gateDisk] != "" && s.logs.FilterMessage("taking no jobs").Len() > 0
	})
	s.takesNone()
}

// takesNone submits a job, and checks that it is not taken within three heartbeats, which are more
// than ten intervals between polls.
func (s *site) takesNone() protocol.Job {
	s.t.Helper()
	submitted, from := s.submit(ffmpegtest.Quick()), time.Now()
	s.until("heartbeats", func() bool { return len(s.beatsSince(from)) >= 3 })
	for _, e := range s.master().Events() { // it may be over already
		if e.Kind == devmaster.JobAssigned && e.JobID == submitted.ID {
			s.t.Errorf("the job was taken")
		}
	}
	return submitted
}

// hostWithInodes is the machine with other figures of inodes.
type hostWithInodes struct {
	Host
	free  atomic.Uint64
	total uint64
}

func (h *hostWithInodes) Look(ctx context.Context) (messages.HostStatus, error) {
	s, err := h.Host.Look(ctx)
	free := h.free.Load()
	s.InodesFree, s.InodesTotal = &free, &h.total
	return s, err
}

// TestFewInodesTakeNoJobs: a job that is taken with few inodes free would be stopped at once.
func TestFewInodesTakeNoJobs(t *testing.T) {
	t.Parallel()
	inodes := &hostWithInodes{total: 20_000}
	inodes.free.Store(job.InodesToStart(inodes.total) - 1)
	s := newSite(t, func(c *siteConfig) {
		c.MinFreeDisk = func(uint64) uint64 { return 1 }
		c.wrap = func(d *Dependencies) { inodes.Host = d.Host; d.Host = inodes }
	})
	gate := func() string { return s.agent.Snapshots().Gates()[gateDisk] }
	s.until("the closed gate", func() bool {
		return gate() == "399 inodes free on the disk of data_dir, 400 needed (none where jobs.min_free_disk is 0)"
	})
	waiting := s.takesNone()
	inodes.free.Add(1)
	s.result(waiting.ID, 1)
}

func TestMissingFFmpegTakesNoJobs(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	s := newSite(t, func(c *siteConfig) { c.ffmpeg = filepath.Join(bin, "ffmpeg") })
	job := s.submit(ffmpegtest.Quick())
	s.until("the closed gate", func() bool { return strings.Contains(s.agent.Snapshots().Gates()[gateFFmpeg], bin) })
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
			s.until("the session", func() bool { return s.agent.Snapshots().Session() != nil })
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
			s.until("the drain", func() bool { return s.agent.shared.stop.drainOf(filepath.Base(path)) != nil })
			must(t, s.agent.Crash(path))
			s.until("the restart", func() bool { stats, _ := s.stats(path); return stats.Restarts == 1 })
			letGo()
			s.drained()
		})
	}
}

// slowJournal holds the reading of unsent results.
type slowJournal struct {
	Journal
	hold func()
}

func (j slowJournal) Unsent() ([]job.Record, error) {
	j.hold()
	return j.Journal.Unsent()
}

// TestDrainWaitsForRestartedUploader: the disk is slow when the uploader
// restarts, and the drain comes before the journal was read.
func TestDrainWaitsForRestartedUploader(t *testing.T) {
	t.Parallel()
	var reads atomic.Int64
	reading, release := make(chan struct{}), make(chan struct{})
	s := newSite(t, func(c *siteConfig) {
		c.wrap = func(p *Dependencies) {
			p.Journal = slowJournal{p.Journal, func() {
				if reads.Add(1) == 2 {
					close(reading)
					<-release
				}
			}}
		}
	})
	var cut atomic.Bool
	cut.Store(true)
	s.link.interfere(onResults(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if cut.Load() {
			hangUp(w)
			return
		}
		next.ServeHTTP(w, r)
	}))
	submitted := s.submit(ffmpegtest.Quick())
	s.until("a failed delivery", func() bool { return s.logs.FilterMessage("could not deliver a result").Len() > 0 })
	cut.Store(false)
	must(t, s.agent.Crash("agent/uploader"))
	<-reading
	s.agent.Drain(time.Hour)
	s.until("the uploader's drain", func() bool { return s.agent.shared.stop.drainOf("uploader") != nil })
	close(release)
	s.drained()
	if r := s.settled(submitted, 1); r.State != job.RecordSent {
		t.Errorf("got %s, want sent", r.State)
	}
}

// TestDrainStartsNoWaitingLease: a job ends after the drain began and before jobs is asked
// to drain, which waits for a call of the poller.
func TestDrainStartsNoWaitingLease(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.until("the session", func() bool { return s.agent.Snapshots().Session() != nil })
	first := s.submit(ffmpegtest.Long())
	s.ffmpegPID(first.ID)
	second := s.submit(ffmpegtest.Long())
	// The master assigns the second job too, and the response goes to nobody.
	resp, err := http.Get(s.link.URL + "/jobs/next?node_id=" + s.agent.Snapshots().Session().NodeID)
	must(t, err)
	resp.Body.Close()
	var listed atomic.Int64
	held, release := make(chan struct{}), make(chan struct{})
	hold := sync.OnceFunc(func() { close(held) })
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/jobs" && listed.Add(1) == 2 {
			hold()
			<-release
		}
		next.ServeHTTP(w, r)
	})
	letGo := sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo)
	s.agent.shared.refs.poller.Tell(&messages.FindLeases{})
	s.until("the first look for leases", func() bool { return listed.Load() >= 1 })
	s.agent.shared.refs.poller.Tell(&messages.FindLeases{})
	<-held // jobs has the second lease waiting, and a call of the poller is in flight
	s.agent.Drain(time.Hour)
	s.agent.shared.attempts.list()[0].run.Stop(job.StopCanceled)
	s.until("the end of the first job", func() bool {
		list := s.agent.shared.attempts.list()
		return len(list) == 0 || list[0].key.JobID != first.ID
	})
	letGo()
	s.drained()
	if r := s.result(second.ID, 1); !strings.Contains(r.Error, "returned unstarted") {
		t.Errorf("the waiting job ended as %s (%s), want it returned unstarted", r.Status, r.Error)
	}
}
