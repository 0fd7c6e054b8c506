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

// fullPipe is a pipe that accepts no data until it is read.
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

// startWithOutput starts an agent with out as its standard output and standard error.
func (bed *testbed) startWithOutput(out *os.File, flags ...string) *process {
	bed.t.Helper()
	p := newProcess(bed.t, bed.environment(), append(append(bed.flags(), "--log-level", "debug"), flags...)...)
	p.Stdout, p.Stderr = out, out
	p.start(bed.t)
	out.Close()
	return p
}

func TestUnreadLogCostsNoWork(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	_, out := fullPipe(t)
	agent := bed.startWithOutput(out, "--max-concurrent-jobs", "4")
	var jobs []string
	for range 8 {
		jobs = append(jobs, bed.submit(ffmpegtest.Quick()).ID)
	}
	for _, job := range jobs {
		bed.awaitResult(job, protocol.StatusCompleted)
	}
	delivered := time.Now()
	bed.await("a heartbeat", func(e devmaster.Event) bool { return e.Kind == devmaster.Heartbeat && e.At.After(delivered) })
	agent.signal(t, syscall.SIGTERM)
	agent.wantExit(t, exitOK)
}

func TestSecondSignalStopsJobsWithUnreadLog(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	_, out := fullPipe(t)
	agent := bed.startWithOutput(out)
	job := bed.submit(ffmpegtest.Long())
	bed.awaitFFmpeg()
	agent.signal(t, syscall.SIGTERM)
	client := control.NewClient(filepath.Join(bed.dir, "agent.sock"))
	waitFor(t, "drain", func() bool { s, err := client.Status(context.Background()); return err == nil && s.Draining })
	agent.signal(t, syscall.SIGTERM)
	agent.wantExit(t, exitOK)
	if r, _, ok := bed.master.Result(job.ID); !ok || r.FailureReason != protocol.ReasonPlatformError {
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
			p.wantExit(t, test.want)
		})
	}
}

// A stack trace that cannot be written must not keep a crashed process from ending.
func TestUnreadStackTraceDoesNotDelayExit(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	_, out := fullPipe(t)
	agent := bed.startWithOutput(out)
	bed.awaitRegistration()
	agent.signal(t, syscall.SIGQUIT)
	agent.wantExit(t, 2)
}

func TestLogContinuesWhenItsReaderDoes(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	reader, out := fullPipe(t)
	bed.startWithOutput(out)
	bed.awaitRegistration()
	var log output
	go io.Copy(&log, reader) //nolint:errcheck // ends with the process
	for _, want := range []string{"agent started", "registered"} {
		waitFor(t, want+" in the log", func() bool { return strings.Contains(log.String(), want) })
	}
}

func TestClosedLogReaderCostsLinesOnly(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	reader, out := fullPipe(t)
	reader.Close()
	port := freePort(t)
	agent := bed.startWithOutput(out, "--metrics-port", strconv.Itoa(port))
	bed.awaitResult(bed.submit(ffmpegtest.Quick()).ID, protocol.StatusCompleted)
	if dropped, ok := series(get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", port)), "ffmpeg_agent_log_lines_dropped_total"); !ok || dropped == 0 {
		t.Errorf("dropped lines: got %v (exported: %v), want more than 0", dropped, ok)
	}
	if s, err := control.NewClient(filepath.Join(bed.dir, "agent.sock")).Status(t.Context()); err != nil || s.LogLinesDropped == 0 {
		t.Errorf("dropped lines in the status: got %d, %v; want more than 0", s.LogLinesDropped, err)
	}
	agent.signal(t, syscall.SIGTERM)
	agent.wantExit(t, exitOK)
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
	bed := newTestbed(t)
	// FFmpeg changes its signal handling at start, so a script records what it inherits.
	// It may write to its home alone, which goes with the job.
	ffmpeg := filepath.Join(t.TempDir(), "ffmpeg")
	script := fmt.Sprintf("#!/bin/sh\nwhile read -r line; do echo \"$line\"; done </proc/$$/status >$HOME/seen.new && mv $HOME/seen.new $HOME/seen\nexec %s \"$@\"\n", ffmpegtest.FFmpeg())
	if err := os.WriteFile(ffmpeg, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	agent := startAgent(t, append(bed.environment(), "FFMPEG_AGENT_HARDWARE_FFMPEG="+ffmpeg), bed.flags()...)
	job := bed.submit(ffmpegtest.Long())
	pid := bed.awaitFFmpeg()
	for n := 1; n <= 2; n++ {
		agent.signal(t, syscall.SIGHUP)
		waitFor(t, "SIGHUP in the log", func() bool { return strings.Count(agent.log(), "SIGHUP received") == n })
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("FFmpeg after SIGHUP: %v", err)
	}
	var status []byte
	waitFor(t, "record of the signals", func() bool {
		found, _ := filepath.Glob(filepath.Join(bed.dir, "work/*/scratch/seen"))
		for _, path := range found {
			status, _ = os.ReadFile(path)
		}
		return len(status) > 0
	})
	bed.cancel(job.ID)
	agent.signal(t, syscall.SIGTERM)
	agent.wantExit(t, exitOK)
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE} {
		if ignores(ignoredSignals(t, string(status)), s) {
			t.Errorf("FFmpeg is started with %v ignored", s)
		}
	}
}

// nohup ignores SIGHUP for the agent and its children.
func TestIgnoredHangupStaysIgnored(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	agent := newProcess(t, bed.environment(), bed.flags()...)
	agent.Args = append([]string{"sh", "-c", `trap '' HUP; exec "$0" "$@"`, agent.Path}, agent.Args[1:]...)
	agent.Path = "/bin/sh"
	agent.start(t)
	bed.awaitRegistration()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", agent.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !ignores(ignoredSignals(t, string(status)), syscall.SIGHUP) {
		t.Error("SIGHUP is no longer ignored")
	}
}
