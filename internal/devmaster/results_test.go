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

func TestResultsAreReadStrictly(t *testing.T) {
	m := newMaster(t, Config{FenceAttempts: true})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.next(n.ID)
	fields := func(more string) string {
		return fmt.Sprintf(`{"job_id":%q,"node_id":%q,"status":"completed","attempt":1%s}`, job.ID, n.ID, more)
	}
	refused := []struct{ name, body string }{
		{"no JSON", `completed`},
		{"null", `null`},
		{"a list", `[]`},
		{"something after it", fields("") + `{}`},
		{"no job id", `{"node_id":"x","status":"completed"}`},
		{"a broken progress", fields(`,"progress":99.5`)},
		{"progress as a string", fields(`,"progress":"99"`)},
		{"progress above 100", fields(`,"progress":101`)},
		{"progress below 0", fields(`,"progress":-1`)},
		{"a score as a string", fields(`,"vmaf_score":"93"`)},
		{"a score beyond any number", fields(`,"energy_joules":1e999`)},
		{"a score that is no number", fields(`,"qoe_score":NaN`)},
		{"logs as a list", fields(`,"logs":["a"]`)},
		{"metrics as a list", fields(`,"metrics":[]`)},
		{"a time that is none", fields(`,"completed_at":"yesterday"`)},
		{"an attempt that is no integer", fields(`,"attempt":1.5`)},
		{"a status that ends nothing", strings.Replace(fields(""), "completed", "running", 1)},
		{"no status", fmt.Sprintf(`{"job_id":%q}`, job.ID)},
	}
	for _, tc := range refused {
		t.Run(tc.name, func(t *testing.T) {
			client{t, c.base, c.http}.want(http.StatusBadRequest, "POST", "/results", tc.body, nil)
		})
	}
	if noted := events(m, ResultRefused); len(noted) != len(refused) {
		t.Errorf("%d refusals noted, want %d", len(noted), len(refused))
	}
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusAssigned {
		t.Errorf("after malformed results the job is %s", j.Status)
	}
	c.want(http.StatusOK, "POST", "/results", fields(`,"progress":100,"energy_joules":12.5,"to_come":true`), nil)
}

func TestCompletedResultEndsTheJobAndFreesTheNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "results")
	m := newMaster(t, Config{FenceAttempts: true, ResultsDir: dir})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.next(n.ID)
	body := fmt.Sprintf("{ \"job_id\": %q,\n\"node_id\":%q, \"status\":\"completed\", \"progress\":100, \"metrics\":{\"a\":\"<&>\"}, \"energy_joules\":0.10}  \n", job.ID, n.ID)
	var answer protocol.ResultResponse
	c.want(http.StatusOK, "POST", "/results", body, &answer)
	if diff := cmp.Diff(protocol.ResultResponse{Status: "success"}, answer); diff != "" {
		t.Error(diff)
	}
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusCompleted || j.Progress != 100 || j.CompletedAt == nil {
		t.Errorf("job: %+v", j)
	}
	if now := mustNode(t, m, n.ID); now.Status != nodeAvailable || now.CurrentJobID != "" {
		t.Errorf("node: %+v", now)
	}
	if _, got := c.do("GET", "/jobs/"+job.ID+"/result", ""); got != body {
		t.Errorf("GET result: %q, want it byte for byte: %q", got, body)
	}
	if _, got := c.do("GET", "/jobs/1/result", ""); got != body {
		t.Errorf("GET result by sequence number: %q", got)
	}
	res, raw, ok := m.Result(job.ID)
	if !ok || string(raw) != body || res.EnergyJoules == nil || *res.EnergyJoules != 0.1 {
		t.Errorf("Result: %+v %q %v", res, raw, ok)
	}
	stored, err := os.ReadFile(filepath.Join(dir, job.ID+".attempt-1.json"))
	if err != nil || string(stored) != body {
		t.Errorf("file: %q, %v", stored, err)
	}
}

