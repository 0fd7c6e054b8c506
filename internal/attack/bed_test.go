//go:build attack

package attack

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/messages/protocol"
)

// agentBinary is the agent that is attacked.
var agentBinary = flag.String("agent", "../../bin/agent", "the agent's binary")

// hang is the deadline of everything that a test waits for.
const hang = 2 * time.Minute

// apiKey is the key of the agents under attack: what attackers want most.
const apiKey = "attack-me-0123456789abcdef"

// bed is a master and an agent that is attacked.
type bed struct {
	t      *testing.T
	master *devmaster.Master
	url    string // the master's
	dir    string // the agent's data directory
	files  string // a folder for inputs and outputs; outputs are allowed there
	home   string // a folder for programs
	agent  *exec.Cmd
	log    output
}

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// prepareBed starts a master.
func prepareBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, files: shortDir(t), home: shortDir(t)}
	b.dir = filepath.Join(b.home, "data") // beside FFmpeg, where that is one of these tests
	if err := errors.Join(os.Chmod(b.files, 0o755), os.Chmod(b.home, 0o755), os.Mkdir(b.dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	master, err := devmaster.New(devmaster.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(master.Handler())
	t.Cleanup(func() { server.Close(); master.Close() })
	b.master, b.url = master, server.URL
	return b
}

// start starts the agent as a user, with an environment beside its own.
func (b *bed) start(uid int, env ...string) {
	b.t.Helper()
	// A copy, since another user may not reach the folder of the binary.
	binary := filepath.Join(b.home, "agent")
	content, err := os.ReadFile(*agentBinary)
	if err == nil {
		err = os.WriteFile(binary, content, 0o755)
	}
	if err == nil && uid != os.Geteuid() {
		err = os.Chown(b.dir, uid, uid)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.agent = exec.Command(binary, "--register", "--master", b.url, "--allow-master-as-worker",
		"--poll-interval", "100ms", "--heartbeat-interval", "500ms")
	b.agent.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "FFMPEG_AGENT_METRICS_PORT=0", "MASTER_API_KEY=" + apiKey, "FFMPEG_AGENT_DATA_DIR=" + b.dir, "FFMPEG_AGENT_JOBS_OUTPUT_ROOTS=" + b.files,
		"FFMPEG_AGENT_EXPORTERS_CPU_ENABLED=false", "FFMPEG_AGENT_EXPORTERS_FFMPEG_ENABLED=false", "FFMPEG_AGENT_EXPORTERS_GPU_ENABLED=false",
		"FFMPEG_AGENT_EXPORTERS_DOCKER_ENABLED=false",
	}, env...)
	b.agent.Stdout, b.agent.Stderr = &b.log, &b.log
	b.agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid != os.Geteuid() {
		b.agent.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	if err := b.agent.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = b.agent.Process.Kill()
		_ = b.agent.Wait()
		if b.t.Failed() {
			b.t.Logf("log of the agent:\n%s", b.log.String())
		}
	})
}

// newBed starts a master and an agent with an environment, such as
// "FFMPEG_AGENT_JOBS_SANDBOX=off", beside its own.
func newBed(t *testing.T, env ...string) *bed {
	t.Helper()
	b := prepareBed(t)
	b.start(os.Geteuid(), env...)
	return b
}

// submit submits a job.
func (b *bed) submit(parameters map[string]any) protocol.Job {
	b.t.Helper()
	job, err := b.master.Submit(protocol.JobRequest{Scenario: "attack-h264", Parameters: parameters})
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

// run submits a job and returns its result, decoded and as it was sent.
func (b *bed) run(parameters map[string]any) (result protocol.JobResult, raw string) {
	b.t.Helper()
	id := b.submit(parameters).ID
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	if _, err := b.master.Await(ctx, func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == id }); err != nil {
		b.t.Fatalf("waiting for the result of %v: %v", parameters, err)
	}
	result, bytes, ok := b.master.Result(id)
	if !ok {
		b.t.Fatalf("no result of %v", parameters)
	}
	return result, string(bytes)
}

// wantFailure runs a job that has to fail for a reason, and returns its result as it was sent.
func (b *bed) wantFailure(want protocol.FailureReason, parameters map[string]any) string {
	b.t.Helper()
	result, raw := b.run(parameters)
	if result.Status != protocol.StatusFailed || result.FailureReason != want {
		b.t.Errorf("job %v: got %s %s %q, want failed %s", parameters, result.Status, result.FailureReason, result.Error, want)
	}
	return raw
}

// wantAlive checks that the agent still runs and completes a small job.
func (b *bed) wantAlive() {
	b.t.Helper()
	if result, _ := b.run(small()); result.Status != protocol.StatusCompleted {
		b.t.Errorf("a small job: got %s %q, want completed", result.Status, result.Error)
	}
}

// small returns the parameters of a job that takes a moment.
func small() map[string]any {
	return map[string]any{"resolution": "64x64", "duration": 0.2, "fps": 10, "preset": "ultrafast"}
}

// video makes a small video in the folder of inputs.
func (b *bed) video(name string) string {
	b.t.Helper()
	path := filepath.Join(b.files, name)
	out, err := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=10:duration=1", "-y", path).CombinedOutput()
	if err != nil {
		b.t.Fatalf("making a video: %v: %s", err, out)
	}
	return path
}

// file writes a file to the folder of inputs.
func (b *bed) file(name, content string) string {
	b.t.Helper()
	path := filepath.Join(b.files, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func waitFor(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hang); !reached(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %s", what, hang)
		}
	}
}

// shortDir returns a directory whose path is short enough for a socket in it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "attack-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
