package actors

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// impatient returns a master that re-queues jobs of live nodes after a limit, and does not
// fence.
func impatient(t *testing.T, limit time.Duration, retries int) *devmaster.Master {
	return newMaster(t, devmaster.Config{
		MaxRetries: retries, UnavailableAfter: 90 * time.Second,
		Habits: devmaster.Habits{StaleAfter: limit, LiveStaleAfter: limit},
	})
}

// accepted returns the results of a job that the master took.
func accepted(m *devmaster.Master, j protocol.Job) (all []devmaster.Event) {
	for _, e := range m.Events() {
		if e.Kind == devmaster.ResultAccepted && e.JobID == j.ID {
			all = append(all, e)
		}
	}
	return all
}

func requeues(m *devmaster.Master, j protocol.Job) (n int) {
	for _, e := range m.Events() {
		if e.Kind == devmaster.JobReassigned && e.JobID == j.ID {
			n++
		}
	}
	return n
}

func encodes(s *site) int { return s.logs.FilterMessage("ffmpeg started").Len() }

// TestRequeuedJobRunsOnUnderNewLeases: with a free slot the agent is given its own running
// job again and again.
func TestRequeuedJobRunsOnUnderNewLeases(t *testing.T) {
	t.Parallel()
	link, m := newLink(t), impatient(t, 500*time.Millisecond, 100)
	link.connect(m)
	s := newSite(t, func(c *siteConfig) { c.link, c.Slots = link, 2 })
	j := s.submit(ffmpegtest.Lasting(t, 10))
	s.until("three new leases", func() bool {
		return s.logs.FilterMessage("the master assigned the running job here again; continuing under the new lease").Len() >= 3
	})
	// No lease any more, lest one is given between the end of the encode and its result.
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jobs/next" {
			_, _ = w.Write([]byte(`{"job":null}`))
			return
		}
		next.ServeHTTP(w, r)
	})
	if _, known, err := s.journal.Record(job.Key{JobID: j.ID, Attempt: 1}); err != nil || known {
		t.Errorf("the journal still has attempt 1 (%v)", err)
	}
	s.await("the result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == j.ID })
	s.until("an empty journal", func() bool { return s.journal.Stats().Unsent+s.journal.Stats().Unfinished == 0 })
	results := accepted(m, j)
	if n := encodes(s); n != 1 || len(results) != 1 || results[0].Status != protocol.StatusCompleted || results[0].Attempt < 4 {
		t.Errorf("%d encodes, results %+v; want one encode and one completed result of attempt 4 or later", n, results)
	}
	r, _, _ := m.Result(j.ID)
	if notes, want := fmt.Sprint(r.AnalyzerOutput["notes"]), "the master re-queued the job while it ran here: "; !strings.Contains(notes, want) {
		t.Errorf("got notes %q, want %q in them", notes, want)
	}
}

// TestRequeuedUnclaimedJobCompletes: the agent has one slot, and is not offered the job
// again; at the end the master waits for no attempt, or has failed the job.
func TestRequeuedUnclaimedJobCompletes(t *testing.T) {
	t.Parallel()
	for name, retries := range map[string]int{"pending": 3, "failed": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			link, m := newLink(t), impatient(t, 500*time.Millisecond, retries)
			link.connect(m)
			s := newSite(t, func(c *siteConfig) { c.link = link })
			j := s.submit(ffmpegtest.Lasting(t, 3))
			if r := s.settled(j, 1); r.State != job.RecordSent || !r.Requeued {
				t.Errorf("ended as %s (%s), requeued %t; want it sent as re-queued", r.State, r.Why, r.Requeued)
			}
			results := accepted(m, j)
			if n := encodes(s); n != 1 || len(results) != 1 || results[0].Status != protocol.StatusCompleted {
				t.Errorf("%d encodes, results %+v; want one of each", n, results)
			}
			if now, _ := m.Job(j.ID); now.Status != protocol.StatusCompleted {
				t.Errorf("the job is %s, want completed", now.Status)
			}
		})
	}
}

