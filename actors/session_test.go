package actors

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
)

// post makes a call to the master as an operator would.
func (s *site) post(path string) {
	s.t.Helper()
	resp, err := http.Post(s.link.URL+path, "application/json", nil)
	must(s.t, err)
	resp.Body.Close()
	if resp.StatusCode >= 300 {
		s.t.Fatalf("POST %s: %s", path, resp.Status)
	}
}

func registered(e devmaster.Event) bool { return e.Kind == devmaster.NodeRegistered }

func TestRegistrationWaitsForTheMaster(t *testing.T) {
	m := newMaster(t, devmaster.Config{FenceAttempts: true, MaxRetries: 3, UnavailableAfter: 90 * time.Second})
	link := newLink(t)
	s := newSite(t, func(c *siteConfig) { c.link = link })
	s.until("a failed registration", func() bool {
		return s.logs.FilterMessage("could not register with the master").Len() > 0
	})
	link.connect(m)
	s.await("the registration", registered)
}

func TestForgottenNodeRegistersAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.until("the session", func() bool { return s.agent.Snapshots().Session() != nil })
	first := *s.agent.Snapshots().Session()
	fresh := newMaster(t, devmaster.Config{FenceAttempts: true, MaxRetries: 3, UnavailableAfter: 90 * time.Second})
	s.link.connect(fresh)
	s.await("the registration at the new master", registered)
	heard := 0
	for _, e := range fresh.Events() {
		if registered(e) {
			break
		}
		if e.Kind == devmaster.Heartbeat {
			heard++
		}
	}
	if heard > 1 {
		t.Errorf("%d heartbeats went unknown before the node registered again, want one at most", heard)
	}
	s.until("the new session", func() bool { return s.agent.Snapshots().Session().NodeID != first.NodeID })
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
}

func TestRestartResumesTheSession(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := newLink(t)
	m := newMaster(t, devmaster.Config{FenceAttempts: true, MaxRetries: 3, UnavailableAfter: 90 * time.Second})
	link.connect(m)
	t.Run("first run", func(t *testing.T) {
		s := newSite(t, func(c *siteConfig) { c.dir, c.link = dir, link })
		s.await("the registration", registered)
		s.until("the session on disk", func() bool { _, found, err := s.journal.Session(); return found && err == nil })
	})
	s := newSite(t, func(c *siteConfig) { c.dir, c.link, c.Register = dir, link, false })
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
	var count int
	for _, e := range m.Events() {
		if registered(e) {
			count++
		}
	}
	if count != 1 {
		t.Errorf("registered %d times, want once", count)
	}
}

func TestWrongKeyIsLoggedAndRetriedSlowly(t *testing.T) {
	t.Parallel()
	link := newLink(t)
	m := newMaster(t, devmaster.Config{APIKeys: []string{"right"}, FenceAttempts: true, MaxRetries: 3, UnavailableAfter: 90 * time.Second})
	link.connect(m)
	s := newSite(t, func(c *siteConfig) { c.link, c.apiKey = link, "wrong" })
	said := func() int { return s.logs.FilterMessageSnippet("rejected this agent's API key").Len() }
	s.until("the error", func() bool { return said() > 0 })
	for _, e := range s.logs.FilterMessageSnippet("rejected this agent's API key").All() {
		if next, ok := e.ContextMap()["next_try"].(time.Duration); !ok || next < 30*time.Second {
			t.Errorf("the next try is due after %s, want half a minute at least", next)
		}
	}
	for _, e := range s.logs.All() {
		if strings.Contains(e.Message, "wrong") {
			t.Errorf("the key is in the log: %s", e.Message)
		}
	}
}

func TestHeartbeatsWaitForNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.await("the registration", registered)
	// Every call but the heartbeat hangs.
	release := make(chan struct{})
	defer close(release)
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/heartbeat") {
			io.Copy(io.Discard, r.Body) // or the server does not see the caller go
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return
		}
		next.ServeHTTP(w, r)
	})
	from := time.Now()
	s.until("ten more heartbeats", func() bool { return len(s.beatsSince(from)) >= 10 })
	s.checkBeats(from)
}

func TestHangingHeartbeatDoesNotDelayTheNext(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.await("the registration", registered)
	var arrived atomic.Int64
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/heartbeat") {
			arrived.Add(1)
			io.Copy(io.Discard, r.Body) // or the server does not see the caller go
			<-r.Context().Done()
			return
		}
		next.ServeHTTP(w, r)
	})
	s.until("five heartbeats", func() bool { return arrived.Load() >= 5 })
}

func (s *site) beatsSince(from time.Time) []time.Time {
	var beats []time.Time
	for _, e := range s.master().Events() {
		if e.Kind == devmaster.Heartbeat && e.At.After(from) {
			beats = append(beats, e.At)
		}
	}
	return beats
}

// checkBeats fails where the master got no heartbeat for more than two intervals. A heartbeat
// passes through several goroutines, so it may be late by several times what a timer was.
func (s *site) checkBeats(from time.Time) {
	s.t.Helper()
	allowance := max(500*time.Millisecond, 6*time.Duration(s.lateness.Load()))
	beats := s.beatsSince(from)
	if len(beats) == 0 {
		s.t.Errorf("no heartbeat at all for %s", time.Since(from))
	}
	last := from
	for _, at := range append(beats, time.Now()) {
		if gap := at.Sub(last); gap > 2*beat+allowance {
			s.t.Errorf("no heartbeat for %s, interval %s", gap, beat)
		}
		last = at
	}
}

// TestLostRegistrationResponseMakesNoSecondNode: the master registers the node, and the
// response is lost.
func TestLostRegistrationResponseMakesNoSecondNode(t *testing.T) {
	t.Parallel()
	m := newMaster(t, devmaster.Config{FenceAttempts: true})
	link := newLink(t)
	link.connect(m)
	var lost atomic.Bool
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/nodes/register" && lost.CompareAndSwap(false, true) {
			next.ServeHTTP(httptest.NewRecorder(), r)
			hangUp(w)
			return
		}
		next.ServeHTTP(w, r)
	})
	s := newSite(t, func(c *siteConfig) { c.link = link })
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
	if nodes := m.Nodes(); len(nodes) != 1 || !lost.Load() {
		t.Errorf("the master knows %d nodes", len(nodes))
	}
}

// TestProvedEncodersAreRegistered: trial encodes end after the registration, which is then
// repeated. A restart of the registrar keeps their result.
func TestProvedEncodersAreRegistered(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newSite(t, func(c *siteConfig) {
		c.wrap = func(p *Dependencies) {
			p.Prove = func(context.Context) (messages.NodeFacts, error) {
				<-release
				facts := p.Facts
				facts.GPUType, facts.GPUCapabilities = "nvenc", []string{"nvenc_h264"}
				return facts, nil
			}
		}
	})
	s.await("the registration before the trials", registered)
	close(release)
	told := func() bool {
		nodes := s.master().Nodes()
		return len(nodes) == 1 && slices.Equal(nodes[0].GPUCapabilities, []string{"nvenc_h264"}) && nodes[0].HasGPU
	}
	s.until("the proved encoders at the master", told)
	must(t, s.agent.Crash("agent/registrar"))
	s.until("the restart", func() bool { stats, _ := s.stats("agent/registrar"); return stats.Restarts == 1 })
	s.link.connect(newMaster(t, devmaster.Config{FenceAttempts: true}))
	s.until("the proved encoders at the next master", told)
}
