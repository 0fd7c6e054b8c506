package master

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// pages are the response bodies of a master by path: "!500" is a status, missing ones are
// 404.
type pages map[string]string

func (p pages) serve(w http.ResponseWriter, r *http.Request) {
	body, ok := p[r.URL.EscapedPath()]
	if status := 0; ok {
		if n, _ := fmt.Sscanf(body, "!%d", &status); n == 1 {
			w.WriteHeader(status)
			return
		}
		io.WriteString(w, body)
		return
	}
	http.NotFound(w, r)
}

func TestHeld(t *testing.T) {
	const node = "/nodes/n%2F1%20%C3%BC"
	const list = `{"jobs":[
		{"id":"a","node_id":"n/1 ü","status":"assigned"}, {"id":"b","node_id":"n2","status":"running"},
		{"id":"c","node_id":"n/1 ü","status":"completed"}, {"id":"d","node_id":"n/1 ü","status":"processing"},
		{"id":"e","node_id":"n/1 ü","status":"paused"}, {"id":"f","node_id":"n/1 ü","status":"running"},
		{"id":"g","status":"pending"}, {"node_id":"n/1 ü","status":"running"}, null, 17],"count":10}`
	for name, c := range map[string]struct {
		master   pages
		want     string
		requests string
	}{
		"list only":                   {pages{node: `{"id":"n/1 ü"}`, "/jobs": list}, "a d f", node + " /jobs"},
		"none":                        {pages{node: `{"id":"n/1 ü"}`, "/jobs": `{"jobs":null,"count":0}`}, "", node + " /jobs"},
		"current job and list":        {pages{node: `{"id":"n/1 ü","current_job_id":"d"}`, "/jobs/d": `{"id":"d","node_id":"n/1 ü","status":"running"}`, "/jobs": list}, "d a f", node + " /jobs/d /jobs"},
		"current job without node":    {pages{node: `{"id":"n/1 ü","current_job_id":"z"}`, "/jobs/z": `{"id":"z","status":"assigned"}`, "/jobs": `{"jobs":[]}`}, "z", node + " /jobs/z /jobs"},
		"current job, list fails":     {pages{node: `{"id":"n/1 ü","current_job_id":"d"}`, "/jobs/d": `{"id":"d","node_id":"n/1 ü","status":"running"}`, "/jobs": `!500`}, "d", node + " /jobs/d /jobs"},
		"current job has ended":       {pages{node: `{"id":"n/1 ü","current_job_id":"c"}`, "/jobs/c": `{"id":"c","node_id":"n/1 ü","status":"completed"}`, "/jobs": list}, "a d f", node + " /jobs/c /jobs"},
		"current job of another node": {pages{node: `{"id":"n/1 ü","current_job_id":"b"}`, "/jobs/b": `{"id":"b","node_id":"n2","status":"running"}`, "/jobs": list}, "a d f", node + " /jobs/b /jobs"},
		"id taken as a sequence number": {pages{node: `{"id":"n/1 ü","current_job_id":"5f"}`, "/jobs/5f": `{"id":"other","sequence_number":5,"node_id":"n/1 ü","status":"running"}`,
			"/jobs": `{"jobs":[{"id":"5f","node_id":"n/1 ü","status":"running"}]}`}, "5f", node + " /jobs/5f /jobs"},
		"id not found":           {pages{node: `{"id":"n/1 ü","current_job_id":"5f"}`, "/jobs": `{"jobs":[{"id":"5f","node_id":"n/1 ü","status":"running"}]}`}, "5f", node + " /jobs/5f /jobs"},
		"id that needs escaping": {pages{node: `{"id":"n/1 ü","current_job_id":"../x?y"}`, "/jobs/..%2Fx%3Fy": `{"id":"../x?y","status":"running"}`, "/jobs": `{"jobs":[]}`}, "../x?y", node + " /jobs/..%2Fx%3Fy /jobs"},
	} {
		t.Run(name, func(t *testing.T) {
			server, requests := serve(t, c.master.serve)
			held, err := clientFor(t, server.URL).Held(context.Background(), session)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range held.Leases {
				got = append(got, l.Job.ID)
				if l.NodeID != session.NodeID || l.AcquiredAt.IsZero() {
					t.Errorf("got lease %+v, want node %s and a time", l, session.NodeID)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got held jobs %q, want %q", got, c.want)
			}
			if got := strings.ReplaceAll(strings.Join(requests.uris(), " "), "GET ", ""); got != c.requests {
				t.Errorf("got requests %q, want %q", got, c.requests)
			}
		})
	}
}

// NotFound must mean that the node is unknown, not that the list is missing, and a
// malformed response must not be taken for an empty list.
func TestHeldErrors(t *testing.T) {
	const node = "/nodes/n%2F1%20%C3%BC"
	for name, c := range map[string]struct {
		master pages
		want   protocol.ErrorKind
	}{
		"unknown node":          {pages{"/jobs": `{"jobs":[]}`}, protocol.NotFound},
		"another node":          {pages{node: `{"id":"n2"}`, "/jobs": `{"jobs":[]}`}, protocol.NotFound},
		"not a node":            {pages{node: `{"status":"healthy"}`}, protocol.Malformed},
		"no list":               {pages{node: `{"id":"n/1 ü"}`}, protocol.ServerError},
		"list without jobs":     {pages{node: `{"id":"n/1 ü"}`, "/jobs": `{"count":0}`}, protocol.Malformed},
		"truncated list":        {pages{node: `{"id":"n/1 ü"}`, "/jobs": `{"jobs":[{"id":"a","node_id":"n/1 ü","status":"running"},`}, protocol.Malformed},
		"node fails, is listed": {pages{node: `!500`, "/nodes": `{"nodes":[{"id":"n2"},{"id":"n/1 ü"}]}`, "/jobs": `{"jobs":[]}`}, protocol.ServerError},
		"all nodes fail":        {pages{node: `!500`, "/nodes": `!500`, "/jobs": `{"jobs":[]}`}, protocol.ServerError},
		"truncated node list":   {pages{node: `!500`, "/nodes": `{"nodes":[{"id":"n2"},`, "/jobs": `{"jobs":[]}`}, protocol.ServerError},
		"current job busy":      {pages{node: `{"id":"n/1 ü","current_job_id":"a"}`, "/jobs/a": `!503`, "/jobs": `{"jobs":[]}`}, protocol.Busy},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := serve(t, c.master.serve)
			held, err := clientFor(t, server.URL).Held(context.Background(), session)
			if wantError(t, err, c.want); len(held.Leases) != 0 {
				t.Errorf("got leases %v with an error, want none", held)
			}
		})
	}
}

