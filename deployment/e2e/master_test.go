//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// The master runs in a network namespace of its own, as another machine would.
const (
	masterURL  = "http://10.99.0.1:8080"
	liveServer = "10.99.0.2:9000"
	firstKey   = "first-key-0123456789"
	secondKey  = "second-key-9876543210"
)

// master is the devmaster and the key that it accepts.
type master struct{ key string }

// startMaster starts the devmaster, with the state of the one before.
func startMaster(t *testing.T, key string) *master {
	t.Helper()
	if _, err := os.Stat("/run/netns/master"); err != nil {
		for _, line := range []string{
			"ip netns add master", "ip link add worker0 type veth peer name master0 netns master",
			"ip addr add 10.99.0.2/24 dev worker0", "ip link set worker0 up",
			"ip -n master addr add 10.99.0.1/24 dev master0", "ip -n master link set master0 up", "ip -n master link set lo up",
		} {
			if out, err := try(line); err != nil {
				t.Fatalf("%s: %v: %s", line, err, out)
			}
		}
	}
	_, _ = try("systemctl stop devmaster") // fails where it does not run
	out, err := try("systemd-run --quiet --collect --unit=devmaster -p NetworkNamespacePath=/run/netns/master -p StateDirectory=devmaster --setenv=MASTER_API_KEY=" + key +
		" /e2e/src/bin/devmaster --listen 10.99.0.1:8080 --state /var/lib/devmaster/state.json")
	if err != nil {
		t.Fatalf("starting devmaster: %v: %s", err, out)
	}
	m := &master{key: key}
	waitFor(t, "the master", func() bool { return m.call("GET", "/health", nil, nil) == nil })
	return m
}

func (m *master) call(method, path string, body, answer any) error {
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, masterURL+path, content)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+m.key)
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, raw)
	}
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(raw, answer)
}

// node is the worker's node; false while the master does not have it.
func (m *master) node(t *testing.T) (protocol.Node, bool) {
	t.Helper()
	var list struct{ Nodes []protocol.Node }
	if err := m.call("GET", "/nodes", nil, &list); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list.Nodes, func(n protocol.Node) bool { return n.Address == "worker" })
	if i < 0 {
		return protocol.Node{}, false
	}
	return list.Nodes[i], true
}

// registeredSince waits until the node has registered after a time, and returns how long
// that took.
func (m *master) registeredSince(t *testing.T, begun time.Time) time.Duration {
	t.Helper()
	waitFor(t, "the registration", func() bool {
		n, found := m.node(t)
		return found && n.LastHeartbeat.After(begun) && n.Status != "offline"
	})
	return time.Since(begun).Round(100 * time.Millisecond)
}

// submit returns the job's sequence number, which masters find it by, like agent report.
func (m *master) submit(t *testing.T, request protocol.JobRequest) string {
	t.Helper()
	if request.Scenario == "" {
		request.Scenario = "e2e-h264"
	}
	var job protocol.Job
	if err := m.call("POST", "/jobs", request, &job); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(job.SequenceNumber)
}

func (m *master) job(t *testing.T, id string) protocol.Job {
	t.Helper()
	var job protocol.Job
	if err := m.call("GET", "/jobs/"+id, nil, &job); err != nil {
		t.Fatal(err)
	}
	return job
}

// await waits for the result of a job and returns it.
func (m *master) await(t *testing.T, id string, want protocol.Status) protocol.JobResult {
	t.Helper()
	waitFor(t, "the end of the job", func() bool { return m.job(t, id).Status.Terminal() })
	var result protocol.JobResult
	if err := m.call("GET", "/jobs/"+id+"/result", nil, &result); err != nil {
		t.Fatal(err)
	}
	if result.Status != want {
		t.Fatalf("the job is %s (%s), want %s\n%s", result.Status, result.Error, want, result.Logs)
	}
	return result
}

func notes(r protocol.JobResult) string {
	raw, _ := json.Marshal(r.AnalyzerOutput["notes"])
	return string(raw)
}

// live serves an input that FFmpeg reads while it is made: a job lasts until finish.
type live struct {
	content []byte // an MPEG transport stream
	mu      sync.Mutex
	ended   map[string]chan struct{}
}

func startLive(t *testing.T) *live {
	t.Helper()
	file := filepath.Join(t.TempDir(), "live.ts")
	out, err := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=10:duration=600",
		"-c:v", "mpeg2video", "-g", "10", file).CombinedOutput()
	if err != nil {
		t.Fatalf("making an input: %v: %s", err, out)
	}
	l := &live{ended: map[string]chan struct{}{}}
	if l.content, err = os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", liveServer)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(l.serve)}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return l
}

// job is a job that reads a stream of this name.
func (l *live) job(name string) protocol.JobRequest {
	return protocol.JobRequest{Parameters: map[string]any{"input": "http://" + liveServer + "/" + name + ".ts", "resolution": "160x120", "preset": "ultrafast"}}
}

// finish ends a stream, for those who read it now and later.
func (l *live) finish(name string) { close(l.channel(name)) }

func (l *live) channel(name string) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended[name] == nil {
		l.ended[name] = make(chan struct{})
	}
	return l.ended[name]
}

// serve sends a second of video per second, after a start of ten seconds.
func (l *live) serve(w http.ResponseWriter, r *http.Request) {
	ended := l.channel(strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/"), ".ts"))
	const packet = 188
	second := len(l.content) / 600 / packet * packet
	w.Header().Set("Content-Type", "video/mp2t")
	for sent, next := 0, 10*second; sent < len(l.content); next = second {
		n, err := w.Write(l.content[sent:min(sent+next, len(l.content))])
		if sent += n; err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-ended:
			return
		case <-r.Context().Done():
			return
		case <-time.After(time.Second):
		}
	}
}
