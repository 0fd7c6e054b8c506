package actors

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/internal/master"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// soon is the silence after which the masters of these tests reassign jobs.
const soon = time.Second

// careless returns a master that accepts any result from any node, so that only the agent
// can hold back one that is not current.
func careless(t *testing.T) *devmaster.Master {
	return newMaster(t, devmaster.Config{MaxRetries: 3, UnavailableAfter: soon})
}

// fencing returns a master that takes results of current attempts only.
func fencing(t *testing.T) *devmaster.Master {
	return newMaster(t, devmaster.Config{MaxRetries: 3, UnavailableAfter: soon, FenceAttempts: true})
}

// worker is another node of a master.
type worker struct {
	t       *testing.T
	client  *master.Client
	session messages.Session
}

func newWorker(t *testing.T, m *devmaster.Master, address string) *worker {
	t.Helper()
	server := httptest.NewServer(m.Handler())
	t.Cleanup(server.Close)
	client, err := master.New(master.Config{
		URL: server.URL, APIKey: "", HeartbeatTimeout: 5 * time.Second, CallTimeout: 5 * time.Second,
	})
	must(t, err)
	t.Cleanup(client.Close)
	session, err := client.Register(context.Background(), messages.NodeFacts{Address: address, Type: "server", CPUThreads: 2})
	must(t, err)
	return &worker{t: t, client: client, session: session}
}

// takes waits until the master assigns it an attempt at a job.
func (w *worker) takes(j protocol.Job, attempt int) job.Lease {
	w.t.Helper()
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		must(w.t, w.client.Heartbeat(context.Background(), w.session, messages.NodeStatus{Status: "available"}))
		lease, err := w.client.Next(context.Background(), w.session)
		must(w.t, err)
		if lease != nil && lease.Key() == (job.Key{JobID: j.ID, Attempt: attempt}) {
			return *lease
		}
	}
	w.t.Fatalf("the master does not give attempt %d at job %s away", attempt, j.ID)
	return job.Lease{}
}

// completes takes an attempt and reports it as completed.
func (w *worker) completes(j protocol.Job, attempt int) {
	w.t.Helper()
	w.reports(w.takes(j, attempt))
}

// reports reports a lease's job as completed.
func (w *worker) reports(lease job.Lease) {
	w.t.Helper()
	body, err := json.Marshal(map[string]any{
		"job_id": lease.Job.ID, "node_id": w.session.NodeID, "attempt": lease.Job.Attempt(), "status": protocol.StatusCompleted,
	})
	must(w.t, err)
	must(w.t, w.client.Report(context.Background(), job.Record{Lease: lease, State: job.RecordResult, Result: body}))
}

// resultAccepted fails the test unless the master accepted this worker's result and no other.
func (w *worker) resultAccepted(m *devmaster.Master, j protocol.Job) {
	w.t.Helper()
	for _, e := range m.Events() {
		if e.Kind == devmaster.ResultAccepted && e.JobID == j.ID && e.NodeID != w.session.NodeID {
			w.t.Errorf("a result that was not current was taken: %+v", e)
		}
	}
	if now, _ := m.Job(j.ID); now.Status != protocol.StatusCompleted || now.NodeID != w.session.NodeID {
		w.t.Errorf("the job is %s of %s, and was completed by %s", now.Status, now.NodeID, w.session.NodeID)
	}
}

// interrupted leaves in a data directory what an agent leaves that died in the first attempt
// at a job, and returns the job and the agent's session as a worker.
func interrupted(t *testing.T, m *devmaster.Master, dir string) (protocol.Job, *worker) {
	t.Helper()
	j, err := m.Submit(protocol.JobRequest{Scenario: "test-h264", Parameters: ffmpegtest.Quick()})
	must(t, err)
	dead := newWorker(t, m, "test-node")
	book, err := journal.Open(journal.Settings{Path: filepath.Join(dir, "journal.db")})
	must(t, err)
	must(t, book.SaveSession(dead.session))
	_, err = book.Accept(dead.takes(j, 1))
	must(t, err)
	must(t, book.Close())
	return j, dead
}

// turnAway refuses a request unread.
func turnAway(w http.ResponseWriter) { http.Error(w, "too busy", http.StatusTooManyRequests) }

// TestReassignedResultIsDiscardedAfterPartition: FFmpeg ends while the network is cut, and
// another worker completes the job before it is back.
func TestReassignedResultIsDiscardedAfterPartition(t *testing.T) {
	t.Parallel()
	link, m := newLink(t), careless(t)
	link.connect(m)
	s := newSite(t, func(c *siteConfig) {
		c.link, c.UnavailableAfter = link, soon
		c.CancelCheckInterval = time.Hour // nothing but the uploader asks
	})
	j := s.submit(ffmpegtest.Lasting(t, 2))
	s.ffmpegPID(j.ID)
	var whole atomic.Bool
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		switch {
		case whole.Load():
			next.ServeHTTP(w, r)
		case r.URL.Path == "/results":
			turnAway(w) // nothing got through: no doubt that is a reason to ask
		default:
			hangUp(w)
		}
	})
	other := newWorker(t, m, "other-node")
	other.completes(j, 2)
	s.until("a result that cannot be sent", func() bool { return s.journal.Stats().Unsent == 1 })
	whole.Store(true)
	if r := s.settled(j, 1); r.State != job.RecordSuperseded {
		t.Errorf("ended as %s: %s", r.State, r.Why)
	}
	other.resultAccepted(m, j)
}