func TestHeldReportsNodeStatus(t *testing.T) {
	const node, lease = "/nodes/n%2F1%20%C3%BC", `{"jobs":[{"id":"a","node_id":"n/1 ü","status":"running"}]}`
	facts := messages.SchedulingFacts{HasGPU: true, GPUType: "NVIDIA A10", GPUCapabilities: []string{"nvenc_h264"}, Labels: map[string]string{"os": "linux"}}
	for name, c := range map[string]struct {
		master pages
		want   messages.Held
	}{
		"available": {pages{node: `{"id":"n/1 ü","status":"available","has_gpu":true,"gpu_type":"NVIDIA A10",
			"gpu_capabilities":["nvenc_h264"],"labels":{"os":"linux"}}`}, messages.Held{Facts: facts}},
		"busy":         {pages{node: `{"id":"n/1 ü","status":"busy"}`}, messages.Held{Busy: true}},
		"offline":      {pages{node: `{"id":"n/1 ü","status":"offline"}`}, messages.Held{Offline: true}},
		"unlisted":     {pages{node: `!500`, "/nodes": `{"nodes":[{"id":"n2"}],"count":1}`}, messages.Held{Unlisted: true}},
		"no node left": {pages{node: `!500`, "/nodes": `{"nodes":null,"count":0}`}, messages.Held{Unlisted: true}},
	} {
		t.Run(name, func(t *testing.T) {
			c.master["/jobs"] = lease
			server, _ := serve(t, c.master.serve)
			held, err := clientFor(t, server.URL).Held(context.Background(), session)
			if err != nil {
				t.Fatal(err)
			}
			if len(held.Leases) != 1 || held.Leases[0].Job.ID != "a" {
				t.Errorf("got leases %v, want that of job a", held.Leases)
			}
			held.Leases = nil
			if !cmp.Equal(held, c.want) {
				t.Errorf("got %+v, want %+v", held, c.want)
			}
		})
	}
}

