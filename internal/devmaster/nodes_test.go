package devmaster

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// newBusyMaster returns a master with one node that has one job.
func newBusyMaster(t *testing.T, cfg Config) (m *Master, node, job string) {
	t.Helper()
	m = newMaster(t, cfg)
	node = register(t, m, "host-a")
	j, err := m.Submit(protocol.JobRequest{Scenario: "720p30-h264"})
	if err != nil {
		t.Fatal(err)
	}
	poll(t, m, node)
	return m, node, j.ID
}

func register(t *testing.T, m *Master, address string) (id string) {
	t.Helper()
	_, n, err := m.register(fmt.Appendf(nil, `{"address":%q}`, address))
	if err != nil {
		t.Fatal(err)
	}
	return n.ID
}

func poll(t *testing.T, m *Master, node string) *protocol.Job {
	t.Helper()
	j, err := m.nextJob(node)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func heartbeat(t *testing.T, m *Master, node string) {
	t.Helper()
	if err := m.heartbeat(node, nil); err != nil {
		t.Fatal(err)
	}
}

func TestJobOfOfflineNodeIsReassigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, node, job := newBusyMaster(t, Config{FenceAttempts: true})
		other := register(t, m, "host-b")
		start := time.Now()
		for range 4 {
			time.Sleep(DefaultUnavailableAfter - time.Second)
			heartbeat(t, m, node)
		}
		if n := mustNode(t, m, node); n.Status != nodeBusy {
			t.Fatalf("got status %s of a node with heartbeats, want busy", n.Status)
		}
		heartbeat(t, m, other)
		time.Sleep(DefaultUnavailableAfter - time.Second)
		heartbeat(t, m, other)
		if n := mustNode(t, m, node); n.Status != nodeBusy {
			t.Fatalf("got status %s shortly before the limit, want busy", n.Status)
		}

		e, err := m.Await(t.Context(), func(e Event) bool { return e.Kind == JobReassigned })
		if err != nil {
			t.Fatal(err)
		}
		silence := e.At.Sub(start) - 4*(DefaultUnavailableAfter-time.Second)
		if silence < DefaultUnavailableAfter || silence > DefaultUnavailableAfter+time.Second {
			t.Errorf("reassigned after %v, want %v", silence, DefaultUnavailableAfter)
		}
		if e.NodeID != node || e.JobID != job || e.Attempt != 1 || e.Status != protocol.StatusQueued {
			t.Errorf("got event %+v, want attempt 1 of %s queued", e, job)
		}
		if n := mustNode(t, m, node); n.Status != nodeOffline || n.CurrentJobID != "" {
			t.Errorf("got node %+v, want it offline without current job", n)
		}
		if j := mustJob(t, m, job); j.Status != protocol.StatusQueued || j.RetryCount != 1 || j.NodeID != "" {
			t.Errorf("got job %+v, want it queued for retry 1", j)
		}
		if j := poll(t, m, node); j != nil {
			t.Errorf("poll of an offline node: got %+v, want no job", j)
		}
		if j := poll(t, m, other); j == nil || j.ID != job || j.Attempt() != 2 {
			t.Fatalf("poll of the other node: got %+v, want attempt 2 of %s", j, job)
		}

		// The first node returns and reports the first attempt.
		heartbeat(t, m, node)
		if n := mustNode(t, m, node); n.Status != nodeAvailable {
			t.Errorf("got status %s after a heartbeat, want available", n.Status)
		}
		_, err = m.acceptResult([]byte(result(job, node, protocol.StatusCompleted, 1)))
		if se, ok := errors.AsType[*statusError](err); !ok || se.code != 409 {
			t.Errorf("late result: got error %v, want 409", err)
		}
		if j := mustJob(t, m, job); j.NodeID != other || j.Status != protocol.StatusAssigned {
			t.Errorf("got job %+v after the late result, want it assigned to %s", j, other)
		}
	})
}

func TestJobOfOfflineNodeFailsAfterLastRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, node, job := newBusyMaster(t, Config{UnavailableAfter: 2 * time.Second, MaxRetries: 1, FenceAttempts: true})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		heartbeat(t, m, node)
		if j := poll(t, m, node); j == nil || j.Attempt() != 2 {
			t.Fatalf("got job %+v, want attempt 2", j)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		j := mustJob(t, m, job)
		if j.Status != protocol.StatusFailed || j.FailureReason != protocol.ReasonPlatformError || j.RetryCount != 1 ||
			j.CompletedAt == nil || j.Error != "node host-a sent no heartbeat for 2s" {
			t.Errorf("got job %+v, want it failed after retry 1", j)
		}
		if _, err := m.acceptResult([]byte(result(job, node, protocol.StatusCompleted, 2))); err == nil {
			t.Error("late result of a failed job: got no error")
		}
	})
}

func TestPausedAndCanceledJobsOfOfflineNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, node, paused := newBusyMaster(t, Config{UnavailableAfter: time.Second})
		j, err := m.Submit(protocol.JobRequest{})
		if err != nil {
			t.Fatal(err)
		}
		poll(t, m, node)
		if _, err := m.pauseJob(paused); err != nil {
			t.Fatal(err)
		}
		if _, err := m.cancelJob(j.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if j := mustJob(t, m, paused); j.Status != protocol.StatusPaused || j.NodeID != "" || j.RetryCount != 1 {
			t.Errorf("got job %+v, want it paused without node for retry 1", j)
		}
		if j := mustJob(t, m, j.ID); j.Status != protocol.StatusCanceled || j.RetryCount != 0 {
			t.Errorf("got job %+v, want it canceled without retry", j)
		}
	})
}

func TestAwaitReturnsWhenContextIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := m.Await(ctx, func(Event) bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestNumberOfEventsIsLimited(t *testing.T) {
	var l eventLog
	for i := range maxEvents + maxEvents/20 {
		l.add(Event{Attempt: i})
	}
	events, next, _ := l.since(0)
	if len(events) > maxEvents || len(events) < maxEvents*9/10 || events[len(events)-1].Attempt != next-1 {
		t.Errorf("got %d events, last %d; want 90 to 100 %% of %d, last %d", len(events), events[len(events)-1].Attempt, maxEvents, next-1)
	}
	if tail, _, _ := l.since(next - 3); len(tail) != 3 || tail[0].Attempt != next-3 {
		t.Errorf("got last events %+v, want 3 starting with %d", tail, next-3)
	}
}
