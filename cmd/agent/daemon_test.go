package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/devmaster"
	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

// fullPipe is a pipe that accepts nothing until its reader reads.
func fullPipe(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	reader, writer = os.NewFile(uintptr(fds[0]), "reader"), os.NewFile(uintptr(fds[1]), "writer")
	t.Cleanup(func() { reader.Close(); writer.Close() })
	size, err := unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.WriteString(strings.Repeat("\n", size)); err != nil {
		t.Fatal(err)
	}
	return reader, writer
}

// startWithOutput starts an agent that logs everything to a file, where its standard
// error goes as well.
func (f *field) startWithOutput(out *os.File, flags ...string) *process {
	f.t.Helper()
	p := newProcess(f.t, append(f.environment(), "FFMPEG_AGENT_EXPORTERS_LISTEN_ADDRESS=127.0.0.1"),
		append(append(f.flags(), "--log-level", "debug"), flags...)...)
	p.Stdout, p.Stderr = out, out
	p.start(f.t)
	out.Close()
	return p
}

// exit waits for the end of a process and returns its exit status.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	select {
	case <-ended:
		return p.ProcessState.ExitCode()
	case <-time.After(hang):
		t.Errorf("the process has not ended after %v", hang)
		p.Process.Kill()
		<-ended
		return -1
	}
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (f *field) awaitRegistration() {
	f.t.Helper()
	f.await("the registration", func(e devmaster.Event) bool { return e.Kind == devmaster.NodeRegistered })
}

// awaitCompleted waits until jobs are delivered as completed.
func (f *field) awaitCompleted(jobs ...string) {
	f.t.Helper()
	for _, job := range jobs {
		e := f.await("the result of "+job, func(e devmaster.Event) bool { return e.Kind == devmaster.ResultAccepted && e.JobID == job })
		if e.Status != protocol.StatusCompleted {
			f.t.Errorf("job %s is %s, want completed", job, e.Status)
		}
	}
}

func TestUnreadLogCostsNoWork(t *testing.T) {
	t.Parallel()
	f := newField(t)
	_, out := fullPipe(t)
	agent := f.startWithOutput(out, "--metrics-port", "0", "--max-concurrent-jobs", "4")
	var jobs []string
	for range 24 {
		jobs = append(jobs, f.submit(ffmpegtest.Quick()).ID)
	}
	f.awaitCompleted(jobs...)
	delivered := time.Now()
	f.await("a heartbeat", func(e devmaster.Event) bool { return e.Kind == devmaster.Heartbeat && e.At.After(delivered) })
	agent.signal(t, syscall.SIGTERM)
	if got := agent.exit(t); got != exitOK {
		t.Errorf("exit status %d after SIGTERM, want %d", got, exitOK)
	}
}

func TestSecondSignalStopsJobsWithUnreadLog(t *testing.T) {
	t.Parallel()
	f := newField(t)
	_, out := fullPipe(t)
	agent := f.startWithOutput(out, "--metrics-port", "0")
	job := f.submit(ffmpegtest.Long())
	f.ffmpegBelow(f.dir)
	agent.signal(t, syscall.SIGTERM)
	client := control.NewClient(filepath.Join(f.dir, "agent.sock"))
	waitFor(t, "the drain", func() bool { s, err := client.Status(context.Background()); return err == nil && s.Draining })
	agent.signal(t, syscall.SIGTERM)
	if got := agent.exit(t); got != exitOK {
		t.Errorf("exit status %d after two signals, want %d", got, exitOK)
	}
	if r, _, ok := f.master.Result(job.ID); !ok || r.FailureReason != protocol.ReasonPlatformError {
		t.Errorf("result %q (there: %v), want %q", r.FailureReason, ok, protocol.ReasonPlatformError)
	}
}

func TestUnreadStandardErrorDoesNotDelayExit(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		want int
	}{
		"wrong flag":        {[]string{"--polling"}, exitUsage},
		"no session so far": {[]string{"--master", "http://master.invalid:8080"}, exitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, out := fullPipe(t)
			p := newProcess(t, []string{"FFMPEG_AGENT_DATA_DIR=" + t.TempDir()}, test.args...)
			p.Stdout, p.Stderr = out, out
			p.start(t)
			if got := p.exit(t); got != test.want {
				t.Errorf("exit status %d, want %d", got, test.want)
			}
		})
	}
}

