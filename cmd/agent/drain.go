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

const (
	// drainPollInterval is the interval at which --wait checks the agent.
	drainPollInterval = 250 * time.Millisecond
	// goneAfter is the time without an answer on the socket after which an agent counts as
	// gone. It applies where its process is not visible, for instance in a container. The
	// socket is also missing for a moment when the agent's control server restarts.
	goneAfter = 10 * time.Second
)

func newDrain() *cobra.Command {
	var wait, undo bool
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Stop the running agent after its jobs are done",
		Long: `Tell the agent on this machine to take no new jobs, to finish and report the running
ones, and then to exit. Heartbeats continue until the end. A first SIGTERM does the same.
Running jobs may take up to shutdown.drain_timeout. --undo makes it take jobs again, as long
as one runs. Exit status 1 if no agent is running.`,
		Example: "  agent drain\n  agent drain --wait && sudo apt-get upgrade\n  agent drain --undo",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := dialAgent(cmd)
			if err != nil {
				return err
			}
			if undo {
				if wait {
					return usageError{errors.New("--undo and --wait exclude each other")}
				}
				if err := client.UndoDrain(cmd.Context()); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "not draining: the agent takes jobs")
				return nil
			}
			d := drainer{client: client, out: cmd.OutOrStdout(), pollInterval: drainPollInterval, goneAfter: goneAfter}
			return d.drain(cmd.Context(), wait)
		},
	}
	bindSocketFlags(cmd)
	cmd.Flags().BoolVar(&undo, "undo", false, "take jobs again")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the agent has exited")
	return cmd
}

// drainer drains the agent that its client talks to.
type drainer struct {
	client                  *control.Client
	out                     io.Writer
	pollInterval, goneAfter time.Duration
}

func (d *drainer) drain(ctx context.Context, wait bool) error {
	before, err := d.client.Status(ctx)
	if err != nil {
		return err
	}
	// Opened before the agent is asked to exit, so that a later process with the same pid is
	// not mistaken for it.
	process, err := os.FindProcess(before.PID)
	if err != nil || before.PID <= 0 {
		process = nil
	}
	if err := d.client.Drain(ctx); err != nil {
		return err
	}
	state := "draining"
	if before.Draining {
		state = "already draining"
	}
	fmt.Fprintf(d.out, "%s: %s\n", state, remainingText(&before))
	if !wait {
		return nil
	}
	if err := d.wait(ctx, &before, process); err != nil {
		return fmt.Errorf("waiting for the agent to exit: %w", err)
	}
	fmt.Fprintln(d.out, "the agent has exited")
	return nil
}

// remainingText describes what a draining agent does before it exits.
func remainingText(s *messages.Status) string {
	var parts []string
	if n := len(s.Jobs); n > 0 {
		jobs := make([]string, n)
		for i, j := range s.Jobs {
			jobs[i] = fmt.Sprintf("%s at %s %%", plain(j.Key.String()), positive(j.Progress.Percent, 0))
		}
		parts = append(parts, fmt.Sprintf("waiting for %s (%s)", plural(n, "running job"), strings.Join(jobs, ", ")))
	}
	if n := s.Journal.Unsent; n > 0 {
		parts = append(parts, fmt.Sprintf("%s to deliver (kept for the next start if that fails)", plural(n, "result")))
	}
	if len(parts) == 0 {
		return "nothing left to do"
	}
	return strings.Join(parts, ", ")
}

// remaining is the number of jobs and results that a drain waits for.
type remaining struct{ jobs, results int }

func remainingOf(s *messages.Status) remaining { return remaining{len(s.Jobs), s.Journal.Unsent} }

// wait returns when the agent whose status was before has exited. process is nil if it is
// not visible from here.
func (d *drainer) wait(ctx context.Context, before *messages.Status, process *os.Process) error {
	if process != nil {
		defer func() { _ = process.Release() }()
	}
	tick := time.NewTicker(d.pollInterval)
	defer tick.Stop()
	printed, lastAnswer := remainingOf(before), time.Now()
	for {
		now, err := d.client.Status(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && isOtherAgent(before, &now):
			return nil
		case err == nil:
			lastAnswer = time.Now()
			if left := remainingOf(&now); left != printed {
				printed = left
				fmt.Fprintln(d.out, remainingText(&now))
			}
		case errors.Is(err, control.ErrNotRunning) && (hasExited(process) || time.Since(lastAnswer) >= d.goneAfter):
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// isOtherAgent reports whether the answer now is from another process than the one before:
// a service manager may already have restarted the agent.
func isOtherAgent(before, now *messages.Status) bool {
	return now.PID != before.PID || !now.StartedAt.Equal(before.StartedAt)
}

func hasExited(process *os.Process) bool {
	return process != nil && errors.Is(process.Signal(syscall.Signal(0)), os.ErrProcessDone)
}
