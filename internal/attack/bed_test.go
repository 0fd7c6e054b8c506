//go:build attack

package attack

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

	// hook is asked before the master answers, and answers itself if it returns true.
	hook atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	// within is the command line that starts the agent as another program, such as unshare(1).
	within []string
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
	master, err := devmaster.New(devmaster.Config{MaxRetries: -1})
	if err != nil {
		t.Fatal(err)
	}
	handler := master.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hook := b.hook.Load(); hook == nil || !(*hook)(w, r) {
			handler.ServeHTTP(w, r)
		}
	}))
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
	argv := append(slices.Clone(b.within), binary, "--register", "--master", b.url, "--allow-master-as-worker",
		"--poll-interval", "100ms", "--heartbeat-interval", "500ms")
	b.agent = exec.Command(argv[0], argv[1:]...)
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

// startWithMetrics starts the agent with a metrics port, and returns its address.
func (b *bed) startWithMetrics(env ...string) (address string) {
	b.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(b.t, err)
	address = l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(address)
	b.start(os.Geteuid(), append([]string{"FFMPEG_AGENT_METRICS_PORT=" + port}, env...)...)
	waitFor(b.t, "metrics port", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return address
}

// newBed starts a master and an agent with an environment, such as
// "FFMPEG_AGENT_JOBS_SANDBOX=off", beside its own.
func newBed(t *testing.T, env ...string) *bed {
	t.Helper()
	b := prepareBed(t)
	b.start(os.Geteuid(), env...)
	return b
}

// answer has a function asked before the master answers; see hook.
func (b *bed) answer(hook func(http.ResponseWriter, *http.Request) bool) { b.hook.Store(&hook) }

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
	return b.await(b.submit(parameters))
}

// await waits for the result of a job.
func (b *bed) await(job protocol.Job) (result protocol.JobResult, raw string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	if _, err := b.master.Await(ctx, func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == job.ID }); err != nil {
		b.t.Fatalf("waiting for the result of %.1000v: %v", job.Parameters, err)
	}
	result, bytes, ok := b.master.Result(job.ID)
	if !ok {
		b.t.Fatalf("no result of %.1000v", job.Parameters)
	}
	return result, string(bytes)
}

// cancel cancels a job, and waits for its end.
func (b *bed) cancel(job protocol.Job) {
	b.t.Helper()
	answer, err := http.Post(b.url+"/jobs/"+job.ID+"/cancel", "application/json", nil)
	must(b.t, err)
	_ = answer.Body.Close()
	b.await(job)
}

// encoder waits until FFmpeg encodes a job's output, and returns its pid.
func (b *bed) encoder() (pid int) {
	b.t.Helper()
	waitFor(b.t, "encoding FFmpeg", func() bool {
		for _, p := range b.children() {
			if line := cmdline(p); strings.Contains(line, "-progress") && !strings.Contains(line, " lavfi ") && strings.Contains(line, "-i ") && !strings.Contains(line, b.home+"/agent ") {
				pid = p
			}
		}
		return pid > 0
	})
	return pid
}

// children are the processes that the agent started and that run.
func (b *bed) children() (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", b.agent.Process.Pid))
	for _, task := range tasks {
		raw, _ := os.ReadFile(task)
		for _, word := range strings.Fields(string(raw)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// cmdline is the command line of a process, as any user can read it.
func cmdline(pid int) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.ReplaceAll(string(raw), "\x00", " ")
}

// peakMemory is the most memory that the agent had resident so far, in MiB.
func (b *bed) peakMemory() int {
	b.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.agent.Process.Pid))
	must(b.t, err)
	_, after, found := strings.Cut(string(raw), "VmHWM:")
	fields := strings.Fields(after)
	if !found || len(fields) == 0 {
		b.t.Fatal("no peak of the agent's memory in /proc")
	}
	kib, err := strconv.Atoi(fields[0])
	must(b.t, err)
	return kib >> 10
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

// wantFailed runs a job that has to fail for whatever reason.
func (b *bed) wantFailed(parameters map[string]any) {
	b.t.Helper()
	if result, _ := b.run(parameters); result.Status != protocol.StatusFailed {
		b.t.Errorf("job %v: got %s, want failed", parameters, result.Status)
	}
}

// compile builds a program of C in the folder of programs. FFMPEG is the real FFmpeg.
func (b *bed) compile(name, source string, flags ...string) {
	b.t.Helper()
	real, err := exec.LookPath("ffmpeg")
	must(b.t, err)
	args := append([]string{"-O1", "-Wall", "-o", filepath.Join(b.home, name), source, "-DFFMPEG=" + quoted(real)}, flags...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		b.t.Fatalf("compiling %s: %v: %s", source, err, out)
	}
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
func (b *bed) video(name string) string { return b.videoOf("64x64", name) }

func (b *bed) videoOf(size, name string) string {
	b.t.Helper()
	path := filepath.Join(b.files, name)
	out, err := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size="+size+":rate=10:duration=1", "-y", path).CombinedOutput()
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

// ownNetwork puts the rest of a test, and what it starts, into a network of its own, whose only
// interface is loopback with further addresses.
func ownNetwork(t *testing.T, addresses ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may make a network namespace here")
	}
	runtime.LockOSThread() // and the thread ends with the test
	must(t, syscall.Unshare(syscall.CLONE_NEWNET))
	commands := [][]string{{"ip", "link", "set", "lo", "up"}}
	for _, address := range addresses {
		commands = append(commands, []string{"ip", "address", "add", address, "dev", "lo"})
	}
	for _, c := range commands {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
}
