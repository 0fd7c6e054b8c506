package actors

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/messages/job"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

func TestJobEndToEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	submitted := s.submit(map[string]any{"resolution": "640x480", "duration": 5, "preset": "ultrafast", "fps": 30})
	r := s.result(submitted.ID, 1)

	if r.Status != protocol.StatusCompleted || r.Progress != 100 || r.Error != "" {
		t.Errorf("status %s, progress %d, error %q", r.Status, r.Progress, r.Error)
	}
	for key, want := range map[string]any{
		protocol.MetricFrames: 150.0, protocol.MetricResolution: "640x480",
		protocol.MetricPixelsProcessed: 150.0 * 640 * 480, protocol.MetricMediaDuration: 5.0,
	} {
		if r.Metrics[key] != want {
			t.Errorf("metric %s is %v, want %v", key, r.Metrics[key], want)
		}
	}
	_, raw, _ := s.master().Result(submitted.ID)
	var sent struct {
		Analysis struct {
			Energy struct {
				Total struct {
					Joules   *float64 `json:"joules"`
					Source   string   `json:"source"`
					Coverage float64  `json:"coverage_percent"`
					Bound    *float64 `json:"error_bound_joules"`
				} `json:"total"`
			} `json:"energy"`
		} `json:"analyzer_output"`
	}
	must(t, json.Unmarshal(raw, &sent))
	total := sent.Analysis.Energy.Total
	if total.Joules == nil || *total.Joules <= 0 || total.Bound == nil || total.Source == "unavailable" || total.Coverage < 90 {
		t.Errorf("energy is %+v", total)
	}
	if r.EnergyJoules == nil || r.EfficiencyScore == nil {
		t.Errorf("energy_joules %v, efficiency_score %v", r.EnergyJoules, r.EfficiencyScore)
	}

	key := job.Key{JobID: submitted.ID, Attempt: 1}
	s.until("the result's settling", func() bool {
		record, found, err := s.journal.Record(key)
		must(t, err)
		return found && record.State == job.RecordSent
	})
	s.until("the workspace's removal", func() bool { return len(s.agent.shared.attempts.list()) == 0 })
}

func TestWorkspacesAreRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSite(t, func(c *siteConfig) { c.dir = dir })
	submitted := s.submit(ffmpegtest.Quick())
	s.result(submitted.ID, 1)
	s.until("the run's end", func() bool { return len(s.agent.shared.attempts.list()) == 0 })
	left, err := filepath.Glob(filepath.Join(dir, "work", "*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestFreeSlotPollsAtOnce: only the polls after the registration and after each job happen
// within the interval, which is for an idle agent.
func TestFreeSlotPollsAtOnce(t *testing.T) {
	t.Parallel()
	link := newLink(t)
	m := newMaster(t, devmaster.Config{FenceAttempts: true})
	s := newSite(t, func(c *siteConfig) { c.link, c.PollInterval = link, time.Hour })
	var ids []string
	for range 3 {
		submitted, err := m.Submit(protocol.JobRequest{Parameters: ffmpegtest.Quick()})
		must(t, err)
		ids = append(ids, submitted.ID)
	}
	link.connect(m)
	for _, id := range ids {
		s.result(id, 1)
	}
}

func TestSlotsRunInParallel(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *siteConfig) { c.Slots = 2 })
	a, b := s.submit(ffmpegtest.Long()), s.submit(ffmpegtest.Long())
	if s.ffmpegPID(a.ID) == s.ffmpegPID(b.ID) {
		t.Error("two jobs share a process")
	}
	s.until("power of both jobs", func() bool {
		snapshot := s.agent.Snapshots().Energy()
		return snapshot != nil && len(snapshot.Jobs) == 2 && snapshot.Jobs[0].Energy != nil && snapshot.Jobs[1].Energy != nil
	})
}

func TestKilledFFmpegIsReportedWithItsSignal(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	submitted := s.submit(ffmpegtest.Long())
	pid := s.ffmpegPID(submitted.ID)
	if jobs := s.agent.Status().Jobs; len(jobs) != 1 || jobs[0].PID != pid {
		t.Errorf("the status shows %+v, want a job whose FFmpeg has pid %d", jobs, pid)
	}
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	r := s.result(submitted.ID, 1)
	if r.FailureReason != protocol.ReasonRuntimeError || !strings.Contains(r.Error, "SIGKILL") {
		t.Errorf("reason %s, error %q", r.FailureReason, r.Error)
	}
	s.await("the second attempt", func(e devmaster.Event) bool {
		return e.Kind == devmaster.JobAssigned && e.JobID == submitted.ID && e.Attempt == 2
	})
}

