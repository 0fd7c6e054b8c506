package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
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

// asAgent is an environment variable that makes this test binary the agent, so that tests
// can start, signal and kill a real process.
const asAgent = "AGENT_UNDER_TEST"

// hang is the deadline of everything that a test waits for.
const hang = 2 * time.Minute

func TestMain(m *testing.M) {
	becomeFFmpeg()
	if helper := os.Getenv(ffmpegtest.Helper); helper != "" {
		sandboxHelper = []string{helper}
	}
	if len(os.Args) == 4 && os.Args[1] == pretendAgent {
		serveStatus(os.Args[2], os.Args[3])
	}
	// The NVML child does not get the environment of the agent.
	if os.Getenv(asAgent) != "" || slices.Contains(os.Args, nvmlCommand) || slices.Contains(os.Args, journalInspectorCommand) {
		os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	// Agents must get the default action of SIGHUP, also where these tests run under nohup: a
	// signal that is handled here is reset in a child, an ignored one is not.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil { // for the agents under test
		panic(err)
	}
	// Most tests wait for processes most of the time.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	ffmpegtest.Main(m, "libx264")
}

// testbed is a master with its state on disk, and a data directory and settings for agents.
type testbed struct {
	t       *testing.T
	state   string
	master  *devmaster.Master
	handler atomic.Pointer[http.Handler] // nil: the master is down
	server  *httptest.Server
	dir     string
}

func newTestbed(t *testing.T) *testbed {
	bed := &testbed{t: t, state: filepath.Join(t.TempDir(), "master.json"), dir: shortDir(t)}
	bed.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := bed.handler.Load(); h != nil {
			(*h).ServeHTTP(w, r)
		} else if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			conn.Close()
		}
	}))
	t.Cleanup(bed.server.Close)
	bed.startMaster(devmaster.Config{MaxRetries: 3, FenceAttempts: true})
	t.Cleanup(func() { bed.master.Close() })
	return bed
}

// startMaster starts a master with the state of the one before.
func (bed *testbed) startMaster(cfg devmaster.Config) {
	bed.t.Helper()
	cfg.StateFile = bed.state
	m, err := devmaster.New(cfg)
	if err != nil {
		bed.t.Fatal(err)
	}
	bed.master = m
	h := m.Handler()
	bed.handler.Store(&h)
}

// stopMaster makes connections to the master fail.
func (bed *testbed) stopMaster() {
	bed.t.Helper()
	bed.handler.Store(nil)
	if err := bed.master.Close(); err != nil {
		bed.t.Fatal(err)
	}
}

// environment disables the exporters, whose ports a real agent on this machine may use.
func (bed *testbed) environment() []string {
	return []string{
		"FFMPEG_AGENT_DATA_DIR=" + bed.dir, "FFMPEG_AGENT_JOBS_CANCEL_CHECK_INTERVAL=100ms",
		"FFMPEG_AGENT_EXPORTERS_CPU_ENABLED=false", "FFMPEG_AGENT_EXPORTERS_FFMPEG_ENABLED=false", "FFMPEG_AGENT_EXPORTERS_GPU_ENABLED=false",
		"FFMPEG_AGENT_EXPORTERS_DOCKER_ENABLED=false",
		"FFMPEG_AGENT_EXPORTERS_LISTEN_ADDRESS=127.0.0.1",
		"FFMPEG_AGENT_HARDWARE_FFMPEG=" + ffmpegtest.FFmpeg(), "FFMPEG_AGENT_HARDWARE_FFPROBE=" + ffmpegtest.FFprobe(),
	}
}

func (bed *testbed) flags() []string {
	return []string{
		"--register", "--master", bed.server.URL, "--allow-master-as-worker", "--poll-interval", "100ms", "--heartbeat-interval", "200ms",
		"--metrics-port", "0",
	}
}

func (bed *testbed) startAgent() *process {
	bed.t.Helper()
	return startAgent(bed.t, bed.environment(), bed.flags()...)
}

func (bed *testbed) submit(parameters map[string]any) protocol.Job {
	bed.t.Helper()
	job, err := bed.master.Submit(protocol.JobRequest{Scenario: "test-h264", Parameters: parameters})
	if err != nil {
		bed.t.Fatal(err)
	}
	return job
}

