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

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// pages is a master by path; what is not there is 404.
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

func TestHeldFindsWhatTheMasterHoldsAsOurs(t *testing.T) {
	const node = "/nodes/n%2F1%20%C3%BC"
	const list = `{"jobs":[
		{"id":"a","node_id":"n/1 ü","status":"assigned"}, {"id":"b","node_id":"n2","status":"running"},
		{"id":"c","node_id":"n/1 ü","status":"completed"}, {"id":"d","node_id":"n/1 ü","status":"processing"},
		{"id":"e","node_id":"n/1 ü","status":"paused"}, {"id":"f","node_id":"n/1 ü","status":"running"},
		{"id":"g","status":"pending"}, {"node_id":"n/1 ü","status":"running"}, null, 17],"count":10}`
	for name, c := range map[string]struct {
		master pages
		want   string
		asked  string
	}{
		"by the list":                  {pages{node: `{"id":"n/1 ü"}`, "/jobs": list}, "a d f", node + " /jobs"},
		"nothing":                      {pages{node: `{"id":"n/1 ü"}`, "/jobs": `{"jobs":null,"count":0}`}, "", node + " /jobs"},
		"the current job and others":   {pages{node: `{"id":"n/1 ü","current_job_id":"d"}`, "/jobs/d": `{"id":"d","node_id":"n/1 ü","status":"running"}`, "/jobs": list}, "d a f", node + " /jobs/d /jobs"},
		"the current job, nodeless":    {pages{node: `{"id":"n/1 ü","current_job_id":"z"}`, "/jobs/z": `{"id":"z","status":"assigned"}`, "/jobs": `{"jobs":[]}`}, "z", node + " /jobs/z /jobs"},
		"the current job, no list":     {pages{node: `{"id":"n/1 ü","current_job_id":"d"}`, "/jobs/d": `{"id":"d","node_id":"n/1 ü","status":"running"}`, "/jobs": `!500`}, "d", node + " /jobs/d /jobs"},
		"the current job has ended":    {pages{node: `{"id":"n/1 ü","current_job_id":"c"}`, "/jobs/c": `{"id":"c","node_id":"n/1 ü","status":"completed"}`, "/jobs": list}, "a d f", node + " /jobs/c /jobs"},
		"the current job is another's": {pages{node: `{"id":"n/1 ü","current_job_id":"b"}`, "/jobs/b": `{"id":"b","node_id":"n2","status":"running"}`, "/jobs": list}, "a d f", node + " /jobs/b /jobs"},
		"an id read as a number": {pages{node: `{"id":"n/1 ü","current_job_id":"5f"}`, "/jobs/5f": `{"id":"other","sequence_number":5,"node_id":"n/1 ü","status":"running"}`,
			"/jobs": `{"jobs":[{"id":"5f","node_id":"n/1 ü","status":"running"}]}`}, "5f", node + " /jobs/5f /jobs"},
		"an id not found":  {pages{node: `{"id":"n/1 ü","current_job_id":"5f"}`, "/jobs": `{"jobs":[{"id":"5f","node_id":"n/1 ü","status":"running"}]}`}, "5f", node + " /jobs/5f /jobs"},
		"an id that hurts": {pages{node: `{"id":"n/1 ü","current_job_id":"../x?y"}`, "/jobs/..%2Fx%3Fy": `{"id":"../x?y","status":"running"}`, "/jobs": `{"jobs":[]}`}, "../x?y", node + " /jobs/..%2Fx%3Fy /jobs"},
	} {
		t.Run(name, func(t *testing.T) {
			server, arrived := serve(t, c.master.serve)
			held, err := clientFor(t, server.URL).Held(context.Background(), session)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range held {
				got = append(got, l.Job.ID)
				if l.NodeID != session.NodeID || l.AcquiredAt.IsZero() {
					t.Errorf("lease %+v", l)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("held %q, want %q", got, c.want)
			}
			if asked := strings.ReplaceAll(strings.Join(arrived.uris(), " "), "GET ", ""); asked != c.asked {
				t.Errorf("asked %q, want %q", asked, c.asked)
			}
		})
	}
}

// Only the node's own 404 means that the node is unknown, and no broken answer
// means that nothing is held.
func TestHeldTellsAnUnknownNodeFromAnAnswerThatIsNone(t *testing.T) {
	const node = "/nodes/n%2F1%20%C3%BC"
	for name, c := range map[string]struct {
		master pages
		want   protocol.ErrorKind
	}{
		"unknown node":          {pages{"/jobs": `{"jobs":[]}`}, protocol.NotFound},
		"another node":          {pages{node: `{"id":"n2"}`, "/jobs": `{"jobs":[]}`}, protocol.NotFound},
		"no node":               {pages{node: `{"status":"healthy"}`}, protocol.Malformed},
		"no list there":         {pages{node: `{"id":"n/1 ü"}`}, protocol.ServerError},
		"another document":      {pages{node: `{"id":"n/1 ü"}`, "/jobs": `{"count":0}`}, protocol.Malformed},
		"half a list":           {pages{node: `{"id":"n/1 ü"}`, "/jobs": `{"jobs":[{"id":"a","node_id":"n/1 ü","status":"running"},`}, protocol.Malformed},
		"the job cannot be had": {pages{node: `{"id":"n/1 ü","current_job_id":"a"}`, "/jobs/a": `!503`, "/jobs": `{"jobs":[]}`}, protocol.Busy},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := serve(t, c.master.serve)
			held, err := clientFor(t, server.URL).Held(context.Background(), session)
			if wantFailure(t, err, c.want); len(held) != 0 {
				t.Errorf("held %v beside an error", held)
			}
		})
	}
}