// TestReassignedResultIsDiscardedAfterDowntime: the agent died in a job, and starts again
// after another worker has completed it.
func TestReassignedResultIsDiscardedAfterDowntime(t *testing.T) {
	t.Parallel()
	m, dir := careless(t), t.TempDir()
	j, _ := interrupted(t, m, dir)
	other := newWorker(t, m, "other-node")
	other.completes(j, 2)

	link := newLink(t)
	link.connect(m)
	s := newSite(t, func(c *siteConfig) { c.dir, c.link, c.UnavailableAfter = dir, link, soon })
	if r := s.settled(j, 1); r.State != job.RecordSuperseded {
		t.Errorf("ended as %s: %s", r.State, r.Why)
	}
	other.resultAccepted(m, j)
}

// TestOldAnswerAboutALeaseIsNotUsed: the answer that the lease is held reaches the agent when
// another worker has completed the job, as after a stop of the process or of the machine.
func TestOldAnswerAboutALeaseIsNotUsed(t *testing.T) {
	t.Parallel()
	m, dir := careless(t), t.TempDir()
	j, dead := interrupted(t, m, dir)

	link := newLink(t)
	link.connect(m)
	asked, completed := make(chan string, 1), make(chan struct{})
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		select {
		case <-completed:
			next.ServeHTTP(w, r)
			return
		default:
		}
		if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, "/jobs/") || r.URL.Path == "/jobs/next" {
			hangUp(w)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		body := answer.Body.String()
		select {
		case asked <- body:
		default:
		}
		<-completed
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		io.WriteString(w, body)
	})
	s := newSite(t, func(c *siteConfig) { c.dir, c.link, c.UnavailableAfter = dir, link, soon })
	var answer string
	for answer == "" {
		select {
		case answer = <-asked:
		case <-time.After(20 * time.Millisecond): // the master keeps the node until the agent has asked
			must(t, dead.client.Heartbeat(context.Background(), dead.session, messages.NodeStatus{Status: "available"}))
		}
	}
	if !strings.Contains(answer, `"assigned"`) {
		t.Fatalf("the job is not assigned when the agent asks: %s", answer)
	}
	old := time.After(soon + 100*time.Millisecond)
	other := newWorker(t, m, "other-node")
	other.completes(j, 2)
	<-old
	close(completed)
	if r := s.settled(j, 1); r.State != job.RecordSuperseded {
		t.Errorf("ended as %s: %s", r.State, r.Why)
	}
	other.resultAccepted(m, j)
}

// TestUnsentResultIsOvertakenByLaterAttempt: the master assigns the next attempt to this
// agent while the result of the one before cannot be sent.
func TestUnsentResultIsOvertakenByLaterAttempt(t *testing.T) {
	t.Parallel()
	link, m := newLink(t), fencing(t)
	link.connect(m)
	var silent, refusing, second atomic.Bool
	refusing.Store(true)
	var late atomic.Int64
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		switch {
		case silent.Load() && r.URL.Path != "/results":
			hangUp(w)
			return
		case r.URL.Path == "/results":
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			var result struct{ Attempt int }
			if json.Unmarshal(body, &result); result.Attempt == 1 && second.Load() {
				late.Add(1)
			}
			if refusing.Load() {
				turnAway(w)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
	s := newSite(t, func(c *siteConfig) { c.link = link }) // it waits for 90 s before it asks of its own
	j := s.submit(ffmpegtest.Quick())
	s.until("a failed sending", func() bool { return s.logs.FilterMessage("could not deliver a result").Len() > 0 })
	silent.Store(true)
	s.await("the giving away", func(e devmaster.Event) bool { return e.Kind == devmaster.JobReassigned && e.JobID == j.ID })
	silent.Store(false)
	key := job.Key{JobID: j.ID, Attempt: 2}
	s.until("the next attempt", func() bool { _, known, err := s.journal.Record(key); must(t, err); return known })
	second.Store(true)
	refusing.Store(false)
	if r := s.settled(j, 1); r.State != job.RecordSuperseded {
		t.Errorf("ended as %s: %s", r.State, r.Why)
	}
	if r := s.settled(j, 2); r.State != job.RecordSent {
		t.Errorf("the next attempt ended as %s: %s", r.State, r.Why)
	}
	if n := late.Load(); n > 0 {
		t.Errorf("sent %d times after the next attempt was given", n)
	}
}

// setAside is a journal that was replaced as damaged and lost its records.
type setAside struct{ Journal }

func (setAside) Settle(job.Key, job.RecordState, string) error {
	return fmt.Errorf("settling: %w", job.ErrUnknownAttempt)
}

// TestRecordLostByTheJournalIsNotSettledForever: an accepted result is done and a reassigned
// attempt frees its slot, though the journal has nothing to settle.
func TestRecordLostByTheJournalIsNotSettledForever(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *siteConfig) {
		c.wrap = func(p *Dependencies) { p.Journal = setAside{p.Journal} }
	})
	first := s.submit(ffmpegtest.Quick())
	s.result(first.ID, 1)
	s.until("the delivery", func() bool { return s.logs.FilterMessage("result delivered").Len() == 1 })
	given := s.submit(ffmpegtest.Long())
	s.ffmpegPID(given.ID)
	elsewhere := func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == fmt.Sprintf("/jobs/%d", given.SequenceNumber) {
			fmt.Fprintf(w, `{"id":%q,"status":"assigned","node_id":"another"}`, given.ID)
			return
		}
		next.ServeHTTP(w, r)
	}
	s.link.interfere(elsewhere)
	second := s.submit(ffmpegtest.Quick())
	s.result(second.ID, 1)
	if n := s.logs.FilterMessage("could not deliver a result").Len(); n > 0 {
		t.Errorf("sent again %d times", n)
	}
}