func TestFailedJobsAreRetriedUntilRetriesAreUsedUp(t *testing.T) {
	dir := t.TempDir()
	m := newMaster(t, Config{FenceAttempts: true, ResultsDir: dir})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.post(`{}`) // younger: the retried job keeps its place before it
	for attempt := 1; attempt <= 4; attempt++ {
		got := c.next(n.ID)
		if got == nil || got.ID != job.ID || got.Attempt() != attempt || got.Progress != 0 {
			t.Fatalf("attempt %d: %+v", attempt, got)
		}
		var answer protocol.ResultResponse
		c.want(http.StatusOK, "POST", "/results", result(job.ID, n.ID, protocol.StatusFailed, attempt), &answer)
		want := protocol.ResultResponse{Status: "retrying", Retry: attempt, MaxRetries: 3}
		if attempt == 4 {
			want = protocol.ResultResponse{Status: "success"}
		}
		if diff := cmp.Diff(want, answer); diff != "" {
			t.Errorf("attempt %d (-want +got):\n%s", attempt, diff)
		}
		if now := mustNode(t, m, n.ID); now.Status != nodeAvailable {
			t.Errorf("attempt %d: node is %s", attempt, now.Status)
		}
	}
	j := mustJob(t, m, job.ID)
	if j.Status != protocol.StatusFailed || j.RetryCount != 3 || j.Error != "it broke" || j.FailureReason != protocol.ReasonRuntimeError {
		t.Errorf("job: %+v", j)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(files) != 4 {
		t.Errorf("files of results: %v, want one an attempt", files)
	}
}

func TestNegativeMaxRetriesIsNever(t *testing.T) {
	m := newMaster(t, Config{MaxRetries: -1})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.next(n.ID)
	c.want(http.StatusOK, "POST", "/results", result(job.ID, n.ID, protocol.StatusFailed, 1), nil)
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusFailed {
		t.Errorf("the job is %s", j.Status)
	}
}

// TestFencing prepares a job that A took and was then given to B as attempt 2
// (unless prepare says otherwise), and sends one result.
func TestFencing(t *testing.T) {
	const a, b = "A", "B"
	given := func(s *story) { s.take(a); s.fail(a, 1); s.take(b) }
	for _, tc := range []struct {
		name    string
		prepare func(*story)
		node    string
		attempt int
		status  protocol.Status
		code    int
		job     protocol.Status // afterwards
		older   int             // the answer of a master that does not fence
	}{
		{"holder and attempt", given, b, 2, "completed", 200, "completed", 200},
		{"holder that knows no attempts", given, b, 0, "completed", 200, "completed", 200},
		{"former node", given, a, 1, "completed", 409, "assigned", 200},
		{"former node with the new attempt", given, a, 2, "completed", 409, "assigned", 200},
		{"holder with the former attempt", given, b, 1, "completed", 409, "assigned", 200},
		{"holder with an attempt to come", given, b, 3, "completed", 409, "assigned", 200},
		{"former failure", given, a, 1, "failed", 409, "assigned", 200},
		{"nobody", given, "", 2, "completed", 409, "assigned", 200},
		{"the same node's former attempt", func(s *story) { s.take(a); s.fail(a, 1); s.take(a) }, a, 1, "completed", 409, "assigned", 200},
		{"job waiting for its retry", func(s *story) { s.take(a); s.fail(a, 1) }, a, 1, "completed", 409, "queued", 200},
		{"nobody, job waiting", func(*story) {}, "", 1, "completed", 409, "queued", 200},
		{"the same result again", func(s *story) { s.take(a); s.complete(a, 1) }, a, 1, "completed", 409, "completed", 200},
		{"a failure after completion", func(s *story) { s.take(a); s.complete(a, 1) }, a, 1, "failed", 409, "completed", 200},
		{"canceled job's report", func(s *story) { s.take(a); s.cancel() }, a, 1, "canceled", 200, "canceled", 200},
		{"canceled job that was done just before", func(s *story) { s.take(a); s.cancel() }, a, 1, "completed", 200, "canceled", 200},
		{"canceled job that failed", func(s *story) { s.take(a); s.cancel() }, a, 1, "failed", 200, "canceled", 200},
		{"canceled job's report again", func(s *story) { s.take(a); s.cancel(); s.send(a, 1, "canceled") }, a, 1, "canceled", 409, "canceled", 200},
		{"canceled job's report from another", func(s *story) { s.take(a); s.cancel() }, b, 1, "canceled", 409, "canceled", 200},
		{"canceled by the worker itself", func(s *story) { s.take(a) }, a, 1, "canceled", 200, "canceled", 200},
		{"canceled while waiting for its retry", func(s *story) { s.take(a); s.fail(a, 1); s.cancel() }, a, 1, "failed", 409, "canceled", 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStory(t, true, a, b)
			tc.prepare(s)
			if code := s.send(tc.node, tc.attempt, tc.status); code != tc.code {
				t.Errorf("answered %d, want %d", code, tc.code)
			}
			if j := mustJob(t, s.m, s.job); j.Status != tc.job {
				t.Errorf("the job is %s, want %s", j.Status, tc.job)
			}
			s = newStory(t, false, a, b)
			tc.prepare(s)
			if code := s.send(tc.node, tc.attempt, tc.status); code != tc.older {
				t.Errorf("an older master answered %d, want %d", code, tc.older)
			}
		})
	}
}

