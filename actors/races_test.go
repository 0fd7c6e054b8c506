package actors

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// journalHook calls finished once a result is in the journal.
type journalHook struct {
	Journal
	finished func()
}

func (j journalHook) Finish(key job.Key, result []byte, release bool) error {
	err := j.Journal.Finish(key, result, release)
	j.finished()
	return err
}

func TestResultSurvivesCrashOfJobsAfterJournal(t *testing.T) {
	t.Parallel()
	var s *site
	var once sync.Once
	ready := make(chan struct{})
	s = newSite(t, func(c *siteConfig) {
		c.wrap = func(p *Dependencies) {
			p.Journal = journalHook{p.Journal, func() {
				<-ready
				once.Do(func() {
					if err := s.agent.Crash("agent/jobs"); err != nil {
						t.Error(err)
					}
					s.until("the restart of jobs", func() bool { stats, _ := s.stats("agent/jobs"); return stats.Restarts == 1 })
				})
			}}
		}
	})
	close(ready)
	submitted := s.submit(ffmpegtest.Quick())
	if r := s.result(submitted.ID, 1); r.Status != protocol.StatusCompleted {
		t.Errorf("status %s: %s", r.Status, r.Error)
	}
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
}

// checkHook holds a run between FFmpeg's exit and its check.
type checkHook struct {
	Run
	hold func()
}

func (r checkHook) Check(ctx context.Context) error {
	r.hold()
	return r.Run.Check(ctx)
}

type runnerHook struct {
	Runner
	hold func()
}

func (r runnerHook) Begin(l job.Lease) Run { return checkHook{r.Runner.Begin(l), r.hold} }

func TestAccountSurvivesCrashOfJobsAfterExit(t *testing.T) {
	t.Parallel()
	tree, _ := meteredMachine(t)
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := newSite(t, func(c *siteConfig) {
		c.sysfs = tree.Sys()
		c.wrap = func(p *Dependencies) {
			p.Runner = runnerHook{p.Runner, func() { once.Do(func() { close(held); <-release }) }}
		}
	})
	submitted := s.submit(ffmpegtest.Quick())
	<-held
	s.until("the job's account", func() bool {
		snapshot := s.agent.Snapshots().Energy()
		return snapshot != nil && len(snapshot.Jobs) == 0
	})
	must(t, s.agent.Crash("agent/jobs"))
	s.until("the adoption", func() bool { return s.logs.FilterMessage("adopting a running job").Len() == 1 })
	close(release)
	s.result(submitted.ID, 1)
	if a := s.account(submitted.ID); a.Total.CoveragePercent < 90 || a.Total.Gaps != 0 {
		t.Errorf("total is %+v", a.Total)
	}
}

// reapHook holds the recovery of what a previous process left.
type reapHook struct {
	Janitor
	hold func()
}

func (j reapHook) Reap(ctx context.Context, records []job.Record) error {
	j.hold()
	return j.Janitor.Reap(ctx, records)
}

func TestOfferWaitsForRecovery(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := newLink(t)
	m := newMaster(t, devmaster.Config{FenceAttempts: true})
	link.connect(m)
	var submitted protocol.Job
	parameters := ffmpegtest.Long()
	t.Run("killed during a job", func(t *testing.T) {
		s := newSite(t, func(c *siteConfig) { c.dir, c.link = dir, link })
		submitted = s.submit(parameters)
		s.ffmpegPID(submitted.ID)
		link.cut()
	})
	link.connect(m)
	release := make(chan struct{})
	var listed atomic.Bool
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if r.URL.Path == "/jobs" && r.Method == http.MethodGet {
			listed.Store(true)
		}
	})
	s := newSite(t, func(c *siteConfig) {
		c.dir, c.link = dir, link
		c.wrap = func(p *Dependencies) { p.Janitor = reapHook{p.Janitor, func() { <-release }} }
	})
	// The master lists the very attempt as ours during the recovery.
	s.until("the list of held jobs", listed.Load)
	if running := s.agent.shared.attempts.list(); len(running) != 0 {
		t.Error("the interrupted attempt was started again")
	}
	close(release)
	if r := s.result(submitted.ID, 1); r.FailureReason != protocol.ReasonPlatformError {
		t.Errorf("reason %s: %s", r.FailureReason, r.Error)
	}
	s.await("the second attempt", func(e devmaster.Event) bool {
		return e.Kind == devmaster.JobAssigned && e.JobID == submitted.ID && e.Attempt == 2
	})
	s.ffmpegPID(submitted.ID)
}

