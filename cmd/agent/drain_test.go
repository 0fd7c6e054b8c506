package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// sleeper starts a process in the place of an agent's. end kills it.
func sleeper(t *testing.T) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

// drainAndWait drains the agent on a socket and waits until it has exited.
func drainAndWait(ctx context.Context, socket string, goneAfter time.Duration) (string, error) {
	var out bytes.Buffer
	d := drainer{client: control.NewClient(socket), out: &out, pollInterval: time.Millisecond, goneAfter: goneAfter}
	err := d.drain(ctx, true)
	return out.String(), err
}

func TestDrainPrintsRemainingWork(t *testing.T) {
	idle := messages.Status{PID: 1}
	undelivered := messages.Status{PID: 1, Journal: job.JournalStats{Unsent: 1}}
	for name, test := range map[string]struct {
		status messages.Status
		want   string
	}{
		"busy":        {busyStatus(), "already draining: waiting for 4 running jobs (job-a#1 at 42 %, job-b#3 at - %, job-c#1 at - %, job-d#1 at - %), 3 results to deliver (kept for the next start if that fails)\n"},
		"idle":        {idle, "draining: nothing left to do\n"},
		"undelivered": {undelivered, "draining: 1 result to deliver (kept for the next start if that fails)\n"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(shortDir(t), "agent.sock")
			var drains atomic.Int32
			serveControl(t, socket, control.Handlers{
				Status: func() messages.Status { return test.status },
				Drain:  func(context.Context) error { drains.Add(1); return nil },
			})
			out, err := operate(t, "drain", "--socket", socket)
			if err != nil || out != test.want {
				t.Errorf("got %q, %v; want %q", out, err, test.want)
			}
			if got := drains.Load(); got != 1 {
				t.Errorf("the agent was told to drain %d times, want once", got)
			}
		})
	}
}

// The socket is removed before the process exits.
func TestDrainWaitsForTheProcess(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	pid, end := sleeper(t)
	var draining atomic.Bool
	var answers atomic.Int32
	var exited atomic.Bool
	noJobs := make(chan struct{})
	stop := serveControl(t, socket, control.Handlers{
		Status: func() messages.Status {
			s := messages.Status{PID: pid}
			if !draining.Load() || answers.Add(1) < 3 {
				s.Jobs = make([]messages.JobStatus, 1)
			} else if answers.Load() == 3 {
				close(noJobs)
			}
			return s
		},
		Drain: func(context.Context) error { draining.Store(true); return nil },
	})
	go func() {
		<-noJobs
		stop()
		exited.Store(true)
		end()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	out, err := drainAndWait(ctx, socket, time.Hour)
	if err != nil || !exited.Load() {
		t.Errorf("drain returned %v, after the process exited: %v; want no error, after it", err, exited.Load())
	}
	for _, want := range []string{"1 running job", "nothing left to do", "the agent has exited"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want %q in it", out, want)
		}
	}
}

func TestDrainEndsWhenAnotherAgentAnswers(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	var pid atomic.Int32
	pid.Store(1)
	serveControl(t, socket, control.Handlers{
		Status: func() messages.Status { return messages.Status{PID: int(pid.Load())} },
		Drain:  func(context.Context) error { pid.Store(2); return nil },
	})
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if out, err := drainAndWait(ctx, socket, time.Hour); err != nil || !strings.Contains(out, "exited") {
		t.Errorf("got %q, %v; want the agent to have exited", out, err)
	}
}

// The process of an agent in a container is not visible.
func TestDrainEndsWithoutAnswers(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	drained := make(chan struct{})
	stop := serveControl(t, socket, control.Handlers{Drain: func(context.Context) error { close(drained); return nil }})
	go func() { <-drained; stop() }()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if out, err := drainAndWait(ctx, socket, 50*time.Millisecond); err != nil || !strings.Contains(out, "exited") {
		t.Errorf("got %q, %v; want the agent to have exited", out, err)
	}
}

func TestDrainWaitCanBeCanceled(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var draining atomic.Bool
	serveControl(t, socket, control.Handlers{
		Status: func() messages.Status {
			if draining.Load() {
				cancel()
			}
			return messages.Status{PID: 1}
		},
		Drain: func(context.Context) error { draining.Store(true); return nil },
	})
	if out, err := drainAndWait(ctx, socket, time.Hour); !errors.Is(err, context.Canceled) || strings.Contains(out, "exited") {
		t.Errorf("got %q, %v; want %v", out, err, context.Canceled)
	}
}
