package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages"
)

// watchInterval is the interval at which --watch updates the status.
const watchInterval = time.Second

func newStatus() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of the running agent",
		Long: `Show the state of the agent on this machine: node, session, heartbeat, running jobs,
samplers, journal, and the actor tree. Unknown values are shown as "-". --watch keeps the
view live: keys scroll it and fold its sections. Exit status 1 if no agent is running.`,
		Example: "  agent status\n  agent status --watch\n  agent status --json | jq .jobs",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := dialAgent(cmd)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if watch && (asJSON || !isTerminal(out)) {
				return watchStatus(cmd.Context(), client, watchInterval, out, asJSON)
			}
			status, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			if watch {
				return watchOnTerminal(cmd.Context(), client, status, cmd.InOrStdin(), out)
			}
			return printStatus(out, &status, asJSON)
		},
	}
	bindSocketFlags(cmd)
	cmd.Flags().BoolVar(&watch, "watch", false, "update every second until interrupted; with --json, one line each")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// bindSocketFlags defines the flags of commands that talk to the running agent.
func bindSocketFlags(cmd *cobra.Command) {
	bindConfigFlag(cmd)
	cmd.Flags().String("socket", "", "`path` of the agent's control socket (default from its configuration)")
}

// dialAgent returns a client for the agent that the flags select. With --socket no
// configuration is read. An agent may run on although its file is no longer valid.
func dialAgent(cmd *cobra.Command) (*control.Client, error) {
	if socket, err := cmd.Flags().GetString("socket"); err == nil && socket != "" {
		path, err := filepath.Abs(socket)
		if err != nil {
			return nil, fmt.Errorf("resolving --socket: %w", err)
		}
		return control.NewClient(path), nil
	}
	loaded, err := load(cmd)
	var invalid *configs.Error
	if errors.As(err, &invalid) {
		socket := invalid.Config.Control.Socket
		if _, absent := os.Stat(socket); absent != nil {
			return nil, err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "agent: warning: %v\nagent: warning: asking the agent on %s; --socket selects another\n", err, socket)
		return control.NewClient(socket), nil
	}
	if err != nil {
		return nil, err
	}
	return control.NewClient(loaded.Config.Control.Socket), nil
}

func printStatus(out io.Writer, status *messages.Status, asJSON bool) error {
	if !asJSON {
		_, err := io.WriteString(out, statusText(status))
		return err
	}
	return printJSON(out, "status", status)
}

// watchStatus writes the status at an interval until interrupted. It fails if no agent is
// running at first. Later failures are shown instead of the status, because the agent may be
// restarting.
func watchStatus(ctx context.Context, client *control.Client, interval time.Duration, out io.Writer, asJSON bool) error {
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	separator := ""
	show := func(text string) error {
		_, err := io.WriteString(out, separator+text)
		if !asJSON {
			separator = "\n"
		}
		return err
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for first := true; ; first = false {
		status, err := client.Status(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		}
		text, err := watchText(&status, err, asJSON)
		if err != nil {
			return err
		}
		if err := show(text); err != nil {
			return fmt.Errorf("writing the status: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watchText is one update: the status, or why it is not available.
func watchText(status *messages.Status, failure error, asJSON bool) (string, error) {
	switch {
	case !asJSON && failure != nil:
		return failure.Error() + "\n", nil
	case !asJSON:
		return statusText(status), nil
	}
	var doc any = status
	if failure != nil {
		doc = map[string]string{"error": failure.Error()}
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return "", fmt.Errorf("encoding the status: %w", err)
	}
	return string(safetext.JSON(raw)) + "\n", nil
}
