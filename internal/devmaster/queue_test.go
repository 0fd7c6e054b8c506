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

func TestOrderIsQueueThenPriorityThenAge(t *testing.T) {
	m := newMaster(t, Config{})
	c := serve(t, m)
	n := c.register("host-a")
	for _, r := range []string{
		`{"scenario":"10 batch high","queue":"batch","priority":"high"}`,
		`{"scenario":"09 default low","priority":"low"}`,
		`{"scenario":"05 default medium"}`,
		`{"scenario":"06 default normal","priority":"normal"}`,
		`{"scenario":"07 a queue and a priority nobody knows","queue":"x","priority":"y"}`,
		`{"scenario":"08 between medium and low","priority":1.5}`,
		`{"scenario":"04 default high","priority":"HIGH"}`,
		`{"scenario":"03 above high","priority":"10"}`,
		`{"scenario":"02 live low","queue":"live","priority":"low"}`,
		`{"scenario":"11 batch, older than the other but lower","queue":"batch"}`,
		`{"scenario":"01 live high","queue":"live","priority":"high"}`,
	} {
		c.post(r)
	}
	var order []string
	for j := c.next(n.ID); j != nil; j = c.next(n.ID) {
		order = append(order, j.Scenario)
	}
	if len(order) != 11 || !slices.IsSorted(order) {
		t.Errorf("handed out as %q", order)
	}
}

func TestPausedJobsAreNotHandedOut(t *testing.T) {
	m := newMaster(t, Config{})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.want(http.StatusOK, "POST", "/jobs/"+job.ID+"/pause", "", nil)
	if got := c.next(n.ID); got != nil {
		t.Fatalf("a paused job was handed out: %+v", got)
	}
	c.want(http.StatusOK, "POST", "/jobs/"+job.ID+"/resume", "", nil)
	if got := c.next(n.ID); got == nil || got.ID != job.ID {
		t.Fatalf("after resuming: %+v", got)
	}
	// Paused while it runs, it stays with its node, whose result is taken.
	c.want(http.StatusOK, "POST", "/jobs/"+job.ID+"/pause", "", nil)
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusPaused || j.NodeID != n.ID {
		t.Errorf("paused: %+v", j)
	}
	c.want(http.StatusOK, "POST", "/results", result(job.ID, n.ID, protocol.StatusCompleted, 1), nil)
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusCompleted {
		t.Errorf("the job is %s", j.Status)
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
		t.Errorf("current job %s, want the last one given", now.CurrentJobID)
	}
	c.want(http.StatusOK, "POST", "/jobs/"+second.ID+"/cancel", "", nil)
	if now := mustNode(t, m, n.ID); now.Status != nodeBusy || now.CurrentJobID != first.ID {
		t.Errorf("node with one job left: %+v", now)
	}
	c.want(http.StatusOK, "POST", "/jobs/1/cancel", "", nil)
	if now := mustNode(t, m, n.ID); now.Status != nodeAvailable || now.CurrentJobID != "" {
		t.Errorf("node without a job: %+v", now)
	}
	if j := mustJob(t, m, first.ID); j.Status != protocol.StatusCanceled || j.NodeID != n.ID || j.CompletedAt == nil {
		t.Errorf("the worker finds %+v", j)
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
	given := map[string]string{}
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
				if other, twice := given[job.ID]; twice {
					t.Errorf("job %s was given to %s and to %s", job.ID, other, node)
				}
				given[job.ID] = node
				mu.Unlock()
				if _, err := m.takeResult([]byte(result(job.ID, node, protocol.StatusCompleted, 1))); err != nil {
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
		wg.Go(func() { // and readers beside them
			for range 5 {
				c.do("GET", "/jobs", "")
				c.do("GET", "/nodes", "")
			}
		})
	}
	wg.Wait()
	if len(given) != jobs || len(events(m, ResultAccepted)) != jobs {
		t.Errorf("%d of %d jobs were given, %d results taken", len(given), jobs, len(events(m, ResultAccepted)))
	}
}

// TestWhateverHappensTheBooksAgree drives a fencing master at random and checks
// after each step what must always hold.
func TestWhateverHappensTheBooksAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, err := New(Config{FenceAttempts: true, MaxRetries: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		world := &world{m: m, ended: map[string]protocol.Status{}, taken: map[string]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"":         world.check,
			"register": world.register,
			"submit":   world.submit,
			"poll":     world.poll,
			"report":   world.report,
			"change":   world.change,
			"silence":  world.silence,
			"beat":     world.beat,
		})
	})
}

