package devmaster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"ffmpeg-agent/messages/protocol"
)

func TestInvalidResultsAreRejected(t *testing.T) {
	m := newMaster(t, Config{FenceAttempts: true})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.next(n.ID)
	fields := func(more string) string {
		return fmt.Sprintf(`{"job_id":%q,"node_id":%q,"status":"completed","attempt":1%s}`, job.ID, n.ID, more)
	}
	invalid := []struct{ name, body string }{
		{"not JSON", `completed`},
		{"null", `null`},
		{"list", `[]`},
		{"trailing data", fields("") + `{}`},
		{"no job id", `{"node_id":"x","status":"completed"}`},
		{"fractional progress", fields(`,"progress":99.5`)},
		{"progress as a string", fields(`,"progress":"99"`)},
		{"progress above 100", fields(`,"progress":101`)},
		{"progress below 0", fields(`,"progress":-1`)},
		{"score as a string", fields(`,"vmaf_score":"93"`)},
		{"score out of range", fields(`,"energy_joules":1e999`)},
		{"score NaN", fields(`,"qoe_score":NaN`)},
		{"logs as a list", fields(`,"logs":["a"]`)},
		{"metrics as a list", fields(`,"metrics":[]`)},
		{"invalid time", fields(`,"completed_at":"yesterday"`)},
		{"fractional attempt", fields(`,"attempt":1.5`)},
		{"status not final", strings.Replace(fields(""), "completed", "running", 1)},
		{"no status", fmt.Sprintf(`{"job_id":%q}`, job.ID)},
	}
	for _, tc := range invalid {
		t.Run(tc.name, func(t *testing.T) {
			client{t, c.base, c.http}.want(http.StatusBadRequest, "POST", "/results", tc.body, nil)
		})
	}
	if got := len(events(m, ResultRejected)); got != len(invalid) {
		t.Errorf("got %d rejected results, want %d", got, len(invalid))
	}
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusAssigned {
		t.Errorf("got status %s, want assigned", j.Status)
	}
	c.want(http.StatusOK, "POST", "/results", fields(`,"progress":100,"energy_joules":12.5,"unknown_field":true`), nil)
}

func TestCompletedResult(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nested", "results")
	m := newMaster(t, Config{FenceAttempts: true, ResultsDir: dir})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.next(n.ID)
	body := fmt.Sprintf("{ \"job_id\": %q,\n\"node_id\":%q, \"status\":\"completed\", \"progress\":100, \"metrics\":{\"a\":\"<&>\"}, \"energy_joules\":0.10}  \n", job.ID, n.ID)
	var response protocol.ResultResponse
	c.want(http.StatusOK, "POST", "/results", body, &response)
	if diff := cmp.Diff(protocol.ResultResponse{Status: "success"}, response); diff != "" {
		t.Errorf("response (-want +got):\n%s", diff)
	}
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusCompleted || j.Progress != 100 || j.CompletedAt == nil {
		t.Errorf("got job %+v, want it completed", j)
	}
	if now := mustNode(t, m, n.ID); now.Status != nodeAvailable || now.CurrentJobID != "" {
		t.Errorf("got node %+v, want it available", now)
	}
	if _, got := c.do("GET", "/jobs/"+job.ID+"/result", ""); got != body {
		t.Errorf("GET result by ID: got %q, want %q", got, body)
	}
	if _, got := c.do("GET", "/jobs/1/result", ""); got != body {
		t.Errorf("GET result by sequence number: got %q, want %q", got, body)
	}
	res, raw, ok := m.Result(job.ID)
	if !ok || string(raw) != body || res.EnergyJoules == nil || *res.EnergyJoules != 0.1 {
		t.Errorf("Result: got %+v %q %v, want %q", res, raw, ok, body)
	}
	stored, err := os.ReadFile(filepath.Join(dir, job.ID+".attempt-1.json"))
	if err != nil || string(stored) != body {
		t.Errorf("result file: got %q, %v; want %q", stored, err, body)
	}
}