func TestLeaseStatus(t *testing.T) {
	leased := lease(protocol.Job{ID: "j", RetryCount: 1})
	for _, c := range []struct {
		name string
		now  string
		want job.LeaseStatus
	}{
		{"assigned", `{"status":"assigned","node_id":"n/1 ü","retry_count":1}`, job.LeaseHeld},
		{"processing", `{"status":"processing","node_id":"n/1 ü","retry_count":1}`, job.LeaseHeld},
		{"running", `{"status":"running","node_id":"n/1 ü","retry_count":1}`, job.LeaseHeld},
		{"running, no node", `{"status":"running","retry_count":1}`, job.LeaseHeld},
		{"paused", `{"status":"paused","node_id":"n/1 ü","retry_count":1}`, job.LeaseHeld},
		{"paused, no node", `{"status":"paused","retry_count":1}`, job.LeaseHeld},
		{"canceled", `{"status":"canceled","node_id":"n/1 ü","retry_count":1}`, job.LeaseCanceled},
		{"canceled, no node", `{"status":"canceled","retry_count":1}`, job.LeaseCanceled},
		{"completed", `{"status":"completed","node_id":"n/1 ü","retry_count":1}`, job.LeaseEnded},
		{"failed", `{"status":"failed","node_id":"n/1 ü","retry_count":1}`, job.LeaseFailed},
		{"timed out", `{"status":"timed_out","retry_count":1}`, job.LeaseTimedOut},
		{"rejected", `{"status":"rejected","retry_count":1}`, job.LeaseRejected},
		{"running on another node", `{"status":"running","node_id":"n2","retry_count":1}`, job.LeaseReassigned},
		{"failed on another node", `{"status":"failed","node_id":"n2","retry_count":1}`, job.LeaseReassigned},
		{"failed in a later attempt", `{"status":"failed","retry_count":2}`, job.LeaseReassigned},
		{"ended on another node", `{"status":"completed","node_id":"n2","retry_count":1}`, job.LeaseOver},
		{"canceled on another node", `{"status":"canceled","node_id":"n2","retry_count":1}`, job.LeaseOver},
		{"later attempt on this node", `{"status":"running","node_id":"n/1 ü","retry_count":2}`, job.LeaseReassigned},
		{"timed out on another node", `{"status":"timed_out","node_id":"n2","retry_count":1}`, job.LeaseOver},
		{"rejected in a later attempt", `{"status":"rejected","retry_count":2}`, job.LeaseOver},
		{"re-queued and completed", `{"status":"completed","node_id":"n/1 ü","retry_count":2}`, job.LeaseEnded},
		{"re-queued and completed, no node", `{"status":"completed","retry_count":2}`, job.LeaseEnded},
		{"re-queued and completed on another node", `{"status":"completed","node_id":"n2","retry_count":2}`, job.LeaseOver},
		{"canceled in a later attempt", `{"status":"canceled","node_id":"n/1 ü","retry_count":2}`, job.LeaseOver},
		{"pending", `{"status":"pending","node_id":"n/1 ü","retry_count":1}`, job.LeaseReassigned},
		{"queued", `{"status":"queued","retry_count":1}`, job.LeaseReassigned},
		{"retrying", `{"status":"retrying","retry_count":1}`, job.LeaseReassigned},
		{"earlier attempt", `{"status":"running","node_id":"n/1 ü"}`, job.LeaseUnknown},
		{"canceled in an earlier attempt", `{"status":"canceled","node_id":"n/1 ü"}`, job.LeaseUnknown},
		{"unknown status", `{"status":"hibernating","node_id":"n/1 ü","retry_count":1}`, job.LeaseUnknown},
		{"no status", `{"node_id":"n/1 ü","retry_count":1}`, job.LeaseUnknown},
	} {
		var j protocol.Job
		if err := json.Unmarshal([]byte(c.now), &j); err != nil {
			t.Fatal(err)
		}
		if got := leaseStatus(&leased, &j); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	fenced := lease(protocol.Job{ID: "j", RetryCount: 1, FencedAttempt: 2})
	if got := leaseStatus(&fenced, &protocol.Job{Status: protocol.StatusCompleted, RetryCount: 2}); got != job.LeaseOver {
		t.Errorf("completed in a later attempt at a master that fences: got %v, want %v", got, job.LeaseOver)
	}
}

func TestExtendChecksTheJobID(t *testing.T) {
	const running = `{"id":"5f","sequence_number":12,"node_id":"n/1 ü","status":"running"}`
	const canceled = `{"id":"5f","sequence_number":12,"node_id":"n/1 ü","status":"canceled"}`
	const other = `{"id":"other","sequence_number":5,"node_id":"n2","status":"canceled"}`
	for name, c := range map[string]struct {
		sequence int64
		master   pages
		want     job.LeaseStatus
		requests []string
	}{
		"by number":                    {12, pages{"/jobs/12": canceled, "/jobs/5f": other}, job.LeaseCanceled, []string{"GET /jobs/12"}},
		"by id, number unknown":        {12, pages{"/jobs/5f": running}, job.LeaseHeld, []string{"GET /jobs/12", "GET /jobs/5f"}},
		"by id, number of another job": {12, pages{"/jobs/12": other, "/jobs/5f": running}, job.LeaseHeld, []string{"GET /jobs/12", "GET /jobs/5f"}},
		"by id, no number":             {0, pages{"/jobs/5f": canceled}, job.LeaseCanceled, []string{"GET /jobs/5f"}},
		"list, id of another job":      {0, pages{"/jobs/5f": other, "/jobs": `{"jobs":[` + other + `,` + canceled + `]}`}, job.LeaseCanceled, []string{"GET /jobs/5f", "GET /jobs"}},
		"list, after a 400":            {0, pages{"/jobs/5f": `!400`, "/jobs": `{"jobs":[` + running + `]}`}, job.LeaseHeld, []string{"GET /jobs/5f", "GET /jobs"}},
		"list, after a 500":            {0, pages{"/jobs/5f": `!500`, "/jobs": `{"jobs":[` + running + `]}`}, job.LeaseHeld, []string{"GET /jobs/5f", "GET /jobs"}},
		"list, after a malformed job":  {0, pages{"/jobs/5f": `[]`, "/jobs": `{"jobs":[` + running + `]}`}, job.LeaseHeld, []string{"GET /jobs/5f", "GET /jobs"}},
		"truncated list":               {0, pages{"/jobs": `{"jobs":[` + canceled + `,{"id`}, job.LeaseCanceled, []string{"GET /jobs/5f", "GET /jobs"}},
		"only other jobs":              {12, pages{"/jobs/12": other, "/jobs/5f": other, "/jobs": `{"jobs":[` + other + `]}`}, job.LeaseUnknown, []string{"GET /jobs/12", "GET /jobs/5f", "GET /jobs"}},
		"unknown to the master":        {12, pages{"/jobs": `{"jobs":null,"count":0}`}, job.LeaseUnknown, []string{"GET /jobs/12", "GET /jobs/5f", "GET /jobs"}},
	} {
		t.Run(name, func(t *testing.T) {
			server, requests := serve(t, c.master.serve)
			l := lease(protocol.Job{ID: "5f", SequenceNumber: c.sequence})
			got, err := clientFor(t, server.URL).Extend(context.Background(), l)
			if err != nil || got != c.want {
				t.Errorf("got %v, %v; want %v", got, err, c.want)
			}
			if diff := cmp.Diff(c.requests, requests.uris()); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExtendErrors(t *testing.T) {
	for name, c := range map[string]struct {
		master   pages
		kind     protocol.ErrorKind
		requests int
	}{
		"busy":           {pages{"/jobs/j": `!503`, "/jobs": `{"jobs":[]}`}, protocol.Busy, 1},
		"wrong key":      {pages{"/jobs/j": `!401`, "/jobs": `{"jobs":[]}`}, protocol.Unauthorized, 1},
		"no list":        {pages{}, protocol.ServerError, 2},
		"truncated list": {pages{"/jobs": `{"jobs":[{"id":"x"},`}, protocol.Malformed, 2},
		"all fail":       {pages{"/jobs/j": `!500`, "/jobs": `!500`}, protocol.ServerError, 2},
	} {
		t.Run(name, func(t *testing.T) {
			server, requests := serve(t, c.master.serve)
			got, err := clientFor(t, server.URL).Extend(context.Background(), lease(protocol.Job{ID: "j"}))
			if wantError(t, err, c.kind); got != job.LeaseUnknown {
				t.Errorf("got status %v with an error, want unknown", got)
			}
			if n := len(requests.all()); n != c.requests {
				t.Errorf("got %d requests, want %d", n, c.requests)
			}
		})
	}
}