// world is what the random test knows of the master it drives.
type world struct {
	m     *Master
	nodes []string
	jobs  []string
	ended map[string]protocol.Status
	taken map[string]bool // "job attempt" whose result was taken
}

func pick(t *rapid.T, label string, from []string) string {
	if len(from) == 0 {
		return "nobody"
	}
	return rapid.SampledFrom(from).Draw(t, label)
}

func (w *world) register(t *rapid.T) {
	address := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "address")
	_, n, err := w.m.register(fmt.Appendf(nil, `{"address":%q}`, address))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(w.nodes, n.ID) {
		w.nodes = append(w.nodes, n.ID)
	}
}

func (w *world) submit(t *rapid.T) {
	j, err := w.m.Submit(protocol.JobRequest{Priority: rapid.SampledFrom([]string{"", "low", "9"}).Draw(t, "priority")})
	if err != nil {
		t.Fatal(err)
	}
	w.jobs = append(w.jobs, j.ID)
}

func (w *world) poll(t *rapid.T) {
	_, _ = w.m.nextJob(pick(t, "node", w.nodes))
}

func (w *world) report(t *rapid.T) {
	job, node := pick(t, "job", w.jobs), pick(t, "node", w.nodes)
	attempt := rapid.IntRange(1, 3).Draw(t, "attempt")
	status := rapid.SampledFrom([]protocol.Status{"completed", "failed", "canceled"}).Draw(t, "status")
	if _, err := w.m.takeResult([]byte(result(job, node, status, attempt))); err != nil {
		return
	}
	key := fmt.Sprint(job, " ", attempt)
	if w.taken[key] {
		t.Fatalf("a second result of attempt %d of job %s was taken", attempt, job)
	}
	w.taken[key] = true
}

func (w *world) change(t *rapid.T) {
	change := rapid.SampledFrom([]func(string) (string, error){w.m.cancelJob, w.m.pauseJob, w.m.resumeJob}).Draw(t, "change")
	_, _ = change(pick(t, "job", w.jobs))
}

func (w *world) silence(t *rapid.T) {
	node := pick(t, "node", w.nodes)
	w.m.mu.Lock()
	if n := w.m.nodes[node]; n != nil {
		n.LastHeartbeat = n.LastHeartbeat.Add(-w.m.cfg.UnavailableAfter)
	}
	w.m.mu.Unlock()
	w.m.sweep()
}

func (w *world) beat(t *rapid.T) {
	_ = w.m.heartbeat(pick(t, "node", w.nodes), nil)
}

func (w *world) check(t *rapid.T) {
	held := map[string][]string{}
	for _, j := range w.m.Jobs() {
		if was, ended := w.ended[j.ID]; ended && j.Status != was {
			t.Fatalf("job %s had ended as %s and is %s", j.ID, was, j.Status)
		}
		switch {
		case j.Status.Terminal():
			w.ended[j.ID] = j.Status
		case j.Status == protocol.StatusAssigned && j.NodeID == "":
			t.Fatalf("job %s is assigned to nobody", j.ID)
		case j.Status == protocol.StatusQueued && j.NodeID != "":
			t.Fatalf("job %s waits and is with %s", j.ID, j.NodeID)
		case j.NodeID != "":
			held[j.NodeID] = append(held[j.NodeID], j.ID)
		}
		if j.RetryCount > j.MaxRetries {
			t.Fatalf("job %s: retry %d of %d", j.ID, j.RetryCount, j.MaxRetries)
		}
		if j.Status.Terminal() != (j.CompletedAt != nil) {
			t.Fatalf("job %s is %s, ended at %v", j.ID, j.Status, j.CompletedAt)
		}
	}
	for _, n := range w.m.Nodes() {
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
