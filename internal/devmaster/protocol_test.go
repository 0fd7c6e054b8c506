package devmaster

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ffmpeg-agent/messages/protocol"
)

// TestProtocol makes the requests in order. NODE, BUSY, JOB and RUN stand for the IDs of an
// idle node, a busy node, a queued job and an assigned job.
func TestProtocol(t *testing.T) {
	m := newMaster(t, Config{FenceAttempts: true})
	c := serve(t, m)
	ids := []string{"NODE", c.register("idle").ID, "BUSY", c.register("busy").ID}
	ids = append(ids, "RUN", c.post(`{"scenario":"720p30-h264"}`).ID)
	c.next(ids[3])
	ids = append(ids, "JOB", c.post(`{"scenario":"1080p-vp9","queue":"batch"}`).ID)
	fill := strings.NewReplacer(ids...)

	for _, row := range []struct {
		name, method, path, body string
		code                     int
		contains                 string // part of the response
	}{
		{"health", "GET", "/health", "", 200, `{"status":"healthy"}`},
		{"new node", "POST", "/nodes/register", `{"address":"https://third:8443","labels":{"a":"b"}}`, 201, `"name":"third"`},
		{"known address", "POST", "/nodes/register", `{"address":"idle","type":"laptop"}`, 200, `"id":"NODE"`},
		{"registration without address", "POST", "/nodes/register", `{}`, 400, "missing address"},
		{"registration with a wrong type", "POST", "/nodes/register", `{"address":"x","cpu_threads":"4"}`, 400, "invalid registration"},
		{"registration that is not JSON", "POST", "/nodes/register", `{`, 400, "invalid registration"},
		{"empty heartbeat", "POST", "/nodes/NODE/heartbeat", "", 200, ""},
		{"heartbeat with status", "POST", "/nodes/NODE/heartbeat", `{"ram_free_bytes":1024,"cpu_load_percent":12.5,"jobs":[]}`, 200, ""},
		{"heartbeat that is not JSON", "POST", "/nodes/NODE/heartbeat", `{]`, 200, ""},
		{"heartbeat of an unknown node", "POST", "/nodes/nobody/heartbeat", "", 404, "node not found"},
		{"nodes", "GET", "/nodes", "", 200, `"count":3`},
		{"node", "GET", "/nodes/NODE", "", 200, `"ram_free_bytes":1024,"cpu_load_percent":12.5`},
		{"busy node", "GET", "/nodes/BUSY", "", 200, `"current_job_id":"RUN"`},
		{"unknown node", "GET", "/nodes/nobody", "", 404, "node not found"},
		{"removing a busy node", "DELETE", "/nodes/BUSY", "", 400, "processing a job"},
		{"removing an unknown node", "DELETE", "/nodes/nobody", "", 404, "node not found"},
		{"poll without a node", "GET", "/jobs/next", "", 400, "node_id parameter is required"},
		{"poll of an unknown node", "GET", "/jobs/next?node_id=nobody", "", 500, "failed to get next job"},
		{"poll by HEAD assigns nothing", "HEAD", "/jobs/next?node_id=NODE", "", 405, ""},
		{"poll with a job", "GET", "/jobs/next?node_id=NODE", "", 200, `"id":"JOB"`},
		{"poll without a job", "GET", "/jobs/next?node_id=NODE", "", 200, `{"job":null}`},
		{"request that is not JSON", "POST", "/jobs", `scenario=x`, 400, "invalid job request"},
		{"request that is null", "POST", "/jobs", `null`, 400, "invalid job request"},
		{"parameters that are not an object", "POST", "/jobs", `{"parameters":[1]}`, 400, "parameters: [1] is not an object"},
		{"null parameters", "POST", "/jobs", `{"parameters":null}`, 201, `"status":"queued"`},
		{"nested parameters and a numeric priority", "POST", "/jobs", `{"priority":7,"parameters":{"outputs":[{"bitrate":"1M"}],"fps":29.970}}`, 201,
			`"parameters":{"fps":29.970,"outputs":[{"bitrate":"1M"}]},"status":"queued","queue":"default","priority":"7"`},
		{"jobs", "GET", "/jobs", "", 200, `"count":4`},
		{"job by sequence number", "GET", "/jobs/1", "", 200, `"id":"RUN"`},
		{"unknown job", "GET", "/jobs/zzz", "", 404, "job not found"},
		{"unknown sequence number", "GET", "/jobs/99", "", 404, "job not found"},
		{"result before there is one", "GET", "/jobs/JOB/result", "", 404, "no result yet"},
		{"result of an unknown job", "GET", "/jobs/zzz/result", "", 404, "job not found"},
		{"pause", "POST", "/jobs/RUN/pause", "", 200, `{"status":"paused","job_id":"RUN"}`},
		{"pause again", "POST", "/jobs/RUN/pause", "", 400, "the job is paused"},
		{"resume", "POST", "/jobs/RUN/resume", "", 200, `{"status":"resumed","job_id":"RUN"}`},
		{"resume again", "POST", "/jobs/RUN/resume", "", 400, "the job is assigned"},
		{"cancel", "POST", "/jobs/RUN/cancel", "", 200, `{"status":"canceled","job_id":"RUN"}`},
		{"cancel again", "POST", "/jobs/RUN/cancel", "", 400, "the job is canceled"},
		{"pause an ended job", "POST", "/jobs/RUN/pause", "", 400, "the job is canceled"},
		{"cancel an unknown job", "POST", "/jobs/zzz/cancel", "", 404, "job not found"},
		{"result", "POST", "/results", `{"job_id":"JOB","node_id":"NODE","status":"completed","progress":100}`, 200, `{"status":"success"}`},
		{"malformed result", "POST", "/results", `{"job_id":`, 400, "invalid result"},
		{"result of an unknown job", "POST", "/results", `{"job_id":"zzz","node_id":"NODE","status":"completed"}`, 500, "job not found"},
		{"removing a node", "DELETE", "/nodes/NODE", "", 200, `{"status":"removed","node_id":"NODE"}`},
		{"removing it again", "DELETE", "/nodes/NODE", "", 404, "node not found"},
		{"wrong method", "PUT", "/jobs", "", 405, "Method Not Allowed"},
		{"unknown path", "GET", "/metrics", "", 404, "not found"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := client{t, c.base, c.http}
			code, body := c.do(row.method, fill.Replace(row.path), fill.Replace(row.body))
			if code != row.code || !strings.Contains(body, fill.Replace(row.contains)) {
				t.Errorf("%s %s: got %d %s\nwant %d and %s", row.method, row.path, code, body, row.code, fill.Replace(row.contains))
			}
		})
	}
}

