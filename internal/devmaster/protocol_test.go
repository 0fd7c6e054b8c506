package devmaster

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ffmpeg-agent/messages/protocol"
)

// TestProtocolTable plays every row of the protocol in one story; NODE, JOB,
// BUSY and RUN stand for the ids it prepared.
func TestProtocolTable(t *testing.T) {
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
		answer                   string // a part of the body
	}{
		{"health", "GET", "/health", "", 200, `{"status":"healthy"}`},
		{"new node", "POST", "/nodes/register", `{"address":"https://third:8443","labels":{"a":"b"}}`, 201, `"name":"third"`},
		{"same address again", "POST", "/nodes/register", `{"address":"idle","type":"laptop"}`, 200, `"id":"NODE"`},
		{"registration without address", "POST", "/nodes/register", `{}`, 400, "address is missing"},
		{"registration with a wrong type", "POST", "/nodes/register", `{"address":"x","cpu_threads":"4"}`, 400, "invalid registration"},
		{"registration that is no JSON", "POST", "/nodes/register", `{`, 400, "invalid registration"},
		{"empty heartbeat", "POST", "/nodes/NODE/heartbeat", "", 200, ""},
		{"heartbeat with status", "POST", "/nodes/NODE/heartbeat", `{"ram_free_bytes":1024,"cpu_load_percent":12.5,"jobs":[]}`, 200, ""},
		{"heartbeat with garbage", "POST", "/nodes/NODE/heartbeat", `{]`, 200, ""},
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
		{"poll with work", "GET", "/jobs/next?node_id=NODE", "", 200, `"id":"JOB"`},
		{"poll without work", "GET", "/jobs/next?node_id=NODE", "", 200, `{"job":null}`},
		{"request that is no JSON", "POST", "/jobs", `scenario=x`, 400, "invalid job request"},
		{"request that is null", "POST", "/jobs", `null`, 400, "invalid job request"},
		{"parameters that are no object", "POST", "/jobs", `{"parameters":[1]}`, 400, "parameters: [1] is not an object"},
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
		{"pause what has ended", "POST", "/jobs/RUN/pause", "", 400, "the job is canceled"},
		{"cancel an unknown job", "POST", "/jobs/zzz/cancel", "", 404, "job not found"},
		{"result", "POST", "/results", `{"job_id":"JOB","node_id":"NODE","status":"completed","progress":100}`, 200, `{"status":"success"}`},
		{"malformed result", "POST", "/results", `{"job_id":`, 400, "invalid result"},
		{"result for no job of ours", "POST", "/results", `{"job_id":"zzz","node_id":"NODE","status":"completed"}`, 500, "job not found"},
		{"removing a node", "DELETE", "/nodes/NODE", "", 200, `{"status":"removed","node_id":"NODE"}`},
		{"removing it again", "DELETE", "/nodes/NODE", "", 404, "node not found"},
		{"wrong method", "PUT", "/jobs", "", 405, "Method Not Allowed"},
		{"no such call", "GET", "/metrics", "", 404, "not found"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := client{t, c.base, c.http}
			code, body := c.do(row.method, fill.Replace(row.path), fill.Replace(row.body))
			if code != row.code || !strings.Contains(body, fill.Replace(row.answer)) {
				t.Errorf("%s %s: %d %s\nwant %d and %s", row.method, row.path, code, body, row.code, fill.Replace(row.answer))
			}
		})
	}
}

func TestErrorsArePlainTextAndAnswersJSON(t *testing.T) {
	c := serve(t, newMaster(t, Config{}))
	for path, want := range map[string]string{"/nodes": "application/json", "/nodes/x": "text/plain; charset=utf-8"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", c.base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, header, _ := c.send(req); header.Get("Content-Type") != want {
			t.Errorf("GET %s: Content-Type %q, want %q", path, header.Get("Content-Type"), want)
		}
	}
}

func TestEmptyListsAreNull(t *testing.T) {
	c := serve(t, newMaster(t, Config{}))
	for path, want := range map[string]string{"/nodes": `{"count":0,"nodes":null}`, "/jobs": `{"count":0,"jobs":null}`} {
		if _, body := c.do("GET", path, ""); strings.TrimSpace(body) != want {
			t.Errorf("GET %s: %s, want %s", path, body, want)
		}
	}
}

func TestOversizedBodiesAreRefused(t *testing.T) {
	m := newMaster(t, Config{})
	c := serve(t, m)
	body := `{"scenario":"` + strings.Repeat("x", maxBody) + `"}`
	for _, path := range []string{"/jobs", "/results", "/nodes/register"} {
		c.want(http.StatusRequestEntityTooLarge, "POST", path, body, nil)
	}
	if refused := events(m, ResultRefused); len(refused) != 1 || refused[0].Code != http.StatusRequestEntityTooLarge {
		t.Errorf("refused results noted: %+v", refused)
	}
}

func TestRegisteringAgainKeepsIdentityAndRenewsFacts(t *testing.T) {
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
		t.Error("registering is no sign of life")
	}
}

