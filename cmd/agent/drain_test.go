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

// sleeper is a process that stands for an agent's, and how to end it.
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

// drainOf drains the agent on a socket and waits for it.
func drainOf(ctx context.Context, socket string, silence time.Duration) (string, error) {
	var out bytes.Buffer
	d := drainer{client: control.NewClient(socket), out: &out, every: time.Millisecond, silence: silence}
	err := d.drain(ctx, true)
	return out.String(), err
}

func TestDrainSaysWhatTheAgentWillWaitFor(t *testing.T) {
	idle := messages.Status{PID: 1}
	sending := messages.Status{PID: 1, Journal: job.JournalStats{Unsent: 1}}
	for name, test := range map[string]struct {
		status messages.Status
		want   string
	}{
		"busy": {busyStatus(), "already draining: it waits for 2 running jobs (job-a#1 at 42 %, job-b#3 at - %), tries to send 3 results (what cannot be sent is kept), and ends\n"},
		"idle": {idle, "draining: it has nothing left to do and ends now\n"},
		"sent": {sending, "draining: it tries to send 1 result (what cannot be sent is kept), and ends\n"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(shortDir(t), "agent.sock")
			var asked atomic.Int32
			answer(t, socket, control.Handlers{
				Status: func() messages.Status { return test.status },
				Drain:  func(context.Context) error { asked.Add(1); return nil },
			})
			out, err := operate(t, "drain", "--socket", socket)
			if err != nil || asked.Load() != 1 || out != test.want {
				t.Errorf("asked %d times, %v: %s", asked.Load(), err, out)
			}
		})
	}
}

// TestDrainWaitsForTheProcess: the socket goes a moment before the process does.
func TestDrainWaitsForTheProcess(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	pid, end := sleeper(t)
	var draining atomic.Bool
	var seen, ended atomic.Int32
	stopped := make(chan struct{})
	stop := answer(t, socket, control.Handlers{
		Status: func() messages.Status {
			s := messages.Status{PID: pid}
			if !draining.Load() || seen.Add(1) < 3 {
				s.Jobs = make([]messages.JobStatus, 1)
			} else if seen.Load() == 3 {
				close(stopped)
			}
			return s
		},
		Drain: func(context.Context) error { draining.Store(true); return nil },
	})
	go func() {
		<-stopped
		stop()
		ended.Store(1)
		end()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	out, err := drainOf(ctx, socket, time.Hour)
	if err != nil || ended.Load() == 0 {
		t.Errorf("ended: %d; %v", ended.Load(), err)
	}
	for _, want := range []string{"1 running job", "it has nothing left to do", "the agent has ended"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said: %s", want, out)
		}
	}
}

func TestDrainIsOverWhenAnotherAgentAnswers(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	var pid atomic.Int32
	pid.Store(1)
	answer(t, socket, control.Handlers{
		Status: func() messages.Status { return messages.Status{PID: int(pid.Load())} },
		Drain:  func(context.Context) error { pid.Store(2); return nil },
	})
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if out, err := drainOf(ctx, socket, time.Hour); err != nil || !strings.Contains(out, "ended") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestDrainIsOverAfterLongSilence of an agent whose process cannot be seen from here.
func TestDrainIsOverAfterLongSilence(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	drained := make(chan struct{})
	stop := answer(t, socket, control.Handlers{Drain: func(context.Context) error { close(drained); return nil }})
	go func() { <-drained; stop() }()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if out, err := drainOf(ctx, socket, 50*time.Millisecond); err != nil || !strings.Contains(out, "ended") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWaitingForADrainMayBeGivenUp(t *testing.T) {
	socket := filepath.Join(shortDir(t), "agent.sock")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asked atomic.Bool
	answer(t, socket, control.Handlers{
		Status: func() messages.Status {
			if asked.Load() {
				cancel()
			}
			return messages.Status{PID: 1}
		},
		Drain: func(context.Context) error { asked.Store(true); return nil },
	})
	if out, err := drainOf(ctx, socket, time.Hour); !errors.Is(err, context.Canceled) || strings.Contains(out, "ended") {
		t.Errorf("%v: %s", err, out)
	}
}