// TestFirstResultOfTwoAgentsCounts: a second agent takes the re-queued job; both need longer
// than the limit.
func TestFirstResultOfTwoAgentsCounts(t *testing.T) {
	t.Parallel()
	link, m := newLink(t), impatient(t, time.Second, 100)
	link.connect(m)
	first := newSite(t, func(c *siteConfig) { c.link = link })
	j := first.submit(ffmpegtest.Lasting(t, 5))
	first.ffmpegPID(j.ID)
	second := newSite(t, func(c *siteConfig) {
		c.link = link
		c.wrap = func(d *Dependencies) { d.Facts.Address = "second-node" }
	})
	second.ffmpegPID(j.ID)
	if r := first.settled(j, 1); r.State != job.RecordSent {
		t.Errorf("the first agent's result ended as %s: %s", r.State, r.Why)
	}
	if r := second.settled(j, 2); r.State != job.RecordSuperseded {
		t.Errorf("the second agent's attempt ended as %s: %s", r.State, r.Why)
	}
	if results := accepted(m, j); len(results) != 1 || results[0].Status != protocol.StatusCompleted {
		t.Errorf("results %+v, want one", results)
	}
	if n := requeues(m, j); n < 2 {
		t.Errorf("re-queued %d times, want both agents over the limit", n)
	}
}

// TestFailureOfARequeuedJobIsNotSent: another worker may be at it by now, whether or not the
// running attempt has found out.
func TestFailureOfARequeuedJobIsNotSent(t *testing.T) {
	t.Parallel()
	for name, checks := range map[string]time.Duration{"found out": 100 * time.Millisecond, "not found out": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			link, m := newLink(t), impatient(t, 500*time.Millisecond, 3)
			link.connect(m)
			s := newSite(t, func(c *siteConfig) { c.link, c.CancelCheckInterval = link, checks })
			j := s.submit(ffmpegtest.Long())
			pid := s.ffmpegPID(j.ID)
			other := newWorker(t, m, "other-node")
			lease := other.takes(j, 2)
			s.until("the re-queueing to be found out, or not", func() bool {
				return checks == time.Hour || s.logs.FilterMessageSnippet("lost the lease, but the master accepts a completed result").Len() == 1
			})
			must(t, syscall.Kill(pid, syscall.SIGKILL))
			if r := s.settled(j, 1); r.State != job.RecordSuperseded {
				t.Errorf("ended as %s: %s", r.State, r.Why)
			}
			if results := accepted(m, j); len(results) > 0 {
				t.Errorf("results %+v, want none", results)
			}
			other.reports(lease)
			other.resultAccepted(m, j)
		})
	}
}

// TestSlowAnswerForAnOvertakenAttempt: the master re-queues the job and gives it to this very
// agent while its answer for the attempt before is on its way.
func TestSlowAnswerForAnOvertakenAttempt(t *testing.T) {
	t.Parallel()
	link, m := newLink(t), impatient(t, 300*time.Millisecond, 1)
	link.connect(m)
	asked, overtaken := make(chan struct{}), make(chan struct{})
	var slow atomic.Bool
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/jobs/1" {
			next.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		if slow.CompareAndSwap(false, true) {
			close(asked)
			<-overtaken
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	})
	s := newSite(t, func(c *siteConfig) { c.link = link })
	j := s.submit(map[string]any{"crf": "none"}) // fails before FFmpeg starts
	<-asked
	s.until("the end of the later attempt", func() bool {
		r, known, err := s.journal.Record(job.Key{JobID: j.ID, Attempt: 2})
		must(t, err)
		return known && r.State == job.RecordSent
	})
	close(overtaken)
	if r := s.settled(j, 1); r.State != job.RecordSuperseded {
		t.Errorf("the first attempt ended as %s: %s", r.State, r.Why)
	}
}