func TestContentType(t *testing.T) {
	c := serve(t, newMaster(t, Config{}))
	for path, want := range map[string]string{"/nodes": "application/json", "/nodes/x": "text/plain; charset=utf-8"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", c.base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, header, _ := c.send(req); header.Get("Content-Type") != want {
			t.Errorf("GET %s: got Content-Type %q, want %q", path, header.Get("Content-Type"), want)
		}
	}
}

func TestEmptyListsAreNull(t *testing.T) {
	c := serve(t, newMaster(t, Config{}))
	for path, want := range map[string]string{"/nodes": `{"count":0,"nodes":null}`, "/jobs": `{"count":0,"jobs":null}`} {
		if _, body := c.do("GET", path, ""); strings.TrimSpace(body) != want {
			t.Errorf("GET %s: got %s, want %s", path, body, want)
		}
	}
}

func TestOversizedBodiesAreRejected(t *testing.T) {
	m := newMaster(t, Config{})
	c := serve(t, m)
	body := `{"scenario":"` + strings.Repeat("x", maxBody) + `"}`
	for _, path := range []string{"/jobs", "/results", "/nodes/register"} {
		c.want(http.StatusRequestEntityTooLarge, "POST", path, body, nil)
	}
	if rejected := events(m, ResultRejected); len(rejected) != 1 || rejected[0].Code != http.StatusRequestEntityTooLarge {
		t.Errorf("got rejected results %+v, want one with 413", rejected)
	}
}

func TestRegisteringAgainUpdatesTheNode(t *testing.T) {
	m := newMaster(t, Config{FenceAttempts: true})
	c := serve(t, m)
	first := c.register("host-a")
	job := c.post(`{}`)
	c.next(first.ID)
	var again protocol.Node
	c.want(http.StatusOK, "POST", "/nodes/register", `{"address":"host-a","labels":{"gpu":"none"},"has_gpu":true}`, &again)
	want := protocol.Node{
		NodeRegistration: protocol.NodeRegistration{Address: "host-a", HasGPU: true, Labels: map[string]string{"gpu": "none"}},
		ID:               first.ID, Name: "host-a", Status: nodeBusy, CurrentJobID: job.ID,
		RegisteredAt: first.RegisteredAt, LastHeartbeat: again.LastHeartbeat,
	}
	if diff := cmp.Diff(want, again); diff != "" {
		t.Errorf("node (-want +got):\n%s", diff)
	}
	if again.LastHeartbeat.Before(first.LastHeartbeat) {
		t.Errorf("got last heartbeat %v, want it after %v", again.LastHeartbeat, first.LastHeartbeat)
	}
}

func TestRegisteringAgainWithoutFencing(t *testing.T) {
	m := newMaster(t, Config{FenceAttempts: false})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.next(n.ID)
	again := c.register("host-a")
	if again.ID != n.ID || again.CurrentJobID != "" || again.Status != nodeAvailable {
		t.Errorf("got node %+v, want %s available without current job", again, n.ID)
	}
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusAssigned || j.NodeID != n.ID {
		t.Errorf("got job %s on node %q, want assigned on %q", j.Status, j.NodeID, n.ID)
	}
}

