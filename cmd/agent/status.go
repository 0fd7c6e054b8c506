package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/messages"
)

// watchEvery is how often a watched status is asked for.
const watchEvery = time.Second

func newStatus() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the running agent fares",
		Long: `Ask the agent that runs on this machine how it fares: node, session, heartbeat,
running jobs, samplers, journal, and the tree of actors. What is not known is "-".
Exit status 1 when no agent runs.`,
		Example: "  agent status\n  agent status --watch\n  agent status --json | jq .jobs",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := dialAgent(cmd)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if watch {
				return watchStatus(cmd.Context(), client, watchEvery, out, asJSON)
			}
			status, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			return printStatus(out, &status, asJSON)
		},
	}
	bindSocketFlags(cmd)
	cmd.Flags().BoolVar(&watch, "watch", false, "keep it live until interrupted (with --json: one line a second)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

// bindSocketFlags defines how an operator's command finds the agent.
func bindSocketFlags(cmd *cobra.Command) {
	cmd.Flags().String("config", "", "the agent's YAML `file` (default "+configs.DefaultFile+")")
	cmd.Flags().String("socket", "", "`path` of the agent's control socket (default from its configuration)")
}

// dialAgent makes a client for the agent that the flags mean. A socket that is named
// needs no configuration.
func dialAgent(cmd *cobra.Command) (*control.Client, error) {
	if socket, err := cmd.Flags().GetString("socket"); err == nil && socket != "" {
		path, err := filepath.Abs(socket)
		if err != nil {
			return nil, fmt.Errorf("resolving --socket: %w", err)
		}
		return control.NewClient(path), nil
	}
	loaded, err := load(cmd)
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
	raw, err := json.MarshalIndent(status, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the status: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s\n", raw)
	return err
}

// watchStatus shows the status every so often until interrupted. The agent has to run at
// first; after that its absence is shown, for it may be starting again.
func watchStatus(ctx context.Context, client *control.Client, every time.Duration, out io.Writer, asJSON bool) error {
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	show := newScreen(out).show
	if asJSON {
		show = func(text string) error { _, err := io.WriteString(out, text); return err }
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for first := true; ; first = false {
		status, err := client.Status(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		}
		text, err := watchedText(&status, err, asJSON)
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

func watchedText(status *messages.Status, failed error, asJSON bool) (string, error) {
	switch {
	case !asJSON && failed != nil:
		return failed.Error() + "\n", nil
	case !asJSON:
		return statusText(status), nil
	}
	var doc any = status
	if failed != nil {
		doc = map[string]string{"error": failed.Error()}
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return "", fmt.Errorf("encoding the status: %w", err)
	}
	return string(raw) + "\n", nil
}

// What a terminal understands.
const (
	clearScreen = "\x1b[H\x1b[2J"
	cursorHome  = "\x1b[H"
	clearToEnd  = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// screen shows one text in the place of the last on a terminal, and one after the
// other elsewhere.
type screen struct {
	out   io.Writer
	size  func() (width, height int) // nil: no terminal
	drawn bool
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	if f, ok := out.(*os.File); ok && isTerminal(out) {
		s.size = func() (int, int) {
			width, height, err := term.GetSize(int(f.Fd()))
			if err != nil || width <= 0 || height <= 0 {
				return 80, 24
			}
			return width, height
		}
	}
	return s
}

func (s *screen) show(text string) error {
	var b strings.Builder
	switch {
	case s.size == nil && s.drawn:
		b.WriteString("\n" + text)
	case s.size == nil:
		b.WriteString(text)
	default:
		start := cursorHome
		if !s.drawn {
			start = clearScreen
		}
		b.WriteString(start)
		width, height := s.size()
		for _, line := range crop(text, width, height) {
			b.WriteString(line + clearToEnd + "\r\n")
		}
		b.WriteString(clearBelow)
	}
	s.drawn = true
	_, err := io.WriteString(s.out, b.String())
	return err
}

// crop cuts a text to what a terminal shows without wrapping or scrolling. The last
// row stays free for the cursor.
func crop(text string, width, height int) []string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if most := max(1, height-1); len(lines) > most {
		hidden := len(lines) - most + 1
		lines = append(lines[:most-1:most-1], fmt.Sprintf("… %d more lines", hidden))
	}
	for i, line := range lines {
		if runes := []rune(line); len(runes) > width {
			lines[i] = string(runes[:max(0, width-1)]) + "…"
		}
	}
	return lines
}
