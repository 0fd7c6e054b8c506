package actors

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// fullJournal is a journal whose disk is full while full is set.
type fullJournal struct {
	Journal
	full  atomic.Bool
	error atomic.Pointer[string]
}

func (j *fullJournal) try() error {
	if !j.full.Load() {
		j.error.Store(nil)
		return nil
	}
	err := fmt.Errorf("journal: %w", syscall.ENOSPC)
	text := err.Error()
	j.error.Store(&text)
	return err
}

func (j *fullJournal) Accept(lease job.Lease) (job.Record, error) {
	if err := j.try(); err != nil {
		return job.Record{}, err
	}
	return j.Journal.Accept(lease)
}

func (j *fullJournal) Finish(key job.Key, result []byte, release bool) error {
	if err := j.try(); err != nil {
		return err
	}
	return j.Journal.Finish(key, result, release)
}

func (j *fullJournal) SaveSamples(key job.Key, samples job.Samples) error {
	if err := j.try(); err != nil {
		return err
	}
	return j.Journal.SaveSamples(key, samples)
}

func (j *fullJournal) Probe() error {
	if err := j.try(); err != nil {
		return err
	}
	return j.Journal.Probe()
}

func (j *fullJournal) Stats() job.JournalStats {
	stats := j.Journal.Stats()
	if text := j.error.Load(); text != nil {
		stats.Error = *text
	}
	return stats
}

// TestFullJournalLosesNothingAndTakesNoJobs: the disk fills up while a job runs. Its result
// waits in memory and no job is taken, both are visible, and all goes on once there is room.
func TestFullJournalLosesNothingAndTakesNoJobs(t *testing.T) {
	t.Parallel()
	var journal *fullJournal
	s := newSite(t, func(c *siteConfig) {
		c.wrap = func(p *Dependencies) {
			journal = &fullJournal{Journal: p.Journal}
			p.Journal = journal
		}
	})
	submitted := s.submit(map[string]any{"resolution": "320x240", "preset": "ultrafast", "duration": 2})
	s.ffmpegPID(submitted.ID)
	journal.full.Store(true)
	s.until("the journal to be tried", func() bool { return journal.error.Load() != nil })
	s.until("the check to fail", func() bool {
		return strings.Contains(s.agent.Snapshots().Gates()[gateJournal], "no space left")
	})
	waiting := s.submit(map[string]any{"resolution": "160x120", "preset": "ultrafast", "duration": 1})
	if _, _, sent := s.master().Result(submitted.ID); sent {
		t.Error("a result was sent before it was on disk")
	}
	if status := s.agent.Status(); status.Journal.Error == "" {
		t.Error("the status says nothing of it")
	}
	if held, ok := s.master().Job(waiting.ID); !ok || held.Status.HeldByNode() {
		t.Errorf("the second job is %s", held.Status)
	}
	journal.full.Store(false)
	s.result(submitted.ID, 1)
	s.result(waiting.ID, 1)
	if n := s.logs.FilterMessage("ffmpeg started").Len(); n != 2 {
		t.Errorf("two jobs were encoded %d times, want each once", n)
	}
	if gates := s.agent.Snapshots().Gates(); gates[gateJournal] != "" {
		t.Errorf("gates %v", gates)
	}
}

// crowdedJournal is a journal with more results to send than it has.
type crowdedJournal struct {
	Journal
	more atomic.Int64
}

func (j *crowdedJournal) Stats() job.JournalStats {
	stats := j.Journal.Stats()
	stats.Unsent += int(j.more.Load())
	return stats
}

func TestNoJobIsTakenWhileTooManyResultsWait(t *testing.T) {
	t.Parallel()
	var journal *crowdedJournal
	s := newSite(t, func(c *siteConfig) {
		c.wrap = func(p *Dependencies) {
			journal = &crowdedJournal{Journal: p.Journal}
			journal.more.Store(maxUnsent)
			p.Journal = journal
		}
	})
	s.until("the check to fail", func() bool {
		return strings.Contains(s.agent.Snapshots().Gates()[gateJournal], "1000 results are not delivered")
	})
	waiting := s.takesNone()
	journal.more.Store(maxUnsent - 1)
	s.result(waiting.ID, 1)
}

// TestNoLostJobIsTakenUpWhileTooManyResultsWait: the response to a poll is lost, and meanwhile so
// many results wait that no job is taken. The master lists the job as this node's.
func TestNoLostJobIsTakenUpWhileTooManyResultsWait(t *testing.T) {
	t.Parallel()
	var journal *crowdedJournal
	s := newSite(t, func(c *siteConfig) {
		c.ReconcileInterval = 50 * time.Millisecond
		c.wrap = func(p *Dependencies) {
			journal = &crowdedJournal{Journal: p.Journal}
			p.Journal = journal
		}
	})
	s.await("the registration", registered)
	closed := func() bool {
		return strings.Contains(s.agent.Snapshots().Gates()[gateJournal], "1000 results are not delivered")
	}
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/jobs/next" {
			next.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		if !strings.Contains(answer.Body.String(), "null") && journal.more.CompareAndSwap(0, maxUnsent) {
			s.agent.shared.refs.janitor.Tell(&messages.JournalFailed{})
			for deadline := time.Now().Add(hang); !closed() && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			hangUp(w)
			return
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	})
	j := s.submit(ffmpegtest.Quick())
	s.until("the closed gate", closed)
	from := time.Now()
	s.until("heartbeats", func() bool { return len(s.beatsSince(from)) >= 3 })
	if _, known, err := s.journal.Record(job.Key{JobID: j.ID, Attempt: 1}); known || err != nil {
		t.Errorf("the job was taken up: %t, %v", known, err)
	}
	journal.more.Store(0)
	s.agent.shared.refs.janitor.Tell(&messages.JournalFailed{})
	s.result(j.ID, 1)
}