// TestCompletedElsewhereStopsARequeuedJob: the other worker was faster.
func TestCompletedElsewhereStopsARequeuedJob(t *testing.T) {
	t.Parallel()
	link, m := newLink(t), impatient(t, 500*time.Millisecond, 3)
	link.connect(m)
	s := newSite(t, func(c *siteConfig) { c.link = link })
	j := s.submit(ffmpegtest.Long())
	s.ffmpegPID(j.ID)
	other := newWorker(t, m, "other-node")
	other.completes(j, 2)
	if r := s.settled(j, 1); r.State != job.RecordSuperseded {
		t.Errorf("ended as %s: %s", r.State, r.Why)
	}
	other.resultAccepted(m, j)
}

// TestChangedJobIsStartedAfresh: the job that is offered again asks for something else.
func TestChangedJobIsStartedAfresh(t *testing.T) {
	t.Parallel()
	link, m := newLink(t), impatient(t, time.Second, 100)
	link.connect(m)
	s := newSite(t, func(c *siteConfig) { c.link, c.Slots = link, 2 })
	var offered atomic.Bool
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/jobs/next" {
			next.ServeHTTP(w, r)
			return
		}
		if offered.Load() && encodes(s) == 0 {
			_, _ = io.WriteString(w, `{"job":null}`)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		body := answer.Body.Bytes()
		if bytes.Contains(body, []byte(`"parameters":{`)) && offered.Swap(true) { // the second offer
			body = bytes.Replace(body, []byte(`"parameters":{`), []byte(`"parameters":{"crf":40,`), 1)
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(body)
	})
	j := s.submit(ffmpegtest.Lasting(t, 4))
	if r := s.settled(j, 1); r.State != job.RecordSuperseded {
		t.Errorf("ended as %s: %s", r.State, r.Why)
	}
	s.await("the result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == j.ID })
	if results := accepted(m, j); len(results) != 1 || results[0].Attempt < 2 || encodes(s) != 2 {
		t.Errorf("%d encodes, results %+v; want a second encode to answer", encodes(s), results)
	}
}

// TestMasterThatFencesSupersedes: it takes no result of an attempt that it has re-queued.
func TestMasterThatFencesSupersedes(t *testing.T) {
	t.Parallel()
	link := newLink(t)
	m := newMaster(t, devmaster.Config{
		MaxRetries: 3, UnavailableAfter: 90 * time.Second, FenceAttempts: true,
		Habits: devmaster.Habits{StaleAfter: 500 * time.Millisecond},
	})
	link.connect(m)
	s := newSite(t, func(c *siteConfig) { c.link = link })
	j := s.submit(ffmpegtest.Long())
	if r := s.settled(j, 1); r.State != job.RecordSuperseded {
		t.Errorf("ended as %s: %s", r.State, r.Why)
	}
}

// TestLateAnswerForOldLeaseIsIgnored: the attempt took a new lease while the master
// was asked for the one before, which it had re-queued. A failure is reported all the same.
func TestLateAnswerForOldLeaseIsIgnored(t *testing.T) {
	t.Parallel()
	earlier := job.Lease{Job: protocol.Job{ID: "j"}, AcquiredAt: time.Now()}
	later := earlier
	later.Job.RetryCount = 1
	a := &attempt{shared: &shared{}, log: zap.NewNop(), lease: later}
	a.current.Store(&Settings{UnavailableAfter: time.Hour})
	a.contact.begin(earlier.AcquiredAt.Add(-time.Second))
	if !a.survivesRequeue(earlier, "x") || a.isRequeued() {
		t.Errorf("the later lease counts as re-queued: %t", a.isRequeued())
	}
	if !a.survivesRequeue(later, "x") || !a.isRequeued() {
		t.Error("the later lease does not count as re-queued")
	}
	a.confirm(earlier, time.Now())
	if !a.confirmedAt().IsZero() {
		t.Error("the later lease counts as confirmed")
	}
}