// TestResultOvertakenWhileRunningIsNotSent: the master assigns the next attempt to this
// agent while the one before still runs here.
func TestResultOvertakenWhileRunningIsNotSent(t *testing.T) {
	t.Parallel()
	link, m := newLink(t), fencing(t)
	link.connect(m)
	var silent, second atomic.Bool
	var sent atomic.Int64
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if silent.Load() {
			hangUp(w)
			return
		}
		if r.URL.Path == "/results" {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			var result struct{ Attempt int }
			if json.Unmarshal(body, &result); result.Attempt == 1 && second.Load() {
				sent.Add(1)
			}
		}
		next.ServeHTTP(w, r)
	})
	s := newSite(t, func(c *siteConfig) { c.link, c.Slots, c.CancelCheckInterval = link, 2, time.Hour })
	j := s.submit(ffmpegtest.Lasting(t, 5))
	s.ffmpegPID(j.ID)
	silent.Store(true)
	s.await("the reassignment", func(e devmaster.Event) bool { return e.Kind == devmaster.JobReassigned && e.JobID == j.ID })
	silent.Store(false)
	key := job.Key{JobID: j.ID, Attempt: 2}
	s.until("the next attempt", func() bool { _, known, err := s.journal.Record(key); must(t, err); return known })
	second.Store(true)
	if first, _, err := s.journal.Record(job.Key{JobID: j.ID, Attempt: 1}); err != nil || !first.State.Unfinished() {
		t.Fatalf("attempt 1 is %s (%v) when attempt 2 is given, want it to run", first.State, err)
	}
	if r := s.settled(j, 1); r.State != job.RecordSuperseded {
		t.Errorf("attempt 1: got %s (%s), want superseded", r.State, r.Why)
	}
	if n := sent.Load(); n > 0 {
		t.Errorf("attempt 1 was sent %d times after attempt 2 was given, want 0", n)
	}
}

// fullAtSettle is a journal whose disk is full when results are settled.
type fullAtSettle struct {
	Journal
	refusals *atomic.Int64
}

func (j fullAtSettle) Settle(key job.Key, state job.RecordState, why string) error {
	if j.refusals.Add(-1) >= 0 {
		return fmt.Errorf("settling %s: %w", key, syscall.ENOSPC)
	}
	return j.Journal.Settle(key, state, why)
}

// TestAcceptedResultSurvivesFullDisk: the master takes a failed result and re-queues the
// job, so the lease is gone when the disk has room again.
func TestAcceptedResultSurvivesFullDisk(t *testing.T) {
	t.Parallel()
	var refusals, sendings atomic.Int64
	refusals.Store(2)
	s := newSite(t, func(c *siteConfig) {
		c.wrap = func(p *Dependencies) { p.Journal = fullAtSettle{p.Journal, &refusals} }
	})
	s.link.interfere(onResults(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		sendings.Add(1)
		next.ServeHTTP(w, r)
	}))
	j := s.submit(map[string]any{"input": "/nowhere/film.mp4"})
	if r := s.settled(j, 1); r.State != job.RecordSent {
		t.Errorf("attempt 1: got %s (%s), want sent", r.State, r.Why)
	}
	for attempt := 2; attempt <= 4; attempt++ {
		s.settled(j, attempt)
	}
	if n := sendings.Load(); n != 4 {
		t.Errorf("4 attempts were sent %d times, want 4", n)
	}
	if n := s.agent.Status().Counts.Superseded; n != 0 {
		t.Errorf("%d results count as superseded, want 0", n)
	}
}