func TestFailedJobIsRetried(t *testing.T) {
	dir := t.TempDir()
	m := newMaster(t, Config{FenceAttempts: true, ResultsDir: dir})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.post(`{}`) // submitted later, so the retried job comes before it
	for attempt := 1; attempt <= 4; attempt++ {
		got := c.next(n.ID)
		if got == nil || got.ID != job.ID || got.Attempt() != attempt || got.Progress != 0 {
			t.Fatalf("attempt %d: got job %+v, want %s", attempt, got, job.ID)
		}
		var response protocol.ResultResponse
		c.want(http.StatusOK, "POST", "/results", result(job.ID, n.ID, protocol.StatusFailed, attempt), &response)
		want := protocol.ResultResponse{Status: "retrying", Retry: attempt, MaxRetries: 3}
		if attempt == 4 {
			want = protocol.ResultResponse{Status: "success"}
		}
		if diff := cmp.Diff(want, response); diff != "" {
			t.Errorf("attempt %d: response (-want +got):\n%s", attempt, diff)
		}
		if now := mustNode(t, m, n.ID); now.Status != nodeAvailable {
			t.Errorf("attempt %d: got node status %s, want available", attempt, now.Status)
		}
	}
	j := mustJob(t, m, job.ID)
	if j.Status != protocol.StatusFailed || j.RetryCount != 3 || j.Error != "encoder crashed" || j.FailureReason != protocol.ReasonRuntimeError {
		t.Errorf("got job %+v, want it failed after 3 retries with the reported error", j)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(files) != 4 {
		t.Errorf("got result files %v, want one per attempt", files)
	}
}

func TestNegativeMaxRetriesMeansNone(t *testing.T) {
	m := newMaster(t, Config{MaxRetries: -1})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.next(n.ID)
	c.want(http.StatusOK, "POST", "/results", result(job.ID, n.ID, protocol.StatusFailed, 1), nil)
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusFailed {
		t.Errorf("got status %s, want failed", j.Status)
	}
}

// TestFencing sends one result after each preparation, to a fencing master and to one that
// does not fence.
func TestFencing(t *testing.T) {
	const a, b = "A", "B"
	reassigned := func(s *scenario) { s.take(a); s.fail(a, 1); s.take(b) }
	for _, tc := range []struct {
		name     string
		prepare  func(*scenario)
		node     string
		attempt  int
		status   protocol.Status
		code     int
		job      protocol.Status // status afterwards
		unfenced int             // code without fencing
	}{
		{"current node and attempt", reassigned, b, 2, "completed", 200, "completed", 200},
		{"current node without attempt", reassigned, b, 0, "completed", 200, "completed", 200},
		{"previous node", reassigned, a, 1, "completed", 409, "assigned", 200},
		{"previous node with current attempt", reassigned, a, 2, "completed", 409, "assigned", 200},
		{"current node with previous attempt", reassigned, b, 1, "completed", 409, "assigned", 200},
		{"current node with future attempt", reassigned, b, 3, "completed", 409, "assigned", 200},
		{"failure of previous node", reassigned, a, 1, "failed", 409, "assigned", 200},
		{"no node", reassigned, "", 2, "completed", 409, "assigned", 200},
		{"previous attempt of same node", func(s *scenario) { s.take(a); s.fail(a, 1); s.take(a) }, a, 1, "completed", 409, "assigned", 200},
		{"job queued for retry", func(s *scenario) { s.take(a); s.fail(a, 1) }, a, 1, "completed", 409, "queued", 200},
		{"no node, job queued", func(*scenario) {}, "", 1, "completed", 409, "queued", 200},
		{"same result again", func(s *scenario) { s.take(a); s.complete(a, 1) }, a, 1, "completed", 409, "completed", 200},
		{"failure after completion", func(s *scenario) { s.take(a); s.complete(a, 1) }, a, 1, "failed", 409, "completed", 200},
		{"canceled job", func(s *scenario) { s.take(a); s.cancel() }, a, 1, "canceled", 200, "canceled", 200},
		{"canceled job completed", func(s *scenario) { s.take(a); s.cancel() }, a, 1, "completed", 200, "canceled", 200},
		{"canceled job failed", func(s *scenario) { s.take(a); s.cancel() }, a, 1, "failed", 200, "canceled", 200},
		{"canceled job again", func(s *scenario) { s.take(a); s.cancel(); s.send(a, 1, "canceled") }, a, 1, "canceled", 409, "canceled", 200},
		{"canceled job from another node", func(s *scenario) { s.take(a); s.cancel() }, b, 1, "canceled", 409, "canceled", 200},
		{"canceled by the node itself", func(s *scenario) { s.take(a) }, a, 1, "canceled", 200, "canceled", 200},
		{"canceled while queued for retry", func(s *scenario) { s.take(a); s.fail(a, 1); s.cancel() }, a, 1, "failed", 409, "canceled", 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScenario(t, true, a, b)
			tc.prepare(s)
			if code := s.send(tc.node, tc.attempt, tc.status); code != tc.code {
				t.Errorf("got %d, want %d", code, tc.code)
			}
			if j := mustJob(t, s.m, s.job); j.Status != tc.job {
				t.Errorf("got job status %s, want %s", j.Status, tc.job)
			}
			s = newScenario(t, false, a, b)
			tc.prepare(s)
			if code := s.send(tc.node, tc.attempt, tc.status); code != tc.unfenced {
				t.Errorf("without fencing: got %d, want %d", code, tc.unfenced)
			}
		})
	}
}

func TestLateResultWithoutFencing(t *testing.T) {
	s := newScenario(t, false, "A", "B")
	s.take("A")
	s.fail("A", 1)
	s.take("B")
	s.send("A", 1, "completed")
	if j := mustJob(t, s.m, s.job); j.Status != protocol.StatusCompleted {
		t.Errorf("got job status %s, want completed", j.Status)
	}
	if n := mustNode(t, s.m, s.nodes["B"]); n.Status != nodeAvailable {
		t.Errorf("got node status %s, want available", n.Status)
	}
	// A failure re-queues even a completed job.
	s.send("B", 2, "failed")
	if j := mustJob(t, s.m, s.job); j.Status != protocol.StatusQueued || j.RetryCount != 2 || j.CompletedAt != nil {
		t.Errorf("got job %+v after a late failure, want it queued for retry 2", j)
	}
}