// TestDrainWaitsForALeaseBeingTaken: where the running attempt cannot take it, the lease is
// returned.
func TestDrainWaitsForALeaseBeingTaken(t *testing.T) {
	t.Parallel()
	j := &jobs{shared: &shared{attempts: newAttempts()}, recovered: true, taking: []job.Lease{{}}}
	ready := false
	j.drain = &messages.Drain{Ready: func() { ready = true }}
	if j.checkDrained(); ready {
		t.Error("drained while a lease is being taken")
	}
	j.taking = nil
	if j.checkDrained(); !ready {
		t.Error("not drained")
	}
}

// finishedAfter holds each result back from the journal until a condition holds.
type finishedAfter struct {
	Journal
	wait func()
}

func (j finishedAfter) Finish(key job.Key, result []byte, release bool) error {
	j.wait()
	return j.Journal.Finish(key, result, release)
}

// noMoreJobs makes the master give out no job from now on.
func (s *site) noMoreJobs(also func(next http.Handler, w http.ResponseWriter, r *http.Request)) {
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jobs/next" {
			_, _ = w.Write([]byte(`{"job":null}`))
			return
		}
		also(next, w, r)
	})
}

// TestLostResponseOfRequeuedJob: the master re-queues the job unnoticed. Then its result gets
// lost on the way to the master, or the response on the way back.
func TestLostResponseOfRequeuedJob(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		arrives  bool
		sendings int64
	}{"result lost": {false, 2}, "response lost": {true, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			link, m := newLink(t), impatient(t, 500*time.Millisecond, 3)
			link.connect(m)
			var s *site
			var j protocol.Job
			submitted := make(chan struct{})
			s = newSite(t, func(c *siteConfig) {
				c.link, c.CancelCheckInterval = link, time.Hour
				c.wrap = func(d *Dependencies) {
					d.Journal = finishedAfter{d.Journal, func() {
						<-submitted
						s.until("the re-queueing", func() bool { return requeues(m, j) > 0 })
					}}
				}
			})
			j = s.submit(ffmpegtest.Quick())
			s.ffmpegPID(j.ID)
			var sendings atomic.Int64
			s.noMoreJobs(onResults(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
				if sendings.Add(1) > 1 {
					next.ServeHTTP(w, r)
					return
				}
				if test.arrives {
					next.ServeHTTP(httptest.NewRecorder(), r)
				}
				hangUp(w)
			}))
			close(submitted)
			if r := s.settled(j, 1); r.State != job.RecordSent {
				t.Errorf("got %s (%s), want sent", r.State, r.Why)
			}
			if results := accepted(m, j); len(results) != 1 || sendings.Load() != test.sendings {
				t.Errorf("got results %+v after %d sendings, want one after %d", results, sendings.Load(), test.sendings)
			}
		})
	}
}