// cancel cancels a job and returns the energy account of its result.
func (bed *testbed) cancel(job string) energy.Account {
	bed.t.Helper()
	resp, err := http.Post(bed.server.URL+"/jobs/"+job+"/cancel", "", nil)
	if err != nil {
		bed.t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	bed.awaitResult(job, protocol.StatusCanceled)
	return bed.account(job)
}

// account is the energy account of a job's result.
func (bed *testbed) account(job string) energy.Account {
	bed.t.Helper()
	_, raw, ok := bed.master.Result(job)
	if !ok {
		bed.t.Fatalf("no result of job %s", job)
	}
	var r struct {
		Analysis struct {
			Energy energy.Account `json:"energy"`
		} `json:"analyzer_output"`
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		bed.t.Fatal(err)
	}
	return r.Analysis.Energy
}

func (bed *testbed) await(what string, matches func(devmaster.Event) bool) devmaster.Event {
	bed.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	e, err := bed.master.Await(ctx, matches)
	if err != nil {
		bed.t.Fatalf("waiting for %s: %v", what, err)
	}
	return e
}

func (bed *testbed) awaitRegistration() {
	bed.t.Helper()
	bed.await("the registration", func(e devmaster.Event) bool { return e.Kind == devmaster.NodeRegistered })
}

// awaitResult waits until the master has accepted a job's result.
func (bed *testbed) awaitResult(job string, want protocol.Status) devmaster.Event {
	bed.t.Helper()
	e := bed.await("the result of "+job, func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == job })
	if e.Status != want {
		bed.t.Errorf("job %s: got status %s, want %s", job, e.Status, want)
	}
	return e
}

// awaitFFmpeg waits for an FFmpeg that encodes a job of this testbed.
func (bed *testbed) awaitFFmpeg() (pid int) {
	bed.t.Helper()
	return bed.awaitFFmpegs(1)[0]
}

// awaitFFmpegs waits for n jobs that are being encoded.
func (bed *testbed) awaitFFmpegs(n int) (pids []int) {
	bed.t.Helper()
	waitFor(bed.t, fmt.Sprintf("%d encoding FFmpeg processes", n), func() bool {
		// Unlike ffprobe, the helper of a sandbox and what makes a synthetic input, which also work in
		// a job's directory.
		pids = slices.DeleteFunc(bed.ffmpegs(), func(pid int) bool {
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			return err != nil || !strings.Contains(string(line), "\x00-progress\x00") || strings.Contains(string(line), "testsrc2=")
		})
		return len(pids) >= n
	})
	return pids
}

// ffmpegs lists the processes whose working directory is below the data directory.
func (bed *testbed) ffmpegs() []int {
	var pids []int
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		cwd, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(cwd, bed.dir) {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(link, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// process is an agent in a process of its own.
type process struct {
	*exec.Cmd
	out output
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

func startAgent(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := newProcess(t, env, args...)
	p.start(t)
	return p
}

// newProcess returns an agent that is not started yet.
func newProcess(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(self, args...)}
	p.Env = append(os.Environ(), append(env, asAgent+"=1")...)
	p.Stdout, p.Stderr = &p.out, &p.out
	return p
}

func (p *process) start(t *testing.T) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("output of the agent:\n%s", p.log())
		}
	})
}

func (p *process) log() string { return p.out.String() }

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (p *process) kill() {
	p.Process.Kill()
	p.Wait()
}

// wantExit waits until the process has exited.
func (p *process) wantExit(t *testing.T, want int) {
	t.Helper()
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		p.Wait()
	}()
	select {
	case <-exited:
		if got := p.ProcessState.ExitCode(); got != want {
			t.Errorf("exit status %d, want %d", got, want)
		}
	case <-time.After(hang):
		t.Errorf("no exit within %v", hang)
		p.Process.Kill()
		<-exited
	}
}

// command runs a command line in this process and returns its exit status.
func command(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	status = execute(ctx, args, &out, &errs)
	return status, out.String(), errs.String()
}

// operate runs an operator's command line in this process. It finds no agent through the
// configuration of this machine.
func operate(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if _, set := os.LookupEnv("FFMPEG_AGENT_DATA_DIR"); !set {
		t.Setenv("FFMPEG_AGENT_DATA_DIR", t.TempDir())
	}
	var out bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	err := root.ExecuteContext(ctx)
	return out.String(), err
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
	dir, err := os.MkdirTemp("/tmp", "agent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// get waits until a URL answers with status 200.
func get(t *testing.T, url string) string {
	t.Helper()
	var body []byte
	waitFor(t, url, func() bool {
		resp, err := http.Get(url)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, err = io.ReadAll(resp.Body)
		return err == nil && resp.StatusCode == http.StatusOK
	})
	http.DefaultClient.CloseIdleConnections()
	return string(body)
}

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant %s:\n%s", got, path, want)
	}
}

func of[T any](v T) *T { return &v }

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }
