package actors

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/protocol"
)

// fieldMaster has the habits of masters in use.
func fieldMaster(t *testing.T, state string) *devmaster.Master {
	t.Helper()
	return newMaster(t, devmaster.Config{StateFile: state, Habits: devmaster.FieldHabits(), MaxRetries: 3, UnavailableAfter: 90 * time.Second})
}

// registerBefore registers the node with the facts of the bare machine, as an earlier agent
// did.
func registerBefore(t *testing.T, l *link) {
	t.Helper()
	resp, err := http.Post(l.URL+"/nodes/register", "application/json", strings.NewReader(`{"address":"test-node"}`))
	must(t, err)
	resp.Body.Close()
}

// withCard are facts that differ from those that registerBefore posts.
func withCard(facts messages.NodeFacts) messages.NodeFacts {
	facts.GPUType, facts.GPUCapabilities = "NVIDIA A10", []string{"nvenc_h264"}
	facts.Labels = map[string]string{"os": "linux"}
	return facts
}

// proves makes the agent prove the card at once.
func (c *siteConfig) proves() {
	c.wrap = func(d *Dependencies) {
		facts := withCard(d.Facts)
		d.FirstProof = func(context.Context) (messages.NodeFacts, error) { return facts, nil }
		d.Prove = d.FirstProof
	}
}

// listed is the node as the master lists it; false if it does not.
func (s *site) listed() (protocol.Node, bool) {
	s.t.Helper()
	resp, err := http.Get(s.link.URL + "/nodes")
	must(s.t, err)
	defer resp.Body.Close()
	var list struct{ Nodes []protocol.Node }
	must(s.t, json.NewDecoder(resp.Body).Decode(&list))
	if len(list.Nodes) == 0 {
		return protocol.Node{}, false
	}
	return list.Nodes[0], true
}

func (s *site) hasCard() bool {
	n, ok := s.listed()
	return ok && n.HasGPU && n.GPUType == "NVIDIA A10" && slices.Equal(n.GPUCapabilities, []string{"nvenc_h264"}) && n.Labels["os"] == "linux"
}

func (s *site) count(kind devmaster.EventKind) int {
	n := 0
	for _, e := range s.master().Events() {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func TestStaleFactsCauseReRegistration(t *testing.T) {
	t.Parallel()
	dir, link := t.TempDir(), newLink(t)
	link.connect(fieldMaster(t, ""))
	registerBefore(t, link)
	t.Run("first run", func(t *testing.T) {
		s := newSite(t, func(c *siteConfig) { c.dir, c.link = dir, link; c.proves() })
		s.until("the facts at the master", s.hasCard)
		s.result(s.submit(map[string]any{"codec": "h264", "duration": 0.2, "resolution": "64x64"}).ID, 1)
		if n := s.count(devmaster.NodeRemoved); n != 1 {
			t.Errorf("removed the node %d times, want once", n)
		}
	})
	t.Run("next run", func(t *testing.T) {
		s := newSite(t, func(c *siteConfig) { c.dir, c.link = dir, link; c.proves() })
		s.result(s.submit(ffmpegtest.Quick()).ID, 1)
		if n := s.count(devmaster.NodeRemoved); n != 1 || !s.hasCard() {
			t.Errorf("removed the node %d times in two runs, want once", n)
		}
	})
}

// A master that never stores what was posted gets each set of facts registered anew once.
func TestNodeIsRemovedOnceForEachSetOfFacts(t *testing.T) {
	t.Parallel()
	dir, link := t.TempDir(), newLink(t)
	link.connect(fieldMaster(t, ""))
	registerBefore(t, link)
	var looks atomic.Int64
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, "/nodes/") {
			next.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		var n protocol.Node
		if json.Unmarshal(answer.Body.Bytes(), &n) == nil {
			n.Labels = nil
			_ = json.NewEncoder(w).Encode(n)
			looks.Add(1)
			return
		}
		w.WriteHeader(answer.Code)
	})
	for _, run := range []string{"first", "second"} {
		t.Run(run, func(t *testing.T) {
			s := newSite(t, func(c *siteConfig) { c.dir, c.link, c.ReconcileInterval = dir, link, 20*time.Millisecond; c.proves() })
			s.until("the removal", func() bool { return s.count(devmaster.NodeRemoved) > 0 })
			from := looks.Load()
			s.until("ten more looks", func() bool { return looks.Load() >= from+10 })
			if n := s.count(devmaster.NodeRemoved); n != 1 {
				t.Errorf("removed the node %d times, want once", n)
			}
		})
	}
}

// removals counts the removals of nodes.
type removals struct {
	Master
	made int
}

func (r *removals) Remove(context.Context, messages.Session) error { r.made++; return nil }

