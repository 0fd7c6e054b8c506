package devmaster

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"ffmpeg-agent/messages/protocol"
)

const gpuFacts = `{"address":"host-a","has_gpu":true,"gpu_type":"NVIDIA A10","gpu_capabilities":["nvenc_h264"],"labels":{"os":"linux"}}`

func TestLaterRegistrationStoresNoFacts(t *testing.T) {
	for _, c := range []struct {
		habits Habits
		stored string
	}{{Habits{}, "NVIDIA A10"}, {FieldHabits(), ""}} {
		api := serve(t, newMaster(t, Config{Habits: c.habits}))
		first := api.register("host-a")
		var again, stored, anew protocol.Node
		api.want(http.StatusOK, "POST", "/nodes/register", gpuFacts, &again)
		if again.ID != first.ID || !again.HasGPU || again.GPUType != "NVIDIA A10" || again.Labels["os"] != "linux" {
			t.Errorf("%+v: got response %+v, want the posted facts of node %s", c.habits, again, first.ID)
		}
		api.want(http.StatusOK, "GET", "/nodes/"+first.ID, "", &stored)
		if stored.GPUType != c.stored || stored.HasGPU != (c.stored != "") {
			t.Errorf("%+v: got stored node %+v, want gpu_type %q", c.habits, stored, c.stored)
		}
		api.want(http.StatusOK, "DELETE", "/nodes/"+first.ID, "", nil)
		api.want(http.StatusCreated, "POST", "/nodes/register", gpuFacts, &anew)
		api.want(http.StatusOK, "GET", "/nodes/"+anew.ID, "", &stored)
		if stored.GPUType != "NVIDIA A10" {
			t.Errorf("%+v: got stored node %+v after its removal, want the facts of its registration", c.habits, stored)
		}
	}
}

func TestNodeIsUnreadableAfterRestart(t *testing.T) {
	cfg := Config{StateFile: filepath.Join(t.TempDir(), "state.json"), Habits: FieldHabits()}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	id := serve(t, m).register("host-a").ID
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}

	api := serve(t, newMaster(t, cfg))
	api.want(http.StatusOK, "POST", "/nodes/"+id+"/heartbeat", "", nil)
	listed := func() int {
		var list struct{ Nodes []protocol.Node }
		api.want(http.StatusOK, "GET", "/nodes", "", &list)
		return len(list.Nodes)
	}
	if got := listed(); got != 0 {
		t.Errorf("got %d nodes in the list after the restart, want none", got)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if code, text := api.do(method, "/nodes/"+id, ""); code != http.StatusInternalServerError {
			t.Errorf("%s of the node after the restart: got %d %s, want 500", method, code, text)
		}
	}
	if again := api.register("host-a"); again.ID != id {
		t.Errorf("got node %s, want %s again", again.ID, id)
	}
	api.want(http.StatusOK, "GET", "/nodes/"+id, "", nil)
	if got := listed(); got != 1 {
		t.Errorf("got %d nodes in the list after the registration, want 1", got)
	}
}

func TestNodeStaysOfflineUntilItRegisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, Config{Habits: FieldHabits()})
		node := register(t, m, "host-a")
		wantStatus := func(when, want string) {
			t.Helper()
			if n := mustNode(t, m, node); n.Status != want {
				t.Errorf("got status %s %s, want %s", n.Status, when, want)
			}
		}
		time.Sleep(DefaultUnavailableAfter + 2*time.Second)
		synctest.Wait()
		heartbeat(t, m, node)
		wantStatus("after a silence and a heartbeat", nodeOffline)

		j, err := m.Submit(protocol.JobRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if got := poll(t, m, node); got == nil || got.ID != j.ID {
			t.Fatalf("got job %+v for an offline node, want %s", got, j.ID)
		}
		wantStatus("with a job", nodeOffline)
		if n := mustNode(t, m, node); n.CurrentJobID != j.ID {
			t.Errorf("got current job %q, want %s", n.CurrentJobID, j.ID)
		}
		time.Sleep(DefaultUnavailableAfter + 2*time.Second)
		synctest.Wait()
		if j := mustJob(t, m, j.ID); j.NodeID != "" || j.RetryCount != 1 {
			t.Errorf("got job %+v after a second silence, want it reassigned", j)
		}
		register(t, m, "host-a")
		wantStatus("after the registration", nodeAvailable)
	})
}

func TestJobForMissingGPUBlocksTheQueue(t *testing.T) {
	for i, c := range []struct {
		parameters string
		needsGPU   bool
	}{
		{`{"codec":"h264_nvenc"}`, true},
		{`{"codec":"h264","hwaccel":"cuda"}`, true},
		{`{"codec":"h264_qsv"}`, true},
		{`{"codec":"prores_ks"}`, false},
		{`{"codec":"h264","hwaccel":"none"}`, false},
		{`{}`, false},
	} {
		m := newMaster(t, Config{Habits: FieldHabits()})
		api := serve(t, m)
		bare := api.register("host-b").ID
		var card protocol.Node
		api.want(http.StatusCreated, "POST", "/nodes/register", gpuFacts, &card)
		first := api.post(fmt.Sprintf(`{"parameters":%s}`, c.parameters))
		api.post(`{}`)
		if got := api.next(bare); (got == nil) != c.needsGPU {
			t.Errorf("%s: got job %+v for a node without GPU", c.parameters, got)
		}
		if i < 2 { // nvenc
			if got := api.next(card.ID); got == nil || got.ID != first.ID {
				t.Errorf("%s: got job %+v for the node with the encoder, want %s", c.parameters, got, first.ID)
			}
		}
	}
}

// Running jobs become stale even if their node sends heartbeats, except for a live job that is the
// node's current job.
func TestRunningJobsGoStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMaster(t, Config{Habits: FieldHabits()})
		node := register(t, m, "host-a")
		var jobs []string
		for _, queue := range []string{"live", "live", "default", "batch"} {
			j, err := m.Submit(protocol.JobRequest{Queue: queue})
			if err != nil {
				t.Fatal(err)
			}
			if got := poll(t, m, node); got == nil || got.ID != j.ID { // now the node's current job
				t.Fatalf("got job %+v, want %s", got, j.ID)
			}
			jobs = append(jobs, j.ID)
		}
		requeuedAfter := func(d time.Duration) (requeued [4]bool) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(30 * time.Second) {
				heartbeat(t, m, node)
			}
			synctest.Wait()
			for i, id := range jobs {
				j := mustJob(t, m, id)
				requeued[i] = j.Status == protocol.StatusPending && j.NodeID == "" && j.RetryCount == 1
			}
			return requeued
		}
		for _, c := range []struct {
			wait time.Duration
			want [4]bool
		}{
			{DefaultLiveStaleAfter - time.Minute, [4]bool{}},
			{2 * time.Minute, [4]bool{true, true}},
			{DefaultStaleAfter, [4]bool{true, true, true, true}},
		} {
			if got := requeuedAfter(c.wait); got != c.want {
				t.Errorf("after another %v: got re-queued %v, want %v", c.wait, got, c.want)
			}
		}

		live := poll(t, m, node)
		if live == nil || live.ID != jobs[0] {
			t.Fatalf("got job %+v, want the live job %s", live, jobs[0])
		}
		requeuedAfter(2 * DefaultLiveStaleAfter)
		if j := mustJob(t, m, live.ID); j.NodeID != node || j.RetryCount != 1 {
			t.Errorf("the node's current live job is %s on node %q after %d retries, want it running", j.Status, j.NodeID, j.RetryCount)
		}
	})
}