func TestOlderMasterForgetsTheCurrentJobAtRegistration(t *testing.T) {
	m := newMaster(t, Config{FenceAttempts: false})
	c := serve(t, m)
	n := c.register("host-a")
	job := c.post(`{}`)
	c.next(n.ID)
	again := c.register("host-a")
	if again.ID != n.ID || again.CurrentJobID != "" || again.Status != nodeAvailable {
		t.Errorf("node after registering again: %+v", again)
	}
	if j := mustJob(t, m, job.ID); j.Status != protocol.StatusAssigned || j.NodeID != n.ID {
		t.Errorf("the job is %s with node %q, want it assigned still", j.Status, j.NodeID)
	}
}

func TestAssigningMarksJobAndNode(t *testing.T) {
	m := newMaster(t, Config{})
	c := serve(t, m)
	n := c.register("host-a")
	posted := c.post(`{"scenario":"720p30-h264","parameters":{"fps":"25"}}`)
	if posted.SequenceNumber != 1 || posted.Status != protocol.StatusQueued || posted.Engine != "auto" ||
		posted.Priority != "medium" || posted.MaxRetries != DefaultMaxRetries || posted.CreatedAt == nil {
		t.Errorf("posted: %+v", posted)
	}
	got := c.next(n.ID)
	if got == nil || got.ID != posted.ID || got.Status != protocol.StatusAssigned || got.NodeID != n.ID || got.StartedAt == nil {
		t.Fatalf("assigned: %+v", got)
	}
	if now := mustNode(t, m, n.ID); now.Status != nodeBusy || now.CurrentJobID != posted.ID {
		t.Errorf("node: %+v", now)
	}
	before := *mustJob(t, m, posted.ID).LastActivityAt
	c.want(http.StatusOK, "POST", "/nodes/"+n.ID+"/heartbeat", "", nil)
	if after := *mustJob(t, m, posted.ID).LastActivityAt; !after.After(before) {
		t.Error("a heartbeat is no activity of the job its node holds")
	}
}

func TestJobIDsThatBeginLikeANumberAreReadAsSequenceNumbers(t *testing.T) {
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
		value, wantID string // "" : 404
	}{
		{ids[0], ids[0]},
		{"1", ids[0]},
		{"2", ids[1]},
		{ids[1], ids[0]}, // "1b…" is read as 1: another job's answer
		{ids[2], ""},     // "77…" is read as 77, which there is not
		{ids[3], ids[3]}, // "05…" does not begin with 1 to 9
		{"4x", ids[3]},
		{"0", ""},
		{"-1", ""},
		{"99999999999999999999999", ""},
	} {
		var got protocol.Job
		if tc.wantID == "" {
			c.want(http.StatusNotFound, "GET", "/jobs/"+tc.value, "", nil)
			continue
		}
		c.want(http.StatusOK, "GET", "/jobs/"+tc.value, "", &got)
		if got.ID != tc.wantID {
			t.Errorf("GET /jobs/%s: job %s, want %s", tc.value, got.ID, tc.wantID)
		}
	}
	// What changes a job takes its id as what it is.
	var answer protocol.StatusResponse
	c.want(http.StatusOK, "POST", "/jobs/"+ids[1]+"/cancel", "", &answer)
	if answer.JobID != ids[1] {
		t.Errorf("canceled %s, want %s", answer.JobID, ids[1])
	}
}

func TestNewIDsAreUUIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := newUUID()
		if len(id) != 36 || id[14] != '4' || !strings.ContainsRune("89ab", rune(id[19])) || seen[id] {
			t.Fatalf("id %s", id)
		}
		seen[id] = true
	}
}

func TestKeys(t *testing.T) {
	m := newMaster(t, Config{APIKeys: []string{"first", "second"}})
	c := serve(t, m)
	for _, tc := range []struct {
		name, path, header string
		code               int
	}{
		{"health needs none", "/health", "", 200},
		{"missing", "/nodes", "", 401},
		{"another scheme", "/nodes", "Basic Zmlyc3Q6", 401},
		{"empty", "/nodes", "Bearer ", 401},
		{"bare", "/nodes", "first", 401},
		{"wrong", "/nodes", "Bearer third", 403},
		{"a prefix of it", "/nodes", "Bearer firs", 403},
		{"first", "/nodes", "Bearer first", 200},
		{"second", "/nodes", "bearer second", 200},
		{"unknown paths tell nothing", "/nope", "", 401},
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
				t.Errorf("%d %s, want %d", code, body, tc.code)
			}
			if strings.Contains(body, "first") || strings.Contains(body, "third") {
				t.Errorf("the answer shows a key: %s", body)
			}
		})
	}
	if refused := events(m, Unauthorized); len(refused) != 7 {
		t.Errorf("%d refusals noted, want 7", len(refused))
	}
}

func TestSettingsThatMakeNoSense(t *testing.T) {
	for name, cfg := range map[string]Config{
		"an empty key":     {APIKeys: []string{"a", ""}},
		"a negative delay": {UnavailableAfter: -1},
	} {
		if m, err := New(cfg); err == nil {
			_ = m.Close()
			t.Errorf("%s was taken", name)
		}
	}
}