// finishHook calls before when a result is to be written.
type finishHook struct {
	Journal
	before func()
}

func (j finishHook) Finish(key job.Key, result []byte, release bool) error {
	j.before()
	return j.Journal.Finish(key, result, release)
}

// TestJobFreesSpaceBeforeItsResultIsWritten: neither the workspace nor an open descriptor of
// a deleted file takes the space that the result may need.
func TestJobFreesSpaceBeforeItsResultIsWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var left []string
	s := newSite(t, func(c *siteConfig) {
		c.dir = dir
		c.wrap = func(p *Dependencies) {
			p.Journal = finishHook{p.Journal, func() {
				entries, _ := filepath.Glob(filepath.Join(dir, "work", "*"))
				descriptors, _ := filepath.Glob("/proc/self/fd/*")
				for _, fd := range descriptors {
					if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, dir+"/work") {
						entries = append(entries, to)
					}
				}
				left = entries
			}}
		}
	})
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
	if len(left) > 0 {
		t.Errorf("left when the result was written: %q, want nothing", left)
	}
}

// failingJournal is a journal in which single operations fail on demand.
type failingJournal struct {
	Journal
	settle, accept, samples, transfer atomic.Bool
}

func (j *failingJournal) Settle(key job.Key, end job.RecordState, why string) error {
	if j.settle.Load() {
		return fmt.Errorf("settling %s: %w", key, syscall.ENOSPC)
	}
	return j.Journal.Settle(key, end, why)
}

func (j *failingJournal) Accept(lease job.Lease) (job.Record, error) {
	if j.accept.Load() {
		return job.Record{}, fmt.Errorf("accepting: %w", syscall.ENOSPC)
	}
	return j.Journal.Accept(lease)
}

func (j *failingJournal) Transfer(from job.Key, to job.Lease) error {
	if j.transfer.Load() {
		return fmt.Errorf("transferring %s: %w", from, syscall.ENOSPC)
	}
	return j.Journal.Transfer(from, to)
}

func (j *failingJournal) SaveSamples(key job.Key, samples job.Samples) error {
	if j.samples.Load() {
		panic("on purpose")
	}
	return j.Journal.SaveSamples(key, samples)
}

func newSiteWithFailingJournal(t *testing.T) (*site, *failingJournal) {
	t.Helper()
	j := &failingJournal{}
	s := newSite(t, func(c *siteConfig) {
		c.wrap = func(p *Dependencies) { j.Journal = p.Journal; p.Journal = j }
	})
	s.until("the session", func() bool { return s.agent.Snapshots().Session() != nil })
	return s, j
}

// TestVerdictSurvivesCrashOfUploader: the master has taken a result, which the journal cannot
// record, and the uploader crashes.
func TestVerdictSurvivesCrashOfUploader(t *testing.T) {
	t.Parallel()
	s, journal := newSiteWithFailingJournal(t)
	journal.settle.Store(true)
	submitted := s.submit(ffmpegtest.Quick())
	s.result(submitted.ID, 1)
	s.until("a failed write", func() bool {
		return s.logs.FilterMessage("could not settle a delivered result in the journal").Len() > 0
	})
	must(t, s.agent.Crash("agent/uploader"))
	s.until("the restart", func() bool { stats, _ := s.stats("agent/uploader"); return stats.Restarts == 1 })
	journal.settle.Store(false)
	if r := s.settled(submitted, 1); r.State != job.RecordSent {
		t.Errorf("got %s (%s), want sent", r.State, r.Why)
	}
}

func TestStopEndsAnAttemptThatCannotBeAccepted(t *testing.T) {
	t.Parallel()
	s, journal := newSiteWithFailingJournal(t)
	journal.accept.Store(true)
	s.submit(ffmpegtest.Quick())
	s.until("an attempt", func() bool { return len(s.agent.shared.attempts.list()) == 1 })
	s.agent.Drain(time.Hour)
	s.agent.StopJobs()
	s.drained()
}

// TestAttemptIsCountedOnce: a panic while the optional samples are saved costs the samples.
func TestAttemptIsCountedOnce(t *testing.T) {
	t.Parallel()
	s, journal := newSiteWithFailingJournal(t)
	journal.samples.Store(true)
	if r := s.result(s.submit(ffmpegtest.Quick()).ID, 1); r.Status != protocol.StatusCompleted {
		t.Errorf("got status %s (%s), want completed", r.Status, r.Error)
	}
	if c := s.agent.Status().Counts; c.Completed != 1 || c.Failed != 0 {
		t.Errorf("got %d completed and %d failed, want 1 and 0", c.Completed, c.Failed)
	}
}
