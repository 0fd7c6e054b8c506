package master_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/master"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// TestALeaseFromFirstToLast walks the whole port against a master that keeps to
// the protocol, over a real socket.
func TestALeaseFromFirstToLast(t *testing.T) {
	m, err := devmaster.New(devmaster.Config{APIKeys: []string{"key"}, FenceAttempts: true})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(m.Handler())
	defer func() { server.Close(); m.Close() }()
	ctx := context.Background()
	newClient := func(key string) *master.Client {
		c, err := master.New(master.Settings{URL: server.URL, APIKey: func() string { return key }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	c := newClient("key")
	facts := messages.NodeFacts{Address: "host", Type: protocol.NodeServer, CPUThreads: 4, CPUModel: "c", RAMTotalBytes: 1 << 33}

	if _, err := newClient("wrong").Register(ctx, facts); kind(err) != protocol.Unauthorized {
		t.Errorf("wrong key: %v", err)
	}
	session, err := c.Register(ctx, facts)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Register(ctx, facts); err != nil || again.NodeID != session.NodeID {
		t.Errorf("registered again as %v, %v", again, err)
	}
	if err := c.Heartbeat(ctx, session, messages.NodeStatus{Status: "available"}); err != nil {
		t.Error(err)
	}
	if err := c.Heartbeat(ctx, messages.Session{NodeID: "nobody"}, messages.NodeStatus{}); kind(err) != protocol.NotFound {
		t.Errorf("heartbeat of an unknown node: %v", err)
	}
	if _, err := c.Held(ctx, messages.Session{NodeID: "nobody"}); kind(err) != protocol.NotFound {
		t.Errorf("held by an unknown node: %v", err)
	}
	if l, err := c.Next(ctx, session); l != nil || err != nil {
		t.Errorf("no work: %v, %v", l, err)
	}

	submit := func() protocol.Job {
		j, err := m.Submit(protocol.JobRequest{Scenario: "720p30-h264"})
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	take := func(j protocol.Job) job.Lease {
		l, err := c.Next(ctx, session)
		if err != nil || l == nil || l.Job.ID != j.ID {
			t.Fatalf("next: %v, %v; want %s", l, err, j.ID)
		}
		return *l
	}
	standing := func(l job.Lease, want job.LeaseStatus) {
		t.Helper()
		if got, err := c.Extend(ctx, l); err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", l.Key(), got, err, want)
		}
	}
	result := func(l job.Lease, status protocol.Status) job.Record {
		body, err := json.Marshal(protocol.JobResult{JobID: l.Job.ID, NodeID: l.NodeID, Status: status, Attempt: l.Job.Attempt(), CompletedAt: time.Now().UTC()})
		if err != nil {
			t.Fatal(err)
		}
		return job.Record{Lease: l, Result: body}
	}

	done := take(submit())
	standing(done, job.LeaseHeld)
	if held, err := c.Held(ctx, session); err != nil || len(held) != 1 || held[0].Key() != done.Key() {
		t.Errorf("held %v, %v; want %s", held, err, done.Key())
	}
	if err := c.Report(ctx, result(done, protocol.StatusCompleted)); err != nil {
		t.Error(err)
	}
	standing(done, job.LeaseEnded)

	released := take(submit())
	if err := c.Release(ctx, result(released, protocol.StatusFailed)); err != nil {
		t.Error(err)
	}
	standing(released, job.LeaseReassigned)
	second := take(released.Job)
	if second.Job.Attempt() != 2 {
		t.Errorf("attempt %d, want 2", second.Job.Attempt())
	}
	standing(released, job.LeaseReassigned)
	standing(second, job.LeaseHeld)
	if err := c.Report(ctx, result(released, protocol.StatusCompleted)); kind(err) != protocol.Conflict {
		t.Errorf("a stale attempt: %v", err)
	}

	cancel, err := http.NewRequest(http.MethodPost, fmt.Sprintf("%s/jobs/%d/cancel", server.URL, second.Job.SequenceNumber), nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel.Header.Set("Authorization", "Bearer key")
	answer, err := http.DefaultClient.Do(cancel)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	standing(second, job.LeaseCanceled)
	if err := c.Report(ctx, job.Record{Lease: second, Result: []byte(`{"progress":99.5}`)}); kind(err) != protocol.Rejected {
		t.Errorf("a malformed result: %v", err)
	}
	if held, err := c.Held(ctx, session); err != nil || len(held) != 0 {
		t.Errorf("held %v, %v; want none", held, err)
	}
	standing(job.Lease{Job: protocol.Job{ID: "nowhere"}, NodeID: session.NodeID}, job.LeaseUnknown)
}

func kind(err error) protocol.ErrorKind {
	var e *protocol.Error
	if !errors.As(err, &e) {
		return -1
	}
	return e.Kind
}