// TestRepeatedOffersArePaced: the master keeps offering an attempt that has ended here.
func TestRepeatedOffersArePaced(t *testing.T) {
	t.Parallel()
	const interval = 150 * time.Millisecond
	s := newSite(t, func(c *siteConfig) { c.PollInterval = interval })
	var mu sync.Mutex
	var answer []byte
	var polls []time.Time
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/jobs/next" {
			next.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if answer == nil {
			recorder := httptest.NewRecorder()
			next.ServeHTTP(recorder, r)
			if !strings.Contains(recorder.Body.String(), "null") {
				answer = recorder.Body.Bytes()
			}
			w.Write(recorder.Body.Bytes())
			return
		}
		polls = append(polls, time.Now())
		w.Write(answer)
	})
	s.submit(ffmpegtest.Quick())
	repeated := func() []time.Time { mu.Lock(); defer mu.Unlock(); return polls }
	s.until("ten repetitions", func() bool { return len(repeated()) >= 10 })
	got := repeated()
	// Unpaced, these would take milliseconds. A single poll may be recorded late.
	if took := got[9].Sub(got[0]); took < 9*interval/2 {
		t.Errorf("ten polls within %s, the interval is %s", took, interval)
	}
}

// TestMasterThatLostAResultGetsItAgain: the master was restored from a backup of before the
// result, and lists the job as ours.
func TestMasterThatLostAResultGetsItAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *siteConfig) { c.ReconcileInterval = 100 * time.Millisecond })
	var lost atomic.Bool
	s.link.interfere(onResults(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if lost.CompareAndSwap(false, true) {
			// Accepted and lost.
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, `{"status":"success"}`)
			return
		}
		next.ServeHTTP(w, r)
	}))
	submitted := s.submit(ffmpegtest.Quick())
	if r := s.result(submitted.ID, 1); r.Status != protocol.StatusCompleted {
		t.Errorf("status %s", r.Status)
	}
}

func TestJobOfferedDuringDrainIsReturned(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.until("the session", func() bool { return s.agent.Snapshots().Session() != nil })
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jobs/next" {
			once.Do(func() { close(asked) })
			<-release
		}
		next.ServeHTTP(w, r)
	})
	<-asked
	submitted := s.submit(ffmpegtest.Quick())
	s.agent.Drain(hang)
	s.until("the drain", func() bool { return s.agent.Snapshots().Draining() })
	close(release)
	s.drained()
	r := s.result(submitted.ID, 1)
	if r.Status != protocol.StatusFailed || r.FailureReason != protocol.ReasonPlatformError {
		t.Errorf("status %s, reason %s: %s", r.Status, r.FailureReason, r.Error)
	}
}

// TestWaitingLeaseSurvivesCrashOfJobs: the master lists two jobs as ours, there is one slot,
// and jobs crashes.
func TestWaitingLeaseSurvivesCrashOfJobs(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *siteConfig) { c.ReconcileInterval = 100 * time.Millisecond })
	s.until("the session", func() bool { return s.agent.Snapshots().Session() != nil })
	first := s.submit(ffmpegtest.Long())
	pid := s.ffmpegPID(first.ID)
	second := s.submit(ffmpegtest.Quick())
	// The response to this poll goes to nobody.
	resp, err := http.Get(s.link.URL + "/jobs/next?node_id=" + s.agent.Snapshots().Session().NodeID)
	must(t, err)
	resp.Body.Close()
	must(t, s.agent.Crash("agent/jobs"))
	s.until("the restart", func() bool { stats, _ := s.stats("agent/jobs"); return stats.Restarts == 1 })
	must(t, syscall.Kill(pid, 0))
	s.post("/jobs/" + first.ID + "/cancel")
	s.result(second.ID, 1)
}

func TestReassignedResultIsNotSentAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	var sendings atomic.Int64
	var refusing atomic.Bool
	refusing.Store(true)
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/results" && refusing.Load():
			sendings.Add(1)
			http.Error(w, "job is not yours", http.StatusInternalServerError)
		case strings.HasPrefix(r.URL.Path, "/jobs/") && r.URL.Path != "/jobs/next" && sendings.Load() > 0 && r.Method == http.MethodGet,
			r.URL.Path == "/jobs" && sendings.Load() > 0 && r.Method == http.MethodGet:
			recorder := httptest.NewRecorder()
			next.ServeHTTP(recorder, r)
			var any map[string]any
			if json.Unmarshal(recorder.Body.Bytes(), &any) == nil && any["id"] != nil {
				any["retry_count"] = 1
				json.NewEncoder(w).Encode(any)
				return
			}
			w.Write(recorder.Body.Bytes())
		default:
			next.ServeHTTP(w, r)
		}
	})
	submitted := s.submit(ffmpegtest.Quick())
	if r := s.settled(submitted, 1); r.State != job.RecordSuperseded || sendings.Load() != 1 {
		t.Errorf("ended as %s after %d sendings: %s", r.State, sendings.Load(), r.Why)
	}
}