func TestVerdictOnLostLease(t *testing.T) {
	const may = "may have been accepted"
	for name, test := range map[string]struct {
		result    protocol.Status
		lease     job.LeaseStatus
		sent      sentState
		overtaken bool
		state     job.RecordState // empty: the result is sent
		why       string
	}{
		"held":                                   {protocol.StatusCompleted, job.LeaseHeld, responseLost, false, "", ""},
		"unknown":                                {protocol.StatusCompleted, job.LeaseUnknown, responseLost, false, "", ""},
		"canceled":                               {protocol.StatusCompleted, job.LeaseCanceled, responseLost, false, "", ""},
		"completed by the lost sending":          {protocol.StatusCompleted, job.LeaseEnded, responseLost, false, job.RecordSent, "response was lost"},
		"failed by the lost sending":             {protocol.StatusFailed, job.LeaseFailed, responseLost, false, job.RecordSent, "response was lost"},
		"completed by this or a later attempt":   {protocol.StatusCompleted, job.LeaseEnded, responseLost, true, job.RecordSuperseded, may},
		"completed while this one failed":        {protocol.StatusFailed, job.LeaseEnded, responseLost, false, job.RecordSuperseded, may},
		"completed by another node":              {protocol.StatusCompleted, job.LeaseOver, responseLost, false, job.RecordSuperseded, may},
		"timed out":                              {protocol.StatusCompleted, job.LeaseTimedOut, responseLost, false, job.RecordSuperseded, may},
		"completed, sent before a restart":       {protocol.StatusCompleted, job.LeaseEnded, maybeSent, false, job.RecordSuperseded, may},
		"completed without this result":          {protocol.StatusCompleted, job.LeaseEnded, notSent, false, job.RecordSuperseded, "completed at the master"},
		"rejected":                               {protocol.StatusCompleted, job.LeaseRejected, notSent, false, job.RecordSuperseded, "rejected"},
		"completed here, re-queued":              {protocol.StatusCompleted, job.LeaseReassigned, responseLost, false, "", ""},
		"completed here, failed at the master":   {protocol.StatusCompleted, job.LeaseFailed, notSent, false, "", ""},
		"failed here, re-queued":                 {protocol.StatusFailed, job.LeaseReassigned, notSent, false, job.RecordSuperseded, "re-queued or reassigned"},
		"failed here, re-queued by this failure": {protocol.StatusFailed, job.LeaseReassigned, responseLost, false, job.RecordSuperseded, may},
	} {
		now := time.Now()
		u := &uploader{shared: &shared{}}
		u.current.Store(&Settings{UnavailableAfter: time.Hour})
		u.contact.begin(now.Add(-time.Minute))
		record := job.Record{Lease: job.Lease{AcquiredAt: now}, Result: []byte(`{"status":"` + test.result + `"}`)}
		got := u.lostLease(record, test.lease, test.sent, test.overtaken)
		if got == nil {
			got = &verdict{}
		}
		if got.state != test.state || !strings.Contains(got.why, test.why) {
			t.Errorf("%s: got %q (%s), want %q (%s)", name, got.state, got.why, test.state, test.why)
		}
		if test.why != may && strings.Contains(got.why, may) {
			t.Errorf("%s: got %q, want no doubt", name, got.why)
		}
	}
}

