package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/messages"
)

// drainLookEvery is how often --wait looks whether the agent is gone.
const drainLookEvery = 250 * time.Millisecond

// silence is how long nobody answers on the socket before the agent counts as gone
// although its process was not seen to end: it may run where this command cannot
// see it, in a container, and its socket is away for a moment when it is made again.
const silence = 10 * time.Second

func newDrain() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Have the running agent finish its jobs and end",
		Long: `Ask the agent that runs on this machine to take no new job, finish and report the
running ones, and end. Heartbeats go on until then. It is what a first SIGTERM does;
jobs may take as long as shutdown.drain_timeout says. Exit status 1 when no agent runs.`,
		Example: "  agent drain\n  agent drain --wait && sudo apt-get upgrade",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := dialAgent(cmd)
			if err != nil {
				return err
			}
			d := drainer{client: client, out: cmd.OutOrStdout(), every: drainLookEvery, silence: silence}
			return d.drain(cmd.Context(), wait)
		},
	}
	bindSocketFlags(cmd)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the agent has ended")
	return cmd
}

// drainer drains one agent.
type drainer struct {
	client         *control.Client
	out            io.Writer
	every, silence time.Duration
}

func (d *drainer) drain(ctx context.Context, wait bool) error {
	before, err := d.client.Status(ctx)
	if err != nil {
		return err
	}
	// Before it is asked to end, so that a later process of this number is not
	// taken for it.
	process, err := os.FindProcess(before.PID)
	if err != nil || before.PID <= 0 {
		process = nil
	}
	if err := d.client.Drain(ctx); err != nil {
		return err
	}
	said := "draining"
	if before.Draining {
		said = "already draining"
	}
	fmt.Fprintf(d.out, "%s: it %s\n", said, awaited(&before))
	if !wait {
		return nil
	}
	if err := d.wait(ctx, &before, process); err != nil {
		return fmt.Errorf("waiting for the agent to end: %w", err)
	}
	fmt.Fprintln(d.out, "the agent has ended")
	return nil
}

// awaited says what an agent will do before it ends.
func awaited(s *messages.Status) string {
	var parts []string
	if n := len(s.Jobs); n > 0 {
		jobs := make([]string, n)
		for i := range s.Jobs {
			j := &s.Jobs[i]
			jobs[i] = fmt.Sprintf("%s at %s %%", plain(j.Key.String()), positive(j.Progress.Percent, 0))
		}
		parts = append(parts, fmt.Sprintf("waits for %s (%s)", several(n, "running job"), strings.Join(jobs, ", ")))
	}
	if n := s.Journal.Unsent; n > 0 {
		parts = append(parts, fmt.Sprintf("tries to send %s (what cannot be sent is kept)", several(n, "result")))
	}
	if len(parts) == 0 {
		return "has nothing left to do and ends now"
	}
	return strings.Join(parts, ", ") + ", and ends"
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// wait returns when the agent that answered before has ended; nil is no process to see.
func (d *drainer) wait(ctx context.Context, before *messages.Status, process *os.Process) error {
	if process != nil {
		defer func() { _ = process.Release() }()
	}
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	said, heard := left(before), time.Now()
	for {
		now, err := d.client.Status(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && another(before, &now):
			return nil
		case err == nil:
			heard = time.Now()
			if left(&now) != said {
				said = left(&now)
				fmt.Fprintf(d.out, "it %s\n", awaited(&now))
			}
		case errors.Is(err, control.ErrNotRunning) && (ended(process) || time.Since(heard) >= d.silence):
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// left is how many jobs and results the agent has still to do.
func left(s *messages.Status) [2]int { return [2]int{len(s.Jobs), s.Journal.Unsent} }

// another reports whether the agent that answers now is not the one from before: a
// service manager may have started the next one already.
func another(before, now *messages.Status) bool {
	return now.PID != before.PID || !now.StartedAt.Equal(before.StartedAt)
}

func ended(process *os.Process) bool {
	return process != nil && errors.Is(process.Signal(noSignal), os.ErrProcessDone)
}

// noSignal asks whether a process is there and does nothing to it.
const noSignal = syscall.Signal(0)
