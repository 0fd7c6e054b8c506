package devmaster

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"ffmpeg-agent/messages/protocol"
)

func TestQueueOrder(t *testing.T) {
	m := newMaster(t, Config{})
	c := serve(t, m)
	n := c.register("host-a")
	for _, r := range []string{
		`{"scenario":"10 batch high","queue":"batch","priority":"high"}`,
		`{"scenario":"09 default low","priority":"low"}`,
		`{"scenario":"05 default medium"}`,
		`{"scenario":"06 default normal","priority":"normal"}`,
		`{"scenario":"07 unknown queue and priority","queue":"x","priority":"y"}`,
		`{"scenario":"08 between medium and low","priority":1.5}`,
		`{"scenario":"04 default high","priority":"HIGH"}`,
		`{"scenario":"03 above high","priority":"10"}`,
		`{"scenario":"02 live low","queue":"live","priority":"low"}`,
		`{"scenario":"11 batch medium","queue":"batch"}`,
		`{"scenario":"01 live high","queue":"live","priority":"high"}`,
	} {
		c.post(r)
	}
	var order []string
	for j := c.next(n.ID); j != nil; j = c.next(n.ID) {
		order = append(order, j.Scenario)
	}
	if len(order) != 11 || !slices.IsSorted(order) {
		t.Errorf("got order %q, want 11 jobs sorted by name", order)
	}
}

func TestPausedJobsAreNotAssigned(t *testing.T) {
	m := newMaster(t, Config{})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.want(http.StatusOK, "POST", "/jobs/"+job.ID+"/pause", "", nil)
	if got := c.next(n.ID); got != nil {
		t.Fatalf("got paused job %+v, want none", got)
	}
	c.want(http.StatusOK, "POST", "/jobs/"+job.ID+"/resume", "", nil)
	if got := c.next(n.ID); got == nil || got.ID != job.ID {
		t.Fatalf("got %+v after resuming, want job %s", got, job.ID)
	}
	// A job that is paused while it runs keeps its node, whose result is accepted.
	c.want(http.StatusOK, "POST", "/jobs/"+job.ID+"/pause", "", nil)
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusPaused || j.NodeID != n.ID {
		t.Errorf("got job %+v, want it paused on %s", j, n.ID)
	}
	c.want(http.StatusOK, "POST", "/results", result(job.ID, n.ID, protocol.StatusCompleted, 1), nil)
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusCompleted {
		t.Errorf("got status %s, want completed", j.Status)
	}
}

func TestCancelFreesTheNode(t *testing.T) {
	m := newMaster(t, Config{FenceAttempts: true})
	c := serve(t, m)
	n := c.register("host-a")
	first, second := c.post(`{}`), c.post(`{}`)
	c.next(n.ID)
	c.next(n.ID)
	if now := mustNode(t, m, n.ID); now.CurrentJobID != second.ID {
		t.Errorf("got current job %s, want %s", now.CurrentJobID, second.ID)
	}
	c.want(http.StatusOK, "POST", "/jobs/"+second.ID+"/cancel", "", nil)
	if now := mustNode(t, m, n.ID); now.Status != nodeBusy || now.CurrentJobID != first.ID {
		t.Errorf("got node %+v, want it busy with %s", now, first.ID)
	}
	c.want(http.StatusOK, "POST", "/jobs/1/cancel", "", nil)
	if now := mustNode(t, m, n.ID); now.Status != nodeAvailable || now.CurrentJobID != "" {
		t.Errorf("got node %+v, want it available", now)
	}
	if j := mustJob(t, m, first.ID); j.Status != protocol.StatusCanceled || j.NodeID != n.ID || j.CompletedAt == nil {
		t.Errorf("got job %+v, want it canceled on %s", j, n.ID)
	}
}

func TestConcurrentPollsGetEachJobOnce(t *testing.T) {
	const jobs, pollers = 120, 16
	dir := t.TempDir()
	m := newMaster(t, Config{FenceAttempts: true, ResultsDir: dir})
	c := serve(t, m)
	for range jobs {
		if _, err := m.Submit(protocol.JobRequest{Parameters: map[string]any{"fps": 25}}); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	assigned := map[string]string{} // node by job
	var wg sync.WaitGroup
	for i := range pollers {
		node := c.register(fmt.Sprintf("host-%d", i)).ID
		wg.Go(func() {
			for {
				job, err := m.nextJob(node)
				if err != nil || job == nil {
					return
				}
				mu.Lock()
				if other, twice := assigned[job.ID]; twice {
					t.Errorf("job %s was assigned to both %s and %s", job.ID, other, node)
				}
				assigned[job.ID] = node
				mu.Unlock()
				if _, err := m.acceptResult([]byte(result(job.ID, node, protocol.StatusCompleted, 1))); err != nil {
					t.Error(err)
				}
				if err := m.flush(); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(filepath.Join(dir, job.ID+".attempt-1.json")); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() { // concurrent readers
			for range 5 {
				c.do("GET", "/jobs", "")
				c.do("GET", "/nodes", "")
			}
		})
	}
	wg.Wait()
	if len(assigned) != jobs || len(events(m, ResultAccepted)) != jobs {
		t.Errorf("got %d jobs assigned and %d results accepted, want %d", len(assigned), len(events(m, ResultAccepted)), jobs)
	}
}

// TestInvariants calls a fencing master at random and checks its invariants after each step.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, err := New(Config{FenceAttempts: true, MaxRetries: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		model := &model{m: m, ended: map[string]protocol.Status{}, accepted: map[string]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"":          model.check,
			"register":  model.register,
			"submit":    model.submit,
			"poll":      model.poll,
			"report":    model.report,
			"change":    model.change,
			"expire":    model.expire,
			"heartbeat": model.heartbeat,
		})
	})
}