func TestBadJobsFailWithTheirReason(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	text := filepath.Join(t.TempDir(), "notes.txt")
	must(t, os.WriteFile(text, []byte("no film at all\n"), 0o600))
	passwd, err := os.ReadFile("/etc/passwd")
	must(t, err)
	for name, test := range map[string]struct {
		request protocol.JobRequest
		want    protocol.FailureReason
	}{
		"missing input":   {protocol.JobRequest{Parameters: map[string]any{"input": "/nowhere/film.mp4"}}, protocol.ReasonInputError},
		"text as input":   {protocol.JobRequest{Parameters: map[string]any{"input": text}}, protocol.ReasonInputError},
		"unknown codec":   {protocol.JobRequest{Parameters: map[string]any{"codec": "h299"}}, protocol.ReasonCapabilityMismatch},
		"gstreamer":       {protocol.JobRequest{Engine: "gstreamer", Parameters: ffmpegtest.Quick()}, protocol.ReasonCapabilityMismatch},
		"option as value": {protocol.JobRequest{Parameters: map[string]any{"bitrate": "-f"}}, protocol.ReasonUserError},
		"output elsewhere": {protocol.JobRequest{Parameters: map[string]any{"output": "/etc/passwd"}},
			protocol.ReasonUserError},
		"concat": {protocol.JobRequest{Parameters: map[string]any{"input": "concat:/etc/passwd|/etc/shadow"}},
			protocol.ReasonUserError},
	} {
		t.Run(name, func(t *testing.T) {
			submitted, err := s.master().Submit(test.request)
			must(t, err)
			if r := s.result(submitted.ID, 1); r.FailureReason != test.want || r.Status != protocol.StatusFailed {
				t.Errorf("status %s, reason %s: %s; want %s", r.Status, r.FailureReason, r.Error, test.want)
			}
		})
	}
	if now, err := os.ReadFile("/etc/passwd"); err != nil || string(now) != string(passwd) {
		t.Errorf("/etc/passwd was touched (%v)", err)
	}
}

func TestCanceledJobIsStoppedAndReported(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	submitted := s.submit(ffmpegtest.Long())
	pid := s.ffmpegPID(submitted.ID)
	s.post("/jobs/" + submitted.ID + "/cancel")
	s.until("FFmpeg's end", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	r := s.result(submitted.ID, 1)
	if r.Status != protocol.StatusCanceled || r.EnergyJoules == nil {
		t.Errorf("status %s, joules %v", r.Status, r.EnergyJoules)
	}
}

func TestPausedJobCarriesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	submitted := s.submit(ffmpegtest.Long())
	pid := s.ffmpegPID(submitted.ID)
	s.post("/jobs/" + submitted.ID + "/pause")
	var asked atomic.Int64
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/jobs/") && r.URL.Path != "/jobs/next" {
			asked.Add(1)
		}
	})
	s.until("three questions about the job", func() bool { return asked.Load() >= 3 })
	if err := syscall.Kill(pid, 0); err != nil || len(s.agent.shared.attempts.list()) != 1 || s.agent.shared.attempts.list()[0].run.Snapshot().Stopped != "" {
		t.Errorf("the paused job was stopped: %v", err)
	}
}

func TestReassignedJobIsDiscarded(t *testing.T) {
	t.Parallel()
	link := newLink(t)
	link.connect(newMaster(t, devmaster.Config{FenceAttempts: true, MaxRetries: 3, UnavailableAfter: 500 * time.Millisecond}))
	s := newSite(t, func(c *siteConfig) { c.link = link })
	submitted := s.submit(ffmpegtest.Long())
	pid := s.ffmpegPID(submitted.ID)
	// The master gets no heartbeat and reassigns the job.
	link.cut()
	ended := func(e devmaster.Event) bool { return e.Kind == devmaster.JobReassigned && e.JobID == submitted.ID }
	s.await("the job's reassignment", ended)
	link.connect(s.master())
	s.until("FFmpeg's end", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	s.until("the attempt's discarding", func() bool {
		record, found, err := s.journal.Record(job.Key{JobID: submitted.ID, Attempt: 1})
		must(t, err)
		return found && record.State == job.RecordSuperseded
	})
	for _, e := range s.master().Events() {
		if e.JobID == submitted.ID && e.Attempt == 1 && (e.Kind == devmaster.ResultAccepted || e.Kind == devmaster.ResultRejected) {
			t.Errorf("a result of the lost attempt was sent: %+v", e)
		}
	}
}

// TestCancelEndsAFetch: the lease is watched while an input is fetched, which no process of the
// job does.
func TestCancelEndsAFetch(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(make([]byte, 1000))
		_ = http.NewResponseController(w).Flush()
		asked <- struct{}{}
		<-q.Context().Done()
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	s := newSite(t, func(c *siteConfig) { c.dir = dir })
	submitted := s.submit(map[string]any{"input": server.URL + "/film.mp4"})
	<-asked
	s.until("the phase in the status", func() bool {
		jobs := s.agent.Status().Jobs
		return len(jobs) == 1 && jobs[0].Phase == job.PhaseFetch && jobs[0].Fetch != nil && jobs[0].Fetch.Total == 1_000_000
	})
	s.post("/jobs/" + submitted.ID + "/cancel")
	r := s.result(submitted.ID, 1)
	if r.Status != protocol.StatusCanceled || r.Metrics["fetch_seconds"] == nil {
		t.Errorf("got status %s, fetch_seconds %v", r.Status, r.Metrics["fetch_seconds"])
	}
	s.until("an empty workspace", func() bool {
		left, err := filepath.Glob(filepath.Join(dir, "work", "*"))
		return err == nil && len(left) == 0
	})
}