func TestAssignment(t *testing.T) {
	m := newMaster(t, Config{})
	c := serve(t, m)
	n := c.register("host-a")
	posted := c.post(`{"scenario":"720p30-h264","parameters":{"fps":"25"}}`)
	if posted.SequenceNumber != 1 || posted.Status != protocol.StatusQueued || posted.Engine != "auto" ||
		posted.Priority != "medium" || posted.MaxRetries != DefaultMaxRetries || posted.CreatedAt == nil {
		t.Errorf("got posted job %+v, want job 1 queued with defaults", posted)
	}
	got := c.next(n.ID)
	if got == nil || got.ID != posted.ID || got.Status != protocol.StatusAssigned || got.NodeID != n.ID || got.StartedAt == nil {
		t.Fatalf("got assigned job %+v, want %s assigned to %s", got, posted.ID, n.ID)
	}
	if now := mustNode(t, m, n.ID); now.Status != nodeBusy || now.CurrentJobID != posted.ID {
		t.Errorf("got node %+v, want it busy with %s", now, posted.ID)
	}
	before := *mustJob(t, m, posted.ID).LastActivityAt
	c.want(http.StatusOK, "POST", "/nodes/"+n.ID+"/heartbeat", "", nil)
	if after := *mustJob(t, m, posted.ID).LastActivityAt; !after.After(before) {
		t.Errorf("got last activity %v after a heartbeat, want it after %v", after, before)
	}
}

func TestNumericPrefixIsASequenceNumber(t *testing.T) {
	m := newMaster(t, Config{})
	ids := []string{"a0000000-0000-4000-8000-000000000000", "1b000000-0000-4000-8000-000000000000",
		"77000000-0000-4000-8000-000000000000", "05000000-0000-4000-8000-000000000000"}
	next := 0
	m.newID = func() string { next++; return ids[next-1] }
	c := serve(t, m)
	for range ids {
		c.post(`{}`)
	}
	for _, tc := range []struct {
		reference, wantID string // "": 404
	}{
		{ids[0], ids[0]},
		{"1", ids[0]},
		{"2", ids[1]},
		{ids[1], ids[0]}, // "1b…" is taken as 1, another job
		{ids[2], ""},     // "77…" is taken as 77, which does not exist
		{ids[3], ids[3]}, // "05…" does not start with 1 to 9
		{"4x", ids[3]},
		{"0", ""},
		{"-1", ""},
		{"99999999999999999999999", ""},
	} {
		var got protocol.Job
		if tc.wantID == "" {
			c.want(http.StatusNotFound, "GET", "/jobs/"+tc.reference, "", nil)
			continue
		}
		c.want(http.StatusOK, "GET", "/jobs/"+tc.reference, "", &got)
		if got.ID != tc.wantID {
			t.Errorf("GET /jobs/%s: got job %s, want %s", tc.reference, got.ID, tc.wantID)
		}
	}
	// Other requests take the ID as it is.
	var response protocol.StatusResponse
	c.want(http.StatusOK, "POST", "/jobs/"+ids[1]+"/cancel", "", &response)
	if response.JobID != ids[1] {
		t.Errorf("got canceled job %s, want %s", response.JobID, ids[1])
	}
}

func TestNewUUID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := newUUID()
		if len(id) != 36 || id[14] != '4' || !strings.ContainsRune("89ab", rune(id[19])) || seen[id] {
			t.Fatalf("got %s, want a new UUID of version 4", id)
		}
		seen[id] = true
	}
}

func TestAPIKeys(t *testing.T) {
	m := newMaster(t, Config{APIKeys: []string{"first", "second"}})
	c := serve(t, m)
	for _, tc := range []struct {
		name, path, header string
		code               int
	}{
		{"health", "/health", "", 200},
		{"missing", "/nodes", "", 401},
		{"another scheme", "/nodes", "Basic Zmlyc3Q6", 401},
		{"empty", "/nodes", "Bearer ", 401},
		{"bare", "/nodes", "first", 401},
		{"wrong", "/nodes", "Bearer third", 403},
		{"prefix", "/nodes", "Bearer firs", 403},
		{"first", "/nodes", "Bearer first", 200},
		{"second", "/nodes", "bearer second", 200},
		{"unknown path", "/nope", "", 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "GET", c.base+tc.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tc.header != "" {
				req.Header.Set("Authorization", tc.header)
			}
			code, _, body := c.send(req)
			if code != tc.code {
				t.Errorf("got %d %s, want %d", code, body, tc.code)
			}
			if strings.Contains(body, "first") || strings.Contains(body, "third") {
				t.Errorf("response contains a key: %s", body)
			}
		})
	}
	if got := len(events(m, Unauthorized)); got != 7 {
		t.Errorf("got %d unauthorized events, want 7", got)
	}
}

func TestNewRejectsInvalidConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"empty key":     {APIKeys: []string{"a", ""}},
		"negative time": {UnavailableAfter: -1},
	} {
		if m, err := New(cfg); err == nil {
			_ = m.Close()
			t.Errorf("%s: got no error", name)
		}
	}
}
