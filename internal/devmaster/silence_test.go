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

// mute is a master in a bubble of fake time with one node that took one job.
func mute(t *testing.T, cfg Config) (m *Master, node, job string) {
	t.Helper()
	m = newMaster(t, cfg)
	node = enrol(t, m, "host-a")
	j, err := m.Submit(protocol.JobRequest{Scenario: "720p30-h264"})
	if err != nil {
		t.Fatal(err)
	}
	poll(t, m, node)
	return m, node, j.ID
}

func enrol(t *testing.T, m *Master, address string) (id string) {
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

func beat(t *testing.T, m *Master, node string) {
	t.Helper()
	if err := m.heartbeat(node, nil); err != nil {
		t.Fatal(err)
	}
}

func TestSilentNodeLosesItsJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, node, job := mute(t, Config{FenceAttempts: true})
		other := enrol(t, m, "host-b")
		start := time.Now()
		for range 4 {
			time.Sleep(DefaultUnavailableAfter - time.Second)
			beat(t, m, node)
		}
		if n := mustNode(t, m, node); n.Status != nodeBusy {
			t.Fatalf("a node that sends heartbeats is %s", n.Status)
		}
		beat(t, m, other)
		time.Sleep(DefaultUnavailableAfter - time.Second)
		beat(t, m, other)
		if n := mustNode(t, m, node); n.Status != nodeBusy {
			t.Fatalf("before its time the silent node is %s", n.Status)
		}

		e, err := m.Await(t.Context(), func(e Event) bool { return e.Kind == JobReassigned })
		if err != nil {
			t.Fatal(err)
		}
		silence := e.At.Sub(start) - 4*(DefaultUnavailableAfter-time.Second)
		if silence < DefaultUnavailableAfter || silence > DefaultUnavailableAfter+time.Second {
			t.Errorf("given away after %v", silence)
		}
		if e.NodeID != node || e.JobID != job || e.Attempt != 1 || e.Status != protocol.StatusQueued {
			t.Errorf("event: %+v", e)
		}
		if n := mustNode(t, m, node); n.Status != nodeOffline || n.CurrentJobID != "" {
			t.Errorf("silent node: %+v", n)
		}
		if j := mustJob(t, m, job); j.Status != protocol.StatusQueued || j.RetryCount != 1 || j.NodeID != "" {
			t.Errorf("job: %+v", j)
		}
		if j := poll(t, m, node); j != nil {
			t.Errorf("an offline node was given %+v", j)
		}
		if j := poll(t, m, other); j == nil || j.ID != job || j.Attempt() != 2 {
			t.Fatalf("the other node was given %+v", j)
		}

		// The first node comes back, with the result of an attempt that is no longer its own.
		beat(t, m, node)
		if n := mustNode(t, m, node); n.Status != nodeAvailable {
			t.Errorf("back, it is %s", n.Status)
		}
		_, err = m.takeResult([]byte(result(job, node, protocol.StatusCompleted, 1)))
		if re, ok := errors.AsType[*refusal](err); !ok || re.code != 409 {
			t.Errorf("its late result: %v, want 409", err)
		}
		if j := mustJob(t, m, job); j.NodeID != other || j.Status != protocol.StatusAssigned {
			t.Errorf("job after the late result: %+v", j)
		}
	})
}

func TestJobOfSilentNodesFailsWhenItsRetriesAreUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, node, job := mute(t, Config{UnavailableAfter: 2 * time.Second, MaxRetries: 1, FenceAttempts: true})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		beat(t, m, node)
		if j := poll(t, m, node); j == nil || j.Attempt() != 2 {
			t.Fatalf("given %+v", j)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		j := mustJob(t, m, job)
		if j.Status != protocol.StatusFailed || j.FailureReason != protocol.ReasonPlatformError || j.RetryCount != 1 ||
			j.CompletedAt == nil || j.Error != "node host-a sent no heartbeat for 2s" {
			t.Errorf("job: %+v", j)
		}
		if _, err := m.takeResult([]byte(result(job, node, protocol.StatusCompleted, 2))); err == nil {
			t.Error("a job that was failed for good took a late result")
		}
	})
}

func TestPausedAndCanceledJobsOfASilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, node, paused := mute(t, Config{UnavailableAfter: time.Second})
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
			t.Errorf("paused job: %+v", j)
		}
		if j := mustJob(t, m, j.ID); j.Status != protocol.StatusCanceled || j.RetryCount != 0 {
			t.Errorf("canceled job: %+v", j)
		}
	})
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := m.Await(ctx, func(Event) bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

func TestEventsAreBounded(t *testing.T) {
	var l eventLog
	for i := range maxEvents + maxEvents/20 {
		l.add(Event{Attempt: i})
	}
	events, next, _ := l.since(0)
	if len(events) > maxEvents || len(events) < maxEvents*9/10 || events[len(events)-1].Attempt != next-1 {
		t.Errorf("%d events kept, the last is %d of %d", len(events), events[len(events)-1].Attempt, next)
	}
	if tail, _, _ := l.since(next - 3); len(tail) != 3 || tail[0].Attempt != next-3 {
		t.Errorf("the last three: %+v", tail)
	}
}