// model is the expected state of a master.
type model struct {
	m        *Master
	nodes    []string
	jobs     []string
	ended    map[string]protocol.Status // final status by job
	accepted map[string]bool            // "job attempt" of accepted results
}

func pick(t *rapid.T, label string, from []string) string {
	if len(from) == 0 {
		return "nobody"
	}
	return rapid.SampledFrom(from).Draw(t, label)
}

func (mo *model) register(t *rapid.T) {
	address := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "address")
	_, n, err := mo.m.register(fmt.Appendf(nil, `{"address":%q}`, address))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(mo.nodes, n.ID) {
		mo.nodes = append(mo.nodes, n.ID)
	}
}

func (mo *model) submit(t *rapid.T) {
	j, err := mo.m.Submit(protocol.JobRequest{Priority: rapid.SampledFrom([]string{"", "low", "9"}).Draw(t, "priority")})
	if err != nil {
		t.Fatal(err)
	}
	mo.jobs = append(mo.jobs, j.ID)
}

func (mo *model) poll(t *rapid.T) {
	_, _ = mo.m.nextJob(pick(t, "node", mo.nodes))
}

func (mo *model) report(t *rapid.T) {
	job, node := pick(t, "job", mo.jobs), pick(t, "node", mo.nodes)
	attempt := rapid.IntRange(1, 3).Draw(t, "attempt")
	status := rapid.SampledFrom([]protocol.Status{"completed", "failed", "canceled"}).Draw(t, "status")
	if _, err := mo.m.acceptResult([]byte(result(job, node, status, attempt))); err != nil {
		return
	}
	key := fmt.Sprint(job, " ", attempt)
	if mo.accepted[key] {
		t.Fatalf("accepted a second result of attempt %d of job %s", attempt, job)
	}
	mo.accepted[key] = true
}

func (mo *model) change(t *rapid.T) {
	change := rapid.SampledFrom([]func(string) (string, error){mo.m.cancelJob, mo.m.pauseJob, mo.m.resumeJob}).Draw(t, "change")
	_, _ = change(pick(t, "job", mo.jobs))
}

// expire makes a node exceed the time without a heartbeat.
func (mo *model) expire(t *rapid.T) {
	node := pick(t, "node", mo.nodes)
	mo.m.mu.Lock()
	if n := mo.m.nodes[node]; n != nil {
		n.LastHeartbeat = n.LastHeartbeat.Add(-mo.m.cfg.UnavailableAfter)
	}
	mo.m.mu.Unlock()
	mo.m.sweepOnce()
}

func (mo *model) heartbeat(t *rapid.T) {
	_ = mo.m.heartbeat(pick(t, "node", mo.nodes), nil)
}

func (mo *model) check(t *rapid.T) {
	held := map[string][]string{}
	for _, j := range mo.m.Jobs() {
		if was, ended := mo.ended[j.ID]; ended && j.Status != was {
			t.Fatalf("job %s changed from %s to %s", j.ID, was, j.Status)
		}
		switch {
		case j.Status.Terminal():
			mo.ended[j.ID] = j.Status
		case j.Status == protocol.StatusAssigned && j.NodeID == "":
			t.Fatalf("job %s is assigned without a node", j.ID)
		case j.Status == protocol.StatusQueued && j.NodeID != "":
			t.Fatalf("job %s is queued with node %s", j.ID, j.NodeID)
		case j.NodeID != "":
			held[j.NodeID] = append(held[j.NodeID], j.ID)
		}
		if j.RetryCount > j.MaxRetries {
			t.Fatalf("job %s has retry count %d, want at most %d", j.ID, j.RetryCount, j.MaxRetries)
		}
		if j.Status.Terminal() != (j.CompletedAt != nil) {
			t.Fatalf("job %s is %s with completed_at %v", j.ID, j.Status, j.CompletedAt)
		}
	}
	for _, n := range mo.m.Nodes() {
		busy := len(held[n.ID]) > 0
		switch {
		case n.Status == nodeOffline && (busy || n.CurrentJobID != ""):
			t.Fatalf("node %s is offline and holds %v (current %q)", n.ID, held[n.ID], n.CurrentJobID)
		case n.Status == nodeBusy && !slices.Contains(held[n.ID], n.CurrentJobID):
			t.Fatalf("node %s is busy with %q and holds %v", n.ID, n.CurrentJobID, held[n.ID])
		case n.Status == nodeAvailable && (busy || n.CurrentJobID != ""):
			t.Fatalf("node %s is available and holds %v (current %q)", n.ID, held[n.ID], n.CurrentJobID)
		}
	}
}
