package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

// gpuNode starts agents on a machine with a card, for a master with the habits of those in
// use.
type gpuNode struct {
	*testbed
	env   []string
	calls string // the runs of FFmpeg that used the card
}

func newGPUNode(t *testing.T) *gpuNode {
	t.Helper()
	nvml, err := fakehw.NewNVML(t.TempDir(), fakehw.NVMLScenario{Driver: "550.1", Cards: fakehw.NVMLCards(60)})
	if err != nil {
		t.Fatal(err)
	}
	bed := newTestbed(t)
	ffmpeg, calls := ffmpegtest.WithCard(t, t.TempDir())
	n := &gpuNode{bed, append(bed.environment(), "FFMPEG_AGENT_NODE_ADDRESS=gpu-node", "FFMPEG_AGENT_HARDWARE_NVML_LIBRARY="+nvml.Library,
		"FFMPEG_AGENT_HARDWARE_FFMPEG="+ffmpeg, "FFMPEG_AGENT_JOBS_SANDBOX=off"), calls} // ffmpeg writes calls
	n.freshMaster()
	return n
}

func (n *gpuNode) start() *process { return startAgent(n.t, n.env, n.flags()...) }

// freshMaster replaces the master by one that knows nothing.
func (n *gpuNode) freshMaster() {
	n.t.Helper()
	n.stopMaster()
	n.state = filepath.Join(n.t.TempDir(), "master.json")
	n.startMaster(devmaster.Config{MaxRetries: 3, Habits: devmaster.FieldHabits()})
}

func (n *gpuNode) checkFacts() {
	n.t.Helper()
	nodes := n.master.Nodes()
	if len(nodes) != 1 {
		n.t.Fatalf("got %d nodes, want one", len(nodes))
	}
	got := nodes[0]
	if !got.HasGPU || got.GPUType != "NVIDIA Fake L4" || !slices.Equal(got.GPUCapabilities, []string{"nvenc_h264"}) {
		n.t.Errorf("got has_gpu %v, gpu_type %q, gpu_capabilities %v", got.HasGPU, got.GPUType, got.GPUCapabilities)
	}
	for label, want := range map[string]string{"os": "linux", "arch": runtime.GOARCH, "node_type": got.Type, "master_as_worker": "true"} {
		if got.Labels[label] != want {
			n.t.Errorf("got label %s=%q, want %q", label, got.Labels[label], want)
		}
	}
}

// checkFirstFacts checks what the agent told of the card when it first registered. Where a
// slow machine's trial encodes outlast the agent's patience, a second registration tells it.
func (n *gpuNode) checkFirstFacts(agent *process) {
	n.t.Helper()
	n.awaitRegistration()
	if strings.Contains(agent.log(), "registering without trial encode results") {
		waitFor(n.t, "a second registration", func() bool {
			nodes := n.master.Nodes()
			return len(nodes) == 1 && nodes[0].HasGPU
		})
	}
	n.checkFacts()
}

func (n *gpuNode) encode() {
	n.t.Helper()
	parameters := ffmpegtest.Quick()
	parameters["codec"] = "h264_nvenc"
	n.awaitResult(n.submit(parameters).ID, protocol.StatusCompleted)
}

func (n *gpuNode) uses() int {
	text, _ := os.ReadFile(n.calls)
	return strings.Count(string(text), "\n")
}

func (n *gpuNode) removals() (removed int) {
	for _, e := range n.master.Events() {
		if e.Kind == devmaster.NodeRemoved {
			removed++
		}
	}
	return removed
}

// The first registration has what trial encodes proved: those that it waits for, and later
// those of an earlier run.
func TestGPUIsInTheFirstRegistration(t *testing.T) {
	t.Parallel()
	n := newGPUNode(t)
	agent := n.start()
	n.checkFirstFacts(agent)
	n.encode()
	if uses := n.uses(); uses != 2 {
		t.Errorf("used the card %d times, want a trial and a job", uses)
	}
	agent.kill()

	n.freshMaster()
	n.checkFirstFacts(n.start())
	n.encode()
	if uses := n.uses(); uses != 3 {
		t.Errorf("used the card %d times after a restart, want no other trial", uses)
	}
}

// An older agent has registered the node without its card.
func TestGPUReachesMasterWithOldFacts(t *testing.T) {
	t.Parallel()
	n := newGPUNode(t)
	resp, err := http.Post(n.server.URL+"/nodes/register", "application/json", strings.NewReader(`{"address":"gpu-node","type":"server"}`))
	if err != nil {
		t.Fatal(err)
	}
	var old protocol.Node
	err = json.NewDecoder(resp.Body).Decode(&old)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	n.start()
	n.encode() // blocked until the master knows the card
	n.checkFacts()
	if removed := n.removals(); removed != 1 || n.master.Nodes()[0].ID == old.ID {
		t.Errorf("removed the node %d times, want once", removed)
	}
}