func TestRetryAfterIsObeyedDespiteDeliveries(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	var told atomic.Value
	told.Store("")
	var sendings atomic.Int64
	s.link.interfere(onResults(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var result protocol.JobResult
		if json.Unmarshal(body, &result) == nil {
			told.CompareAndSwap("", result.JobID)
		}
		if result.JobID == told.Load() {
			sendings.Add(1)
			w.Header().Set("Retry-After", "3600")
			http.Error(w, "slow down", http.StatusTooManyRequests)
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		next.ServeHTTP(w, r)
	}))
	s.submit(ffmpegtest.Quick())
	for range 3 {
		s.result(s.submit(ffmpegtest.Quick()).ID, 1)
	}
	if n := sendings.Load(); n != 1 {
		t.Errorf("sent %d times within an hour's Retry-After", n)
	}
}

// TestFindingLeasesDropsNoPoll: a poll that comes due while the agent looks for lost leases
// is made afterwards. Otherwise no timer is left and the agent never polls again.
func TestFindingLeasesDropsNoPoll(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *siteConfig) { c.PollInterval, c.ReconcileInterval = 100*time.Millisecond, 300*time.Millisecond })
	s.await("the registration", registered)
	var looks, polls atomic.Int64
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/next"):
			polls.Add(1)
		case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/nodes/"):
			looks.Add(1)
			time.Sleep(250 * time.Millisecond) // a poll comes due meanwhile
		}
		next.ServeHTTP(w, r)
	})
	for range 5 {
		before, from := polls.Load(), looks.Load()
		s.until("more looks", func() bool { return looks.Load() >= from+3 })
		s.until("a poll", func() bool { return polls.Load() > before })
	}
}

// TestFoundLeaseTakesItsSlot: the agent finds a lost lease and polls for no second job with
// its only slot.
func TestFoundLeaseTakesItsSlot(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *siteConfig) { c.PollInterval = time.Hour })
	s.until("the agent to be idle", func() bool {
		for _, reason := range s.agent.Snapshots().Gates() {
			if reason != "" {
				return false
			}
		}
		return s.agent.Snapshots().Session() != nil && s.logs.FilterMessage("registered with the master").Len() > 0
	})
	s.await("the first poll", func(e devmaster.Event) bool { return e.Kind == devmaster.PollWithoutJob })
	first, second := s.submit(ffmpegtest.Long()), s.submit(ffmpegtest.Long())
	// The master assigns the first job, and the response goes to nobody.
	resp, err := http.Get(s.link.URL + "/jobs/next?node_id=" + s.agent.Snapshots().Session().NodeID)
	must(t, err)
	resp.Body.Close()
	s.agent.shared.refs.poller.Tell(&messages.FindLeases{})
	s.ffmpegPID(first.ID)
	from := time.Now()
	s.until("some heartbeats", func() bool { return len(s.beatsSince(from)) >= 3 })
	if now, _ := s.master().Job(second.ID); now.Status.HeldByNode() {
		t.Errorf("the second job is %s by an agent with one slot", now.Status)
	}
}

// TestTakenResultEndsThePauseOfPolls: polls fail while a job runs beside a free slot. The
// master that takes its result is asked for the next job at once.
func TestTakenResultEndsThePauseOfPolls(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *siteConfig) { c.Slots, c.PollInterval = 2, time.Hour })
	var failing atomic.Bool
	failing.Store(true)
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/jobs/next" || !failing.Load() {
			next.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		if strings.Contains(answer.Body.String(), "null") {
			http.Error(w, "database is locked", http.StatusInternalServerError)
			return
		}
		w.Write(answer.Body.Bytes())
	})
	first := s.submit(ffmpegtest.Long())
	s.until("a first poll", func() bool { return s.agent.Snapshots().Session() != nil })
	s.agent.shared.refs.poller.Tell(&messages.ResultTaken{}) // the first poll may have come before the job
	s.ffmpegPID(first.ID)
	s.until("a failed poll", func() bool { return s.logs.FilterMessage("could not poll the master for jobs").Len() > 0 })
	failing.Store(false)
	second := s.submit(ffmpegtest.Quick())
	s.post("/jobs/" + first.ID + "/cancel")
	s.result(second.ID, 1)
}
