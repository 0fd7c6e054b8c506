package devmaster

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ffmpeg-agent/messages/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newMaster returns a master that is closed at the end of the test.
func newMaster(t testing.TB, cfg Config) *Master {
	t.Helper()
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// client sends requests to a master over HTTP.
type client struct {
	t    testing.TB
	base string
	http *http.Client
}

func serve(t testing.TB, m *Master) client {
	t.Helper()
	server := httptest.NewServer(m.Handler())
	t.Cleanup(server.Close)
	return client{t, server.URL, server.Client()}
}

// do makes a request and returns status and body.
func (c client) do(method, path, body string) (int, string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	code, _, text := c.send(req)
	return code, text
}

func (c client) send(req *http.Request) (int, http.Header, string) {
	c.t.Helper()
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

// want makes a request, checks the status of the response and decodes it into out.
func (c client) want(code int, method, path, body string, out any) {
	c.t.Helper()
	got, text := c.do(method, path, body)
	if got != code {
		c.t.Fatalf("%s %s: got %d %s, want %d", method, path, got, text, code)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal([]byte(text), out); err != nil {
		c.t.Fatalf("%s %s: decoding %q: %v", method, path, text, err)
	}
}

func (c client) register(address string) protocol.Node {
	c.t.Helper()
	var n protocol.Node
	code, text := c.do("POST", "/nodes/register", fmt.Sprintf(`{"address":%q,"type":"server","cpu_threads":4}`, address))
	if code != http.StatusCreated && code != http.StatusOK {
		c.t.Fatalf("register %s: got %d %s, want 200 or 201", address, code, text)
	}
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

func (c client) post(request string) protocol.Job {
	c.t.Helper()
	var j protocol.Job
	c.want(http.StatusCreated, "POST", "/jobs", request, &j)
	return j
}

func (c client) next(nodeID string) *protocol.Job {
	c.t.Helper()
	var r protocol.NextJobResponse
	c.want(http.StatusOK, "GET", "/jobs/next?node_id="+nodeID, "", &r)
	return r.Job
}

// result returns a body for POST /results.
func result(jobID, nodeID string, status protocol.Status, attempt int) string {
	r := protocol.JobResult{JobID: jobID, NodeID: nodeID, Status: status, Attempt: attempt, CompletedAt: time.Now()}
	switch status {
	case protocol.StatusCompleted:
		r.Progress = 100
	case protocol.StatusFailed:
		r.Progress, r.Error, r.FailureReason = 40, "encoder crashed", protocol.ReasonRuntimeError
	}
	data, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func mustJob(t testing.TB, m *Master, id string) protocol.Job {
	t.Helper()
	j, ok := m.Job(id)
	if !ok {
		t.Fatalf("no job %s", id)
	}
	return j
}

func mustNode(t testing.TB, m *Master, id string) protocol.Node {
	t.Helper()
	n, err := m.node(id)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func events(m *Master, kind EventKind) []Event {
	var matching []Event
	for _, e := range m.Events() {
		if e.Kind == kind {
			matching = append(matching, e)
		}
	}
	return matching
}
