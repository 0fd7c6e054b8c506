package actors

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// onResults lets f handle POST /results, and passes everything else on.
func onResults(f func(next http.Handler, w http.ResponseWriter, r *http.Request)) func(http.Handler, http.ResponseWriter, *http.Request) {
	return func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/results" {
			f(next, w, r)
			return
		}
		next.ServeHTTP(w, r)
	}
}

func (s *site) settled(j protocol.Job, attempt int) job.Record {
	s.t.Helper()
	var record job.Record
	s.until("the end of the result of job "+j.ID, func() bool {
		r, found, err := s.journal.Record(job.Key{JobID: j.ID, Attempt: attempt})
		must(s.t, err)
		record = r
		return found && r.State.Settled()
	})
	return record
}

func TestResultSurvivesAnOutage(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	var refusing atomic.Bool
	refusing.Store(true)
	s.link.interfere(onResults(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if refusing.Load() {
			http.Error(w, "database is down", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	}))
	j := s.submit(ffmpegtest.Quick())
	s.until("a failed sending", func() bool { return s.logs.FilterMessage("could not deliver a result").Len() > 0 })
	refusing.Store(false)
	s.result(j.ID, 1)
	if r := s.settled(j, 1); r.State != job.RecordSent {
		t.Errorf("ended as %s: %s", r.State, r.Why)
	}
}

// TestLostResponseIsNotSentAgain: the master takes the result and the response is lost.
// The agent asks before it sends again.
func TestLostResponseIsNotSentAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	var sendings atomic.Int64
	s.link.interfere(onResults(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		sendings.Add(1)
		next.ServeHTTP(httptest.NewRecorder(), r)
		hangUp(w)
	}))
	j := s.submit(ffmpegtest.Quick())
	if r := s.settled(j, 1); r.State != job.RecordSent {
		t.Errorf("ended as %s: %s", r.State, r.Why)
	}
	if n := sendings.Load(); n != 1 {
		t.Errorf("sent %d times", n)
	}
}

func TestRejectedResultIsADeadLetter(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		want   job.RecordState
	}{
		"400": {http.StatusBadRequest, job.RecordDeadLetter},
		"409": {http.StatusConflict, job.RecordSuperseded},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, nil)
			var sendings atomic.Int64
			s.link.interfere(onResults(func(_ http.Handler, w http.ResponseWriter, r *http.Request) {
				sendings.Add(1)
				http.Error(w, "no", test.status)
			}))
			j := s.submit(ffmpegtest.Quick())
			r := s.settled(j, 1)
			if r.State != test.want || len(r.Result) == 0 {
				t.Errorf("ended as %s with %d bytes kept, want %s", r.State, len(r.Result), test.want)
			}
			if n := sendings.Load(); n != 1 {
				t.Errorf("sent %d times", n)
			}
		})
	}
}

// TestUnknownJobBlocksNoOtherResult: the master lost the job and answers 500 until the result
// is a dead letter. Later results are delivered meanwhile.
func TestUnknownJobBlocksNoOtherResult(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	var lost atomic.Value
	lost.Store("")
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		id := lost.Load().(string)
		switch {
		case id == "":
		case r.URL.Path == "/results":
			body, err := io.ReadAll(r.Body)
			if err == nil && strings.Contains(string(body), id) {
				http.Error(w, "job not found", http.StatusInternalServerError)
				return
			}
			r.Body = io.NopCloser(strings.NewReader(string(body)))
		case strings.HasPrefix(r.URL.Path, "/jobs/") && r.URL.Path != "/jobs/next":
			http.Error(w, "job not found", http.StatusNotFound)
			return
		case r.URL.Path == "/jobs" && r.Method == http.MethodGet:
			io.WriteString(w, `{"jobs":null,"count":0}`)
			return
		}
		next.ServeHTTP(w, r)
	})
	j := s.submit(ffmpegtest.Quick())
	lost.Store(j.ID)
	second := s.submit(ffmpegtest.Quick())
	s.result(second.ID, 1)
	if r := s.settled(j, 1); r.State != job.RecordDeadLetter {
		t.Errorf("ended as %s: %s", r.State, r.Why)
	}
}

// TestLostOfferIsTakenUp: the master assigns a job and the response is lost. The agent finds
// the job listed as its own and runs it.
func TestLostOfferIsTakenUp(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.await("the registration", registered)
	var lost atomic.Bool
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jobs/next" {
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			if !strings.Contains(answer.Body.String(), "null") && lost.CompareAndSwap(false, true) {
				hangUp(w)
				return
			}
			w.WriteHeader(answer.Code)
			w.Write(answer.Body.Bytes())
			return
		}
		next.ServeHTTP(w, r)
	})
	j := s.submit(ffmpegtest.Quick())
	s.result(j.ID, 1)
	if !lost.Load() {
		t.Error("no answer was lost")
	}
	assigned := 0
	for _, e := range s.master().Events() {
		if e.Kind == devmaster.JobAssigned && e.JobID == j.ID {
			assigned++
		}
	}
	if assigned != 1 {
		t.Errorf("assigned %d times", assigned)
	}
}

// TestInterruptedJobIsReportedAtStart: an attempt that the journal has as running and whose
// agent is gone is reported as failed, so that the master re-queues it.
func TestInterruptedJobIsReportedAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := newLink(t)
	m := newMaster(t, devmaster.Config{FenceAttempts: true, MaxRetries: 3, UnavailableAfter: 90 * time.Second})
	link.connect(m)
	var j protocol.Job
	t.Run("killed during a job", func(t *testing.T) {
		s := newSite(t, func(c *siteConfig) { c.dir, c.link = dir, link })
		j = s.submit(ffmpegtest.Long())
		s.ffmpegPID(j.ID)
		link.cut()
	})
	link.connect(m)
	s := newSite(t, func(c *siteConfig) { c.dir, c.link = dir, link })
	if r := s.result(j.ID, 1); r.FailureReason != protocol.ReasonPlatformError {
		t.Errorf("reason %s: %s", r.FailureReason, r.Error)
	}
}

// TestResultTakenBehindABadGatewayIsSent: the master takes the result, and a proxy answers
// 502 in its place.
func TestResultTakenBehindABadGatewayIsSent(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.link.interfere(onResults(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(httptest.NewRecorder(), r)
		http.Error(w, "bad gateway", http.StatusBadGateway)
	}))
	if r := s.settled(s.submit(ffmpegtest.Quick()), 1); r.State != job.RecordSent {
		t.Errorf("got %s (%s), want sent", r.State, r.Why)
	}
}

// outdatedMaster is a master each of whose answers for a lease arrives too late.
type outdatedMaster struct {
	Master
	asked int
}

func (m *outdatedMaster) Extend(context.Context, job.Lease) (job.LeaseStatus, error) {
	if m.asked++; m.asked > 10 {
		return 0, errors.New("asked without end")
	}
	time.Sleep(time.Millisecond)
	return job.LeaseHeld, nil
}

func TestOutdatedAnswersAreNotAskedForWithoutEnd(t *testing.T) {
	m := &outdatedMaster{}
	u := &uploader{shared: &shared{Dependencies: Dependencies{Master: m}}}
	u.current.Store(&Settings{UnavailableAfter: time.Microsecond})
	d := delivery{}
	u.ask(t.Context(), upload{overtaken: &atomic.Bool{}}, &d)
	if m.asked != 2 || !errors.Is(d.err, errOutdated) || d.asked() {
		t.Errorf("asked %d times with error %v, want 2 and %v", m.asked, d.err, errOutdated)
	}
}