func TestStandingOfALease(t *testing.T) {
	mine := lease(protocol.Job{ID: "j", RetryCount: 1})
	for _, c := range []struct {
		name string
		now  string
		want job.LeaseStatus
	}{
		{"assigned", `{"status":"assigned","node_id":"n/1 ü","retry_count":1}`, job.LeaseHeld},
		{"processing", `{"status":"processing","node_id":"n/1 ü","retry_count":1}`, job.LeaseHeld},
		{"running", `{"status":"running","node_id":"n/1 ü","retry_count":1}`, job.LeaseHeld},
		{"running, node not said", `{"status":"running","retry_count":1}`, job.LeaseHeld},
		{"paused", `{"status":"paused","node_id":"n/1 ü","retry_count":1}`, job.LeaseHeld},
		{"paused, node not said", `{"status":"paused","retry_count":1}`, job.LeaseHeld},
		{"canceled", `{"status":"canceled","node_id":"n/1 ü","retry_count":1}`, job.LeaseCanceled},
		{"canceled, freed", `{"status":"canceled","retry_count":1}`, job.LeaseCanceled},
		{"completed", `{"status":"completed","node_id":"n/1 ü","retry_count":1}`, job.LeaseEnded},
		{"failed", `{"status":"failed","node_id":"n/1 ü","retry_count":1}`, job.LeaseEnded},
		{"timed out", `{"status":"timed_out","retry_count":1}`, job.LeaseEnded},
		{"rejected", `{"status":"rejected","retry_count":1}`, job.LeaseEnded},
		{"elsewhere", `{"status":"running","node_id":"n2","retry_count":1}`, job.LeaseReassigned},
		{"ended elsewhere", `{"status":"completed","node_id":"n2","retry_count":1}`, job.LeaseReassigned},
		{"canceled elsewhere", `{"status":"canceled","node_id":"n2","retry_count":1}`, job.LeaseReassigned},
		{"ours again", `{"status":"running","node_id":"n/1 ü","retry_count":2}`, job.LeaseReassigned},
		{"canceled in a later attempt", `{"status":"canceled","node_id":"n/1 ü","retry_count":2}`, job.LeaseReassigned},
		{"pending", `{"status":"pending","node_id":"n/1 ü","retry_count":1}`, job.LeaseReassigned},
		{"queued", `{"status":"queued","retry_count":1}`, job.LeaseReassigned},
		{"retrying", `{"status":"retrying","retry_count":1}`, job.LeaseReassigned},
		{"an earlier attempt", `{"status":"running","node_id":"n/1 ü"}`, job.LeaseUnknown},
		{"canceled in an earlier attempt", `{"status":"canceled","node_id":"n/1 ü"}`, job.LeaseUnknown},
		{"a state to come", `{"status":"hibernating","node_id":"n/1 ü","retry_count":1}`, job.LeaseUnknown},
		{"no state", `{"node_id":"n/1 ü","retry_count":1}`, job.LeaseUnknown},
	} {
		var j protocol.Job
		if err := json.Unmarshal([]byte(c.now), &j); err != nil {
			t.Fatal(err)
		}
		if got := standing(&mine, &j); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestExtendTrustsOnlyTheVeryJob(t *testing.T) {
	const running = `{"id":"5f","sequence_number":12,"node_id":"n/1 ü","status":"running"}`
	const canceled = `{"id":"5f","sequence_number":12,"node_id":"n/1 ü","status":"canceled"}`
	const other = `{"id":"other","sequence_number":5,"node_id":"n2","status":"canceled"}`
	for name, c := range map[string]struct {
		sequence int64
		master   pages
		want     job.LeaseStatus
		asked    []string
	}{
		"by number":                   {12, pages{"/jobs/12": canceled, "/jobs/5f": other}, job.LeaseCanceled, []string{"GET /jobs/12"}},
		"by id, numbers unknown":      {12, pages{"/jobs/5f": running}, job.LeaseHeld, []string{"GET /jobs/12", "GET /jobs/5f"}},
		"by id, number another's":     {12, pages{"/jobs/12": other, "/jobs/5f": running}, job.LeaseHeld, []string{"GET /jobs/12", "GET /jobs/5f"}},
		"by id, no number":            {0, pages{"/jobs/5f": canceled}, job.LeaseCanceled, []string{"GET /jobs/5f"}},
		"by the list, id another's":   {0, pages{"/jobs/5f": other, "/jobs": `{"jobs":[` + other + `,` + canceled + `]}`}, job.LeaseCanceled, []string{"GET /jobs/5f", "GET /jobs"}},
		"by the list, after a 400":    {0, pages{"/jobs/5f": `!400`, "/jobs": `{"jobs":[` + running + `]}`}, job.LeaseHeld, []string{"GET /jobs/5f", "GET /jobs"}},
		"by the list, after a 500":    {0, pages{"/jobs/5f": `!500`, "/jobs": `{"jobs":[` + running + `]}`}, job.LeaseHeld, []string{"GET /jobs/5f", "GET /jobs"}},
		"by the list, after nonsense": {0, pages{"/jobs/5f": `[]`, "/jobs": `{"jobs":[` + running + `]}`}, job.LeaseHeld, []string{"GET /jobs/5f", "GET /jobs"}},
		"found in a list that breaks": {0, pages{"/jobs": `{"jobs":[` + canceled + `,{"id`}, job.LeaseCanceled, []string{"GET /jobs/5f", "GET /jobs"}},
		"only others":                 {12, pages{"/jobs/12": other, "/jobs/5f": other, "/jobs": `{"jobs":[` + other + `]}`}, job.LeaseUnknown, []string{"GET /jobs/12", "GET /jobs/5f", "GET /jobs"}},
		"forgotten":                   {12, pages{"/jobs": `{"jobs":null,"count":0}`}, job.LeaseUnknown, []string{"GET /jobs/12", "GET /jobs/5f", "GET /jobs"}},
	} {
		t.Run(name, func(t *testing.T) {
			server, arrived := serve(t, c.master.serve)
			l := lease(protocol.Job{ID: "5f", SequenceNumber: c.sequence})
			got, err := clientFor(t, server.URL).Extend(context.Background(), l)
			if err != nil || got != c.want {
				t.Errorf("%v, error %v; want %v", got, err, c.want)
			}
			if diff := cmp.Diff(c.asked, arrived.uris()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExtendSaysWhenThereIsNoAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		master pages
		kind   protocol.ErrorKind
		asked  int
	}{
		"busy":              {pages{"/jobs/j": `!503`, "/jobs": `{"jobs":[]}`}, protocol.Busy, 1},
		"wrong key":         {pages{"/jobs/j": `!401`, "/jobs": `{"jobs":[]}`}, protocol.Unauthorized, 1},
		"no list":           {pages{}, protocol.ServerError, 2},
		"a broken list":     {pages{"/jobs": `{"jobs":[{"id":"x"},`}, protocol.Malformed, 2},
		"broken altogether": {pages{"/jobs/j": `!500`, "/jobs": `!500`}, protocol.ServerError, 2},
	} {
		t.Run(name, func(t *testing.T) {
			server, arrived := serve(t, c.master.serve)
			got, err := clientFor(t, server.URL).Extend(context.Background(), lease(protocol.Job{ID: "j"}))
			if wantFailure(t, err, c.kind); got != job.LeaseUnknown {
				t.Errorf("%v beside an error", got)
			}
			if n := len(arrived.all()); n != c.asked {
				t.Errorf("%d requests, want %d", n, c.asked)
			}
		})
	}
}