func TestOlderMasterTakesALateResultAndFreesTheHolder(t *testing.T) {
	s := newStory(t, false, "A", "B")
	s.take("A")
	s.fail("A", 1)
	s.take("B")
	s.send("A", 1, "completed")
	if j := mustJob(t, s.m, s.job); j.Status != protocol.StatusCompleted {
		t.Errorf("the job is %s", j.Status)
	}
	if n := mustNode(t, s.m, s.nodes["B"]); n.Status != nodeAvailable {
		t.Errorf("the holder is %s", n.Status)
	}
	// And a failure re-queues even what was done.
	s.send("B", 2, "failed")
	if j := mustJob(t, s.m, s.job); j.Status != protocol.StatusQueued || j.RetryCount != 2 || j.CompletedAt != nil {
		t.Errorf("after a late failure: %+v", j)
	}
}

// story is one job among named nodes.
type story struct {
	t     *testing.T
	m     *Master
	c     client
	job   string
	nodes map[string]string
}

func newStory(t *testing.T, fence bool, names ...string) *story {
	m := newMaster(t, Config{FenceAttempts: fence})
	s := &story{t: t, m: m, c: serve(t, m), nodes: map[string]string{}}
	for _, name := range names {
		s.nodes[name] = s.c.register(name).ID
	}
	s.job = s.c.post(`{}`).ID
	return s
}

func (s *story) take(node string) {
	s.t.Helper()
	if j := s.c.next(s.nodes[node]); j == nil || j.ID != s.job {
		s.t.Fatalf("%s was given %+v", node, j)
	}
}

func (s *story) send(node string, attempt int, status protocol.Status) (code int) {
	s.t.Helper()
	code, _ = s.c.do("POST", "/results", result(s.job, s.nodes[node], status, attempt))
	return code
}

func (s *story) must(node string, attempt int, status protocol.Status) {
	s.t.Helper()
	if code := s.send(node, attempt, status); code != http.StatusOK {
		s.t.Fatalf("result of %s: %d", node, code)
	}
}

func (s *story) fail(node string, attempt int)     { s.must(node, attempt, protocol.StatusFailed) }
func (s *story) complete(node string, attempt int) { s.must(node, attempt, protocol.StatusCompleted) }
func (s *story) cancel() {
	s.c.want(http.StatusOK, "POST", "/jobs/"+s.job+"/cancel", "", nil)
}

func TestEventsTellWhatATestMeasures(t *testing.T) {
	s := newStory(t, true, "A")
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
		{ResultRefused, 409, 1}, {JobSubmitted, 0, 0}, {JobAssigned, 200, 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if !assigned.After(accepted) {
		t.Errorf("assigned at %v, accepted at %v", assigned, accepted)
	}
}

func TestEventsAreLoggedInPlainWords(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	m := newMaster(t, Config{FenceAttempts: true, Logger: zap.New(core), APIKeys: []string{"secret"}})
	node := enrol(t, m, "host-a")
	job, err := m.Submit(protocol.JobRequest{})
	if err != nil {
		t.Fatal(err)
	}
	poll(t, m, node)
	beat(t, m, node) // below info
	if _, err := m.takeResult([]byte(result(job.ID, node, protocol.StatusFailed, 2))); err == nil {
		t.Fatal("attempt 2 was taken")
	}
	var got []string
	for _, entry := range logs.All() {
		got = append(got, entry.Level.String()+" "+entry.Message)
	}
	want := []string{"info node registered", "info job submitted", "info job assigned", "warn result refused"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	fields := logs.All()[3].ContextMap()
	wantFields := map[string]any{"job": job.ID, "node": node, "attempt": int64(2), "status": "failed", "code": int64(409),
		"detail": "stale result: attempt 2, but the job is at attempt 1"}
	if diff := cmp.Diff(wantFields, fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func FuzzResults(f *testing.F) {
	f.Add([]byte(`{"job_id":"x","node_id":"n","status":"completed","progress":100}`))
	f.Add([]byte(`{"job_id":"x","progress":1e2,"metrics":{"frames":1e400}}`))
	f.Add([]byte(`{"job_id":"x","status":"failed","status":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		m := newMaster(t, Config{FenceAttempts: true})
		m.newID = func() string { return "x" }
		if _, err := m.Submit(protocol.JobRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.takeResult(body); err == nil {
			t.Errorf("taken for a job that nobody holds: %s", body)
		}
		m.cfg.FenceAttempts = false
		if _, err := m.takeResult(body); err == nil && !json.Valid(body) {
			t.Errorf("taken: %q", body)
		}
	})
}