// scenario is a master with one job and several nodes.
type scenario struct {
	t     *testing.T
	m     *Master
	c     client
	job   string
	nodes map[string]string // ID by name
}

func newScenario(t *testing.T, fence bool, names ...string) *scenario {
	m := newMaster(t, Config{FenceAttempts: fence})
	s := &scenario{t: t, m: m, c: serve(t, m), nodes: map[string]string{}}
	for _, name := range names {
		s.nodes[name] = s.c.register(name).ID
	}
	s.job = s.c.post(`{}`).ID
	return s
}

func (s *scenario) take(node string) {
	s.t.Helper()
	if j := s.c.next(s.nodes[node]); j == nil || j.ID != s.job {
		s.t.Fatalf("poll of %s: got %+v, want job %s", node, j, s.job)
	}
}

func (s *scenario) send(node string, attempt int, status protocol.Status) (code int) {
	s.t.Helper()
	code, _ = s.c.do("POST", "/results", result(s.job, s.nodes[node], status, attempt))
	return code
}

func (s *scenario) must(node string, attempt int, status protocol.Status) {
	s.t.Helper()
	if code := s.send(node, attempt, status); code != http.StatusOK {
		s.t.Fatalf("result of %s: got %d, want 200", node, code)
	}
}

func (s *scenario) fail(node string, attempt int) { s.must(node, attempt, protocol.StatusFailed) }
func (s *scenario) complete(node string, attempt int) {
	s.must(node, attempt, protocol.StatusCompleted)
}
func (s *scenario) cancel() {
	s.c.want(http.StatusOK, "POST", "/jobs/"+s.job+"/cancel", "", nil)
}

func TestEvents(t *testing.T) {
	s := newScenario(t, true, "A")
	s.take("A")
	s.complete("A", 1)
	s.send("A", 1, "completed")
	s.c.post(`{}`)
	second := s.c.next(s.nodes["A"])
	type row struct {
		Kind    EventKind
		Code    int
		Attempt int
	}
	var got []row
	var accepted, assigned time.Time
	for _, e := range s.m.Events() {
		got = append(got, row{e.Kind, e.Code, e.Attempt})
		switch {
		case e.Kind == ResultAccepted:
			accepted = e.At
		case e.Kind == JobAssigned && e.JobID == second.ID:
			assigned = e.At
		}
	}
	want := []row{{NodeRegistered, 201, 0}, {JobSubmitted, 0, 0}, {JobAssigned, 200, 1}, {ResultAccepted, 200, 1},
		{ResultRejected, 409, 1}, {JobSubmitted, 0, 0}, {JobAssigned, 200, 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if !assigned.After(accepted) {
		t.Errorf("got second job assigned at %v, want it after %v", assigned, accepted)
	}
}

func TestEventsAreLogged(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	m := newMaster(t, Config{FenceAttempts: true, Logger: zap.New(core), APIKeys: []string{"secret"}})
	node := register(t, m, "host-a")
	job, err := m.Submit(protocol.JobRequest{})
	if err != nil {
		t.Fatal(err)
	}
	poll(t, m, node)
	heartbeat(t, m, node) // below info
	if _, err := m.acceptResult([]byte(result(job.ID, node, protocol.StatusFailed, 2))); err == nil {
		t.Fatal("result of attempt 2: got no error")
	}
	var got []string
	for _, entry := range logs.All() {
		got = append(got, entry.Level.String()+" "+entry.Message)
	}
	want := []string{"info node registered", "info job submitted", "info job assigned", "warn result rejected"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log lines (-want +got):\n%s", diff)
	}
	fields := logs.All()[3].ContextMap()
	wantFields := map[string]any{"job": job.ID, "node": node, "attempt": int64(2), "status": "failed", "code": int64(409),
		"detail": "stale result: attempt 2, but the job is at attempt 1"}
	if diff := cmp.Diff(wantFields, fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func FuzzResults(f *testing.F) {
	for _, seed := range []string{
		`{"job_id":"x","node_id":"n","status":"completed","progress":100}`, `{"job_id":"x","progress":1e2,"metrics":{"frames":1e400}}`,
		`{"job_id":"x","status":"failed","status":1}`, `-1`, `10000000`, `[0,0,`, "\n\n\n\n0", "0 \t\t\t\t\t\t\t\x00", "0e0\x80",
		"\"\xf9\"", "\"0\x80\x9b\x80\"", "\"\xf1\U000406c0\"", "{\"\":\"\",\"00000000\":1e0\x80", "{\"\":\"\",\"\":0,\"\x92\":{\"\":0.000}}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m := newMaster(t, Config{FenceAttempts: true})
		m.newID = func() string { return "x" }
		if _, err := m.Submit(protocol.JobRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.acceptResult(body); err == nil {
			t.Errorf("accepted %s for a queued job", body)
		}
		m.cfg.FenceAttempts = false
		if _, err := m.acceptResult(body); err == nil && !json.Valid(body) {
			t.Errorf("accepted invalid JSON: %q", body)
		}
	})
}