// TestAlternatingFactsCauseOneRemovalEach: a card fails its trial now and then.
func TestAlternatingFactsCauseOneRemovalEach(t *testing.T) {
	t.Parallel()
	book, err := journal.Open(journal.Settings{Path: filepath.Join(t.TempDir(), "journal.db")})
	must(t, err)
	defer book.Close()
	made := &removals{}
	p := &poller{shared: &shared{Dependencies: Dependencies{Journal: book, Master: made}}, log: zap.NewNop()}
	with, without := withCard(messages.NodeFacts{}).Scheduling(), messages.NodeFacts{}.Scheduling()
	for _, m := range []struct {
		url   string
		facts messages.SchedulingFacts
		want  bool
	}{
		{"http://a", with, true}, {"http://a", without, true}, {"http://a", with, false}, {"http://a", without, false},
		{"http://b", with, true}, {"http://a", with, false}, {"http://b", with, false},
	} {
		removed, err := p.removeFor(t.Context(), messages.Session{Master: m.url}, m.facts)
		if err != nil || removed != m.want {
			t.Errorf("%s, %+v: got removed %t (%v), want %t", m.url, m.facts, removed, err, m.want)
		}
	}
	if made.made != 3 {
		t.Errorf("removed the node %d times, want 3", made.made)
	}
	for i := range 2 * maxKnownFacts {
		_, err := p.removeFor(t.Context(), messages.Session{Master: "http://a"}, messages.SchedulingFacts{GPUType: strconv.Itoa(i)})
		must(t, err)
	}
	if all, err := book.Renewals(); err != nil || len(all) != maxKnownFacts || all[len(all)-1].Facts.GPUType != strconv.Itoa(2*maxKnownFacts-1) {
		t.Errorf("got %d sets of facts (%v), want the latest %d", len(all), err, maxKnownFacts)
	}
}

func TestRefusedRemovalIsGivenUp(t *testing.T) {
	t.Parallel()
	link := newLink(t)
	link.connect(fieldMaster(t, ""))
	registerBefore(t, link)
	var looks, removals atomic.Int64
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodDelete:
			removals.Add(1)
			http.Error(w, "database is locked", http.StatusInternalServerError)
			return
		case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/nodes/"):
			looks.Add(1)
		}
		next.ServeHTTP(w, r)
	})
	s := newSite(t, func(c *siteConfig) { c.link, c.ReconcileInterval = link, 20*time.Millisecond; c.proves() })
	s.until("the last try", func() bool { return removals.Load() == maxRenewals })
	from := looks.Load()
	s.until("ten more looks", func() bool { return looks.Load() >= from+10 })
	if n := removals.Load(); n != maxRenewals {
		t.Errorf("tried to remove the node %d times, want %d", n, maxRenewals)
	}
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
}

func TestNodeIsNotRemovedWhileAJobRuns(t *testing.T) {
	t.Parallel()
	link := newLink(t)
	link.connect(fieldMaster(t, ""))
	registerBefore(t, link)
	proved := make(chan struct{})
	s := newSite(t, func(c *siteConfig) {
		c.link, c.Slots, c.ReconcileInterval = link, 2, 20*time.Millisecond
		c.wrap = func(d *Dependencies) {
			facts := withCard(d.Facts)
			d.Prove = func(ctx context.Context) (messages.NodeFacts, error) {
				select {
				case <-proved:
				case <-ctx.Done():
				}
				return facts, ctx.Err()
			}
		}
	})
	job := s.submit(ffmpegtest.Long())
	s.ffmpegPID(job.ID)
	close(proved)
	s.until("the registration with the proof", func() bool { return s.count(devmaster.NodeRegistered) == 3 })
	var looks atomic.Int64
	s.link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/nodes/") {
			looks.Add(1)
		}
		next.ServeHTTP(w, r)
	})
	s.until("five looks beside the job", func() bool { return looks.Load() >= 5 })
	if n := s.count(devmaster.NodeRemoved); n != 0 {
		t.Errorf("removed the node %d times beside a running job", n)
	}
	s.post("/jobs/" + job.ID + "/cancel")
	s.until("the facts at the master", s.hasCard)
	if r := s.result(job.ID, 1); r.Status != protocol.StatusCanceled {
		t.Errorf("the job ended as %s, want canceled", r.Status)
	}
	if n := s.count(devmaster.ResultRejected); n != 0 {
		t.Errorf("%d results were rejected", n)
	}
}

