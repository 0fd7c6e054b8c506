package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"

	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/messages"
)

// watchOnTerminal shows the status of an agent on a terminal until the user quits. The agent
// may restart meanwhile.
func watchOnTerminal(ctx context.Context, client *control.Client, first messages.Status, in io.Reader, out io.Writer) error {
	w := &watch{client: client, ctx: ctx, interval: watchInterval, folded: map[string]bool{}}
	w.take(statusMsg{status: first})
	_, err := tea.NewProgram(w, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithEnvironment(os.Environ())).Run()
	if err != nil && ctx.Err() == nil && !errors.Is(err, tea.ErrInterrupted) {
		return fmt.Errorf("watching the status: %w", err)
	}
	return nil
}

// watch is the terminal view of an agent. The sections that can be folded are named by the
// keys that do it.
type watch struct {
	client   *control.Client
	ctx      context.Context
	interval time.Duration

	status        messages.Status // as last answered
	failure       error           // why the agent does not answer; nil: it does
	power         []float64       // watts, one for each answer, oldest first
	width, height int             // of the terminal
	top           int             // first line shown
	folded        map[string]bool // by key; missing: by the height of the terminal
}

// powerPoints bounds how much of the power is remembered: two minutes.
const powerPoints = 120

// statusMsg is an answer of the agent.
type statusMsg struct {
	status messages.Status
	err    error
}

type tickMsg struct{}

// Init implements tea.Model.
func (w *watch) Init() tea.Cmd { return w.wait() }

func (w *watch) wait() tea.Cmd {
	return tea.Tick(w.interval, func(time.Time) tea.Msg { return tickMsg{} })
}

// ask gets the status.
func (w *watch) ask() tea.Msg {
	status, err := w.client.Status(w.ctx)
	return statusMsg{status, err}
}

// Update implements tea.Model.
func (w *watch) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		w.width, w.height = msg.Width, msg.Height
	case tickMsg:
		return w, w.ask
	case statusMsg:
		w.take(msg)
		return w, w.wait()
	case tea.KeyPressMsg:
		return w, w.press(msg.String())
	}
	return w, nil
}

func (w *watch) take(msg statusMsg) {
	if w.failure = msg.err; msg.err != nil {
		return
	}
	w.status = msg.status
	if msg.status.Power != nil {
		w.power = append(w.power, float64(*msg.status.Power))
		w.power = w.power[max(0, len(w.power)-powerPoints):]
	}
}

// press handles a key.
func (w *watch) press(key string) tea.Cmd {
	page := max(1, w.rows()-1)
	switch key {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "j", "a", "s":
		w.folded[key] = !w.isFolded(key)
	case "up", "k":
		w.top--
	case "down", "enter":
		w.top++
	case "pgup", "b":
		w.top -= page
	case "pgdown", "space", " ":
		w.top += page
	case "home", "g":
		w.top = 0
	case "end", "G":
		w.top = len(w.lines())
	}
	return nil
}

// isFolded reports whether a section shows its summary only. On a low terminal the actors do,
// unless the user unfolds them.
func (w *watch) isFolded(key string) bool {
	if folded, chosen := w.folded[key]; chosen {
		return folded
	}
	const low = 40 // rows
	return key == "a" && w.height < low
}

// rows is how many lines the view shows above its footer.
func (w *watch) rows() int { return max(1, w.height-1) }

// View implements tea.Model.
func (w *watch) View() tea.View {
	v := tea.NewView(w.screen())
	v.AltScreen = true
	v.WindowTitle = "agent status"
	return v
}
