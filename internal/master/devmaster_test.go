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

	"ffmpeg-agent/actors"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/master"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

var _ actors.Master = (*master.Client)(nil)

// Uses all calls with a real master.
func TestLeaseLifecycle(t *testing.T) {
	m, err := devmaster.New(devmaster.Config{APIKeys: []string{"key"}, FenceAttempts: true})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(m.Handler())
	defer func() { server.Close(); m.Close() }()
	ctx := context.Background()
	newClient := func(key string) *master.Client {
		c, err := master.New(master.Config{URL: server.URL, APIKey: key})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	c := newClient("key")
	facts := messages.NodeFacts{Address: "host", Type: protocol.NodeServer, CPUThreads: 4, CPUModel: "c", RAMTotalBytes: 1 << 33}

	if _, err := newClient("wrong").Register(ctx, facts); kind(err) != protocol.Unauthorized {
		t.Errorf("Register with a wrong key: got %v, want unauthorized", err)
	}
	session, err := c.Register(ctx, facts)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Register(ctx, facts); err != nil || again.NodeID != session.NodeID || !session.New || again.New {
		t.Errorf("second Register: got %+v, %v after %+v; want the same node, new only at first", again, err, session)
	}
	if err := c.Heartbeat(ctx, session, messages.NodeStatus{Status: "available"}); err != nil {
		t.Error(err)
	}
	if err := c.Heartbeat(ctx, messages.Session{NodeID: "nobody"}, messages.NodeStatus{}); kind(err) != protocol.NotFound {
		t.Errorf("Heartbeat of an unknown node: got %v, want not found", err)
	}
	if _, err := c.Held(ctx, messages.Session{NodeID: "nobody"}); kind(err) != protocol.NotFound {
		t.Errorf("Held of an unknown node: got %v, want not found", err)
	}
	if l, err := c.Next(ctx, session); l != nil || err != nil {
		t.Errorf("Next without jobs: got %v, %v; want neither", l, err)
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
			t.Fatalf("Next: got %v, %v; want %s", l, err, j.ID)
		}
		return *l
	}
	wantStatus := func(l job.Lease, want job.LeaseStatus) {
		t.Helper()
		if got, err := c.Extend(ctx, l); err != nil || got != want {
			t.Errorf("Extend %s: got %v, %v; want %v", l.Key(), got, err, want)
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
	wantStatus(done, job.LeaseHeld)
	if held, err := c.Held(ctx, session); err != nil || len(held.Leases) != 1 || held.Leases[0].Key() != done.Key() {
		t.Errorf("Held: got %v, %v; want %s", held, err, done.Key())
	}
	if err := c.Report(ctx, result(done, protocol.StatusCompleted)); err != nil {
		t.Error(err)
	}
	wantStatus(done, job.LeaseEnded)

	released := take(submit())
	if err := c.Release(ctx, result(released, protocol.StatusFailed)); err != nil {
		t.Error(err)
	}
	wantStatus(released, job.LeaseReassigned)
	second := take(released.Job)
	if second.Job.Attempt() != 2 {
		t.Errorf("got attempt %d, want 2", second.Job.Attempt())
	}
	wantStatus(released, job.LeaseReassigned)
	wantStatus(second, job.LeaseHeld)
	if err := c.Report(ctx, result(released, protocol.StatusCompleted)); kind(err) != protocol.Conflict {
		t.Errorf("Report of a stale attempt: got %v, want conflict", err)
	}

	cancel, err := http.NewRequest(http.MethodPost, fmt.Sprintf("%s/jobs/%d/cancel", server.URL, second.Job.SequenceNumber), nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel.Header.Set("Authorization", "Bearer key")
	response, err := http.DefaultClient.Do(cancel)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	wantStatus(second, job.LeaseCanceled)
	if err := c.Report(ctx, job.Record{Lease: second, Result: []byte(`{"progress":99.5}`)}); kind(err) != protocol.Rejected {
		t.Errorf("Report of a malformed result: got %v, want rejected", err)
	}
	if held, err := c.Held(ctx, session); err != nil || len(held.Leases) != 0 {
		t.Errorf("Held: got %v, %v; want none", held, err)
	}
	wantStatus(job.Lease{Job: protocol.Job{ID: "nowhere"}, NodeID: session.NodeID}, job.LeaseUnknown)

	busy := take(submit())
	if err := c.Remove(ctx, session); kind(err) != protocol.Rejected {
		t.Errorf("Remove of a busy node: got %v, want rejected", err)
	}
	if err := c.Report(ctx, result(busy, protocol.StatusCompleted)); err != nil {
		t.Error(err)
	}
	if err := c.Remove(ctx, session); err != nil {
		t.Error(err)
	}
	if err := c.Remove(ctx, session); kind(err) != protocol.NotFound {
		t.Errorf("second Remove: got %v, want not found", err)
	}
}

func kind(err error) protocol.ErrorKind {
	var e *protocol.Error
	if !errors.As(err, &e) {
		return -1
	}
	return e.Kind
}