func TestNodeIsNotRemovedBeforeTrialsEnd(t *testing.T) {
	t.Parallel()
	link := newLink(t)
	link.connect(fieldMaster(t, ""))
	registerBefore(t, link)
	proved := make(chan struct{})
	var looks atomic.Int64
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/nodes/") {
			looks.Add(1)
		}
		next.ServeHTTP(w, r)
	})
	s := newSite(t, func(c *siteConfig) {
		c.link, c.ReconcileInterval = link, 20*time.Millisecond
		c.wrap = func(d *Dependencies) {
			d.Facts.Labels = map[string]string{"os": "linux"} // the master has others already
			facts := withCard(d.Facts)
			d.Prove = func(ctx context.Context) (messages.NodeFacts, error) {
				select {
				case <-proved:
				case <-ctx.Done():
				}
				return facts, ctx.Err()
			}
		}
	})
	s.await("the registration", registered)
	from := looks.Load()
	s.until("ten looks before the trials end", func() bool { return looks.Load() >= from+10 })
	if n := s.count(devmaster.NodeRemoved); n != 0 {
		t.Errorf("removed the node %d times before the trials ended, want 0", n)
	}
	close(proved)
	s.until("the facts at the master", s.hasCard)
	if n := s.count(devmaster.NodeRemoved); n != 1 {
		t.Errorf("removed the node %d times, want once", n)
	}
}

func TestFirstRegistrationWaitsForHardwareTrials(t *testing.T) {
	t.Parallel()
	link := newLink(t)
	link.connect(fieldMaster(t, ""))
	proved := make(chan struct{})
	trying := make(chan struct{})
	s := newSite(t, func(c *siteConfig) {
		c.link = link
		c.wrap = func(d *Dependencies) {
			facts := withCard(d.Facts)
			d.FirstProof = func(context.Context) (messages.NodeFacts, error) {
				close(trying)
				<-proved
				return facts, nil
			}
			d.Prove = func(context.Context) (messages.NodeFacts, error) { return facts, nil }
		}
	})
	<-trying
	if n := s.count(devmaster.NodeRegistered); n != 0 {
		t.Error("registered before the trials ended")
	}
	close(proved)
	s.until("the facts at the master", s.hasCard)
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
	if n, removed := s.count(devmaster.NodeRegistered), s.count(devmaster.NodeRemoved); n != 1 || removed != 0 {
		t.Errorf("registered %d times and removed %d times, want one registration", n, removed)
	}
}

func TestHangingTrialsDoNotKeepTheNodeUnregistered(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	s := newSite(t, func(c *siteConfig) {
		c.FirstProofWithin = 100 * time.Millisecond
		c.wrap = func(d *Dependencies) {
			facts := d.Facts
			d.FirstProof = func(context.Context) (messages.NodeFacts, error) {
				<-release
				return facts, nil
			}
		}
	})
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
}

// After a failover the master answers heartbeats but has lost sight of the node.
func TestUnlistedNodeRegistersAgain(t *testing.T) {
	t.Parallel()
	state, link := filepath.Join(t.TempDir(), "state.json"), newLink(t)
	link.connect(fieldMaster(t, state))
	s := newSite(t, func(c *siteConfig) { c.link, c.ReconcileInterval = link, 50*time.Millisecond })
	s.until("the node in the list", func() bool { _, ok := s.listed(); return ok })
	link.cut()
	must(t, s.master().Close())
	link.connect(fieldMaster(t, state))
	s.until("the node in the list after the failover", func() bool { _, ok := s.listed(); return ok })
	s.result(s.submit(ffmpegtest.Quick()).ID, 1)
}

func TestNodeRegistersAgainAfterSilence(t *testing.T) {
	t.Parallel()
	link := newLink(t)
	link.connect(newMaster(t, devmaster.Config{Habits: devmaster.FieldHabits(), UnavailableAfter: 10 * beat}))
	var silent atomic.Bool
	link.interfere(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if silent.Load() {
			hangUp(w)
			return
		}
		next.ServeHTTP(w, r)
	})
	for reason, test := range map[string]struct{ unavailableAfter, reconcileInterval time.Duration }{
		"no heartbeat was answered for":         {10 * beat, time.Hour},
		"the master lists this node as offline": {time.Hour, 50 * time.Millisecond},
	} {
		t.Run(reason, func(t *testing.T) {
			s := newSite(t, func(c *siteConfig) {
				c.link, c.UnavailableAfter, c.ReconcileInterval = link, test.unavailableAfter, test.reconcileInterval
			})
			status := func(want string) func() bool {
				return func() bool {
					nodes := s.master().Nodes()
					return len(nodes) == 1 && nodes[0].Status == want
				}
			}
			s.until("the node", status("available"))
			silent.Store(true)
			s.until("the node to be offline", status("offline"))
			silent.Store(false)
			s.until("the node to be available again", status("available"))
			for _, e := range s.logs.FilterMessage("registering again").All() {
				if got, _ := e.ContextMap()["reason"].(string); !strings.HasPrefix(got, reason) {
					t.Errorf("registered again because %q, want %q", got, reason)
				}
			}
			s.result(s.submit(ffmpegtest.Quick()).ID, 1)
		})
	}
}