// A stack trace that cannot be written must not keep a crashed process from ending.
func TestUnreadStackTraceDoesNotDelayExit(t *testing.T) {
	t.Parallel()
	f := newField(t)
	_, out := fullPipe(t)
	agent := f.startWithOutput(out, "--metrics-port", "0")
	f.awaitRegistration()
	agent.signal(t, syscall.SIGQUIT)
	if got := agent.exit(t); got != 2 {
		t.Errorf("exit status %d after SIGQUIT, want 2, the Go runtime's", got)
	}
}

func TestLogContinuesWhenItsReaderDoes(t *testing.T) {
	t.Parallel()
	f := newField(t)
	reader, out := fullPipe(t)
	f.startWithOutput(out, "--metrics-port", "0")
	f.awaitRegistration()
	var log output
	go io.Copy(&log, reader) //nolint:errcheck // ends with the process
	for _, want := range []string{"agent started", "registered"} {
		waitFor(t, want+" in the log", func() bool { return strings.Contains(log.String(), want) })
	}
}

func TestClosedLogReaderCostsLinesOnly(t *testing.T) {
	t.Parallel()
	f := newField(t)
	reader, out := fullPipe(t)
	reader.Close()
	port := freePort(t)
	agent := f.startWithOutput(out, "--metrics-port", strconv.Itoa(port))
	f.awaitCompleted(f.submit(ffmpegtest.Quick()).ID)
	if dropped, ok := series(get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", port)), "ffmpeg_agent_log_lines_dropped_total"); !ok || dropped == 0 {
		t.Errorf("dropped lines: got %v (exported: %v), want more than 0", dropped, ok)
	}
	if s, err := control.NewClient(filepath.Join(f.dir, "agent.sock")).Status(t.Context()); err != nil || s.LogLinesDropped == 0 {
		t.Errorf("dropped lines in the status: got %d, %v; want more than 0", s.LogLinesDropped, err)
	}
	agent.signal(t, syscall.SIGTERM)
	if got := agent.exit(t); got != exitOK {
		t.Errorf("exit status %d after SIGTERM, want %d", got, exitOK)
	}
}

// ignoredSignals is a process's set of ignored signals, from its /proc/PID/status.
func ignoredSignals(t *testing.T, status string) (set uint64) {
	t.Helper()
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "SigIgn:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return set
		}
	}
	t.Fatalf("no SigIgn in %q", status)
	return 0
}

func ignores(set uint64, s syscall.Signal) bool { return set&(1<<(s-1)) != 0 }

func TestHangupDoesNotEndJobs(t *testing.T) {
	t.Parallel()
	f := newField(t)
	// FFmpeg sets signals of its own: what it is started with is seen by a shell.
	seen, ffmpeg := filepath.Join(t.TempDir(), "seen"), filepath.Join(t.TempDir(), "ffmpeg")
	script := fmt.Sprintf("#!/bin/sh\ngrep SigIgn /proc/self/status >%s\nexec %s \"$@\"\n", seen, ffmpegtest.FFmpeg())
	if err := os.WriteFile(ffmpeg, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	agent := startAgent(t, append(f.environment(), "FFMPEG_AGENT_HARDWARE_FFMPEG="+ffmpeg), append(f.flags(), "--metrics-port", "0")...)
	job := f.submit(ffmpegtest.Long())
	pid := f.ffmpegBelow(f.dir)
	for n := 1; n <= 2; n++ {
		agent.signal(t, syscall.SIGHUP)
		waitFor(t, "the signal in the log", func() bool { return strings.Count(agent.log(), "SIGHUP received") == n })
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("FFmpeg after SIGHUP: %v", err)
	}
	f.cancel(job.ID)
	agent.signal(t, syscall.SIGTERM)
	if got := agent.exit(t); got != exitOK {
		t.Errorf("exit status %d after SIGTERM, want %d", got, exitOK)
	}
	status, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE} {
		if ignores(ignoredSignals(t, string(status)), s) {
			t.Errorf("FFmpeg is started with %v ignored", s)
		}
	}
}

// nohup ignores SIGHUP for the agent and its children.
func TestIgnoredHangupStaysIgnored(t *testing.T) {
	t.Parallel()
	f := newField(t)
	agent := newProcess(t, f.environment(), append(f.flags(), "--metrics-port", "0")...)
	agent.Args = append([]string{"sh", "-c", `trap '' HUP; exec "$0" "$@"`, agent.Path}, agent.Args[1:]...)
	agent.Path = "/bin/sh"
	agent.start(t)
	f.awaitRegistration()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", agent.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !ignores(ignoredSignals(t, string(status)), syscall.SIGHUP) {
		t.Error("SIGHUP is no longer ignored")
	}
}