// TestFullDiskHoldsUpNoRequeuedJob: the journal cannot record the new lease of a running job.
func TestFullDiskHoldsUpNoRequeuedJob(t *testing.T) {
	t.Parallel()
	link, m := newLink(t), impatient(t, 500*time.Millisecond, 100)
	link.connect(m)
	journal := &failingJournal{}
	journal.transfer.Store(true)
	s := newSite(t, func(c *siteConfig) {
		c.link, c.Slots = link, 2
		c.wrap = func(d *Dependencies) { journal.Journal = d.Journal; d.Journal = journal }
	})
	j := s.submit(ffmpegtest.Lasting(t, 3))
	s.until("a failed write", func() bool { return s.logs.FilterMessage("could not write to the journal").Len() > 0 })
	s.await("the result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == j.ID })
	if results := accepted(m, j); encodes(s) != 1 || len(results) != 1 || results[0].Status != protocol.StatusCompleted {
		t.Errorf("got %d encodes and results %+v, want one of each", encodes(s), results)
	}
}

// TestNewLeaseOfAJobNotYetAccepted: the journal can record neither the lease of a
// job nor the one that the master gives after it.
func TestNewLeaseOfAJobNotYetAccepted(t *testing.T) {
	t.Parallel()
	link, m := newLink(t), impatient(t, 500*time.Millisecond, 100)
	link.connect(m)
	journal := &failingJournal{}
	journal.accept.Store(true)
	journal.transfer.Store(true)
	s := newSite(t, func(c *siteConfig) {
		c.link, c.Slots = link, 2
		c.wrap = func(d *Dependencies) { journal.Journal = d.Journal; d.Journal = journal }
	})
	j := s.submit(ffmpegtest.Quick())
	for _, logger := range []string{"job", "jobs"} {
		s.until("a failed write by "+logger, func() bool {
			return s.logs.Filter(func(e observer.LoggedEntry) bool {
				return e.LoggerName == logger && e.Message == "could not write to the journal"
			}).Len() > 0
		})
	}
	journal.accept.Store(false)
	s.await("the result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == j.ID })
	if n := encodes(s); n != 1 {
		t.Errorf("got %d encodes, want 1", n)
	}
}

// TestJobOfferedAtItsEndIsNotRepeated: the master re-queues the job and gives it to this
// agent while its result is on the way to the journal, or to the master.
func TestJobOfferedAtItsEndIsNotRepeated(t *testing.T) {
	t.Parallel()
	const deferred = "the master reassigned the job to this node while its result is being delivered"
	for name, inJournal := range map[string]bool{"to the journal": false, "to the master": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			link, m := newLink(t), impatient(t, 500*time.Millisecond, 100)
			link.connect(m)
			var s *site
			var j protocol.Job
			submitted := make(chan struct{})
			again := func() bool {
				return slices.ContainsFunc(m.Events(), func(e devmaster.Event) bool {
					return e.Kind == devmaster.JobAssigned && e.JobID == j.ID && e.Attempt > 1
				})
			}
			s = newSite(t, func(c *siteConfig) {
				c.link, c.Slots, c.CancelCheckInterval = link, 2, time.Hour
				c.wrap = func(d *Dependencies) {
					d.Journal = finishedAfter{d.Journal, func() {
						if <-submitted; !inJournal {
							s.until("the second assignment", again)
						}
					}}
				}
			})
			link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/results" {
					s.until("the lease to be put off", func() bool { return s.logs.FilterMessage(deferred).Len() > 0 })
				}
				next.ServeHTTP(w, r)
			})
			j = s.submit(ffmpegtest.Quick())
			close(submitted)
			s.await("the result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == j.ID })
			if n := encodes(s); n != 1 {
				t.Errorf("got %d encodes, want 1", n)
			}
		})
	}
}

func TestContactIsBrokenByLongSilence(t *testing.T) {
	const limit = time.Minute
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, test := range map[string]struct {
		began   time.Duration   // ago
		sent    []time.Duration // ago, of the calls that are answered now, in order
		since   time.Duration   // ago
		want    bool
		silence bool // the last answer ends one
	}{
		"no answer yet":                      {began: 10 * time.Second, since: 5 * time.Second, want: true},
		"lease of an earlier process":        {began: 10 * time.Second, since: 20 * time.Second, want: false},
		"no answer for long":                 {began: 2 * limit, since: limit, want: false},
		"an answer":                          {began: 50 * time.Second, sent: []time.Duration{time.Second}, since: 30 * time.Second, want: true},
		"lease from before a silence":        {began: 2 * limit, sent: []time.Duration{time.Second}, since: 30 * time.Second, want: false, silence: true},
		"lease from after a silence":         {began: 2 * limit, sent: []time.Duration{time.Second}, since: -time.Hour, want: true, silence: true},
		"answers in another order":           {began: 2 * limit, sent: []time.Duration{time.Second, 2 * limit}, since: -time.Hour, want: true},
		"slow answer to a call of long ago":  {began: 30 * time.Second, sent: []time.Duration{29 * time.Second}, since: 20 * time.Second, want: true},
		"answer to a call older than limits": {began: 3 * limit, sent: []time.Duration{2 * limit}, since: -time.Hour, want: false, silence: true},
	} {
		var c contact
		c.begin(ago(test.began))
		var silence time.Duration
		for _, sent := range test.sent {
			silence = c.answered(ago(sent), limit)
		}
		if got := c.unbrokenSince(ago(test.since), limit); got != test.want {
			t.Errorf("%s: got unbroken %t, want %t", name, got, test.want)
		}
		if (silence > 0) != test.silence {
			t.Errorf("%s: got a silence of %s, want one: %t", name, silence, test.silence)
		}
	}
}
