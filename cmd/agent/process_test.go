package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

// field is a master with its state on disk, and an agent's settings against it.
type field struct {
	t       *testing.T
	state   string
	master  *devmaster.Master
	handler atomic.Pointer[http.Handler] // nil: the master is away
	server  *httptest.Server
	dir     string
}

func newField(t *testing.T) *field {
	f := &field{t: t, state: filepath.Join(t.TempDir(), "master.json"), dir: shortDir(t)}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := f.handler.Load(); h != nil {
			(*h).ServeHTTP(w, r)
		} else if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			conn.Close()
		}
	}))
	t.Cleanup(f.server.Close)
	f.open()
	t.Cleanup(func() { f.master.Close() })
	return f
}

// open starts the master, or starts it again with what it remembers.
func (f *field) open() {
	f.t.Helper()
	m, err := devmaster.New(devmaster.Config{StateFile: f.state, FenceAttempts: true, MaxRetries: 3, UnavailableAfter: 90 * time.Second})
	if err != nil {
		f.t.Fatal(err)
	}
	f.master = m
	h := m.Handler()
	f.handler.Store(&h)
}

// leave takes the master away, as a crash of its machine would.
func (f *field) leave() {
	f.t.Helper()
	f.handler.Store(nil)
	if err := f.master.Close(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *field) agent() *process {
	f.t.Helper()
	return startAgent(f.t, f.environment(), append(f.flags(), "--metrics-port", "0")...)
}

// environment keeps the agent off the ports that a real one on this machine may have.
func (f *field) environment() []string {
	return []string{
		"FFMPEG_AGENT_DATA_DIR=" + f.dir, "FFMPEG_AGENT_JOBS_CANCEL_CHECK_INTERVAL=100ms",
		"FFMPEG_AGENT_EXPORTERS_CPU_ENABLED=false", "FFMPEG_AGENT_EXPORTERS_FFMPEG_ENABLED=false", "FFMPEG_AGENT_EXPORTERS_GPU_ENABLED=false",
		"FFMPEG_AGENT_HARDWARE_FFMPEG=" + ffmpegtest.FFmpeg(), "FFMPEG_AGENT_HARDWARE_FFPROBE=" + ffmpegtest.FFprobe(),
	}
}

func (f *field) flags() []string {
	return []string{
		"--register", "--master", f.server.URL, "--allow-master-as-worker", "--poll-interval", "100ms", "--heartbeat-interval", "200ms",
	}
}

func (f *field) submit(parameters map[string]any) protocol.Job {
	f.t.Helper()
	job, err := f.master.Submit(protocol.JobRequest{Scenario: "test-h264", Parameters: parameters})
	if err != nil {
		f.t.Fatal(err)
	}
	return job
}

// cancel has the master take a job back, and returns what the agent measured of it.
func (f *field) cancel(job string) energy.Account {
	f.t.Helper()
	resp, err := http.Post(f.server.URL+"/jobs/"+job+"/cancel", "", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	f.await("the result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == job })
	return resultAccount(f.t, f.master, job)
}

func (f *field) await(what string, fits func(devmaster.Event) bool) devmaster.Event {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	e, err := f.master.Await(ctx, fits)
	if err != nil {
		f.t.Fatalf("waiting for %s: %v", what, err)
	}
	return e
}

// ffmpegBelow waits for an FFmpeg that works for the job under the field's data directory.
func (f *field) ffmpegBelow(dir string) int {
	f.t.Helper()
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for _, pid := range ffmpegs(dir) {
			return pid
		}
	}
	f.t.Fatal("no FFmpeg came up")
	return 0
}

// ffmpegs lists the processes whose working directory lies below dir.
func ffmpegs(dir string) []int {
	var pids []int
	entries, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, e := range entries {
		cwd, err := os.Readlink(e)
		if err != nil || !strings.HasPrefix(cwd, dir) {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(e, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestAResultOutlivesAgentAndMaster: the master is away when a result is due, the
// agent is killed, both start again: the result arrives, once.
func TestAResultOutlivesAgentAndMaster(t *testing.T) {
	t.Parallel()
	f := newField(t)
	agent := f.agent()
	job := f.submit(map[string]any{"resolution": "160x120", "duration": 1, "preset": "ultrafast"})
	f.await("the assignment", func(e devmaster.Event) bool { return e.Kind == devmaster.JobAssigned })
	f.leave()
	waitFor(t, "the result to be due", func() bool { return strings.Contains(agent.log(), "could not deliver a result") })
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	agent.Wait()

	f.open()
	f.agent()
	e := f.await("the result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == job.ID })
	if e.Status != protocol.StatusCompleted || e.Attempt != 1 {
		t.Errorf("arrived as %s of attempt %d", e.Status, e.Attempt)
	}
	// Another job goes all the way, and the first result came only once.
	second := f.submit(map[string]any{"resolution": "160x120", "duration": 1, "preset": "ultrafast"})
	f.await("the second result", func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == second.ID })
	for _, e := range f.master.Events() {
		if e.JobID == job.ID && e.Kind == devmaster.ResultRejected {
			t.Errorf("sent again: %+v", e)
		}
	}
}

// TestFFmpegNeverOutlivesTheAgent: killed with SIGKILL, the agent takes FFmpeg with
// it, and its next start reports the job.
func TestFFmpegNeverOutlivesTheAgent(t *testing.T) {
	f := newField(t)
	agent := f.agent()
	job := f.submit(ffmpegtest.Long())
	f.ffmpegBelow(f.dir)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	agent.Wait()
	died := time.Now()
	waitFor(t, "FFmpeg's end", func() bool { return len(ffmpegs(f.dir)) == 0 })
	if took := time.Since(died); took > 2*time.Second {
		t.Errorf("FFmpeg lived on for %s", took)
	}
	f.agent()
	e := f.await("the interrupted job's report", func(e devmaster.Event) bool {
		return e.Kind == devmaster.ResultAccepted && e.JobID == job.ID && e.Attempt == 1
	})
	r, _, _ := f.master.Result(job.ID)
	if e.Status != protocol.StatusFailed || r.FailureReason != protocol.ReasonPlatformError {
		t.Errorf("reported as %s, %s: %s", e.Status, r.FailureReason, r.Error)
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	f := newField(t)
	agent := f.agent()
	job := f.submit(ffmpegtest.Long())
	f.ffmpegBelow(f.dir)
	signal := func() {
		if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	waitFor(t, "the drain", func() bool { return strings.Contains(agent.log(), "draining") })
	signal()
	if err := agent.Wait(); err != nil {
		t.Errorf("after the second signal: %v", err)
	}
	f.await("the job's report", func(e devmaster.Event) bool {
		return e.Kind == devmaster.ResultAccepted && e.JobID == job.ID && e.Status == protocol.StatusFailed
	})
	if left := ffmpegs(f.dir); len(left) > 0 {
		t.Errorf("FFmpeg lives on: %v", left)
	}
}

// TestAThirdSignalEndsAtOnce: the master hangs on results, so that the drain cannot end
// by itself.
func TestAThirdSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	f := newField(t)
	agent := f.agent()
	f.submit(ffmpegtest.Long())
	f.ffmpegBelow(f.dir)
	reported := make(chan struct{})
	next, once := *f.handler.Load(), sync.Once{}
	var hanging http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/results" {
			next.ServeHTTP(w, r)
			return
		}
		once.Do(func() { close(reported) })
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	f.handler.Store(&hanging)
	signal := func() {
		if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	waitFor(t, "the drain", func() bool { return strings.Contains(agent.log(), "signal received: draining") })
	signal()
	<-reported
	signal()
	agent.Wait()
	if code := agent.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(agent.log(), "third signal") {
		t.Errorf("exit status %d", code)
	}
	waitFor(t, "FFmpeg's end", func() bool { return len(ffmpegs(f.dir)) == 0 })
}

// TestAFrozenAgentLearnsWhatMovedOn: the master gives the job away while the agent is
// stopped; awake again, it stops FFmpeg and sends nothing of the lost attempt as current.
func TestAFrozenAgentLearnsWhatMovedOn(t *testing.T) {
	t.Parallel()
	f := newField(t)
	if err := f.master.Close(); err != nil {
		t.Fatal(err)
	}
	m, err := devmaster.New(devmaster.Config{FenceAttempts: true, UnavailableAfter: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	f.master = m
	h := m.Handler()
	f.handler.Store(&h)
	agent := f.agent()
	job := f.submit(ffmpegtest.Long())
	pid := f.ffmpegBelow(f.dir)
	if err := agent.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.await("the reassignment", func(e devmaster.Event) bool { return e.Kind == devmaster.JobReassigned && e.JobID == job.ID })
	if err := agent.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the lost attempt's FFmpeg", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	f.await("the next attempt", func(e devmaster.Event) bool {
		return e.Kind == devmaster.JobAssigned && e.JobID == job.ID && e.Attempt == 2
	})
	for _, e := range f.master.Events() {
		if e.JobID == job.ID && e.Kind == devmaster.ResultAccepted {
			t.Errorf("a result was taken: %+v", e)
		}
	}
}

func TestASecondAgentOnTheSameDataIsRefused(t *testing.T) {
	t.Parallel()
	f := newField(t)
	first := f.agent()
	f.await("the registration", func(e devmaster.Event) bool { return e.Kind == devmaster.NodeRegistered })
	second := f.agent()
	if err := second.Wait(); err == nil || second.ProcessState.ExitCode() != exitFailed {
		t.Errorf("the second agent ended with %v", err)
	}
	if !strings.Contains(second.log(), strconv.Itoa(first.Process.Pid)) {
		t.Errorf("the first agent's pid %d is not named: %s", first.Process.Pid, second.log())
	}
}

func waitFor(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hang); !reached(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", hang, what)
		}
	}
}
