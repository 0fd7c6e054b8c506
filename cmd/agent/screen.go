package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Control sequences of terminals.
const (
	clearScreen = "\x1b[H\x1b[2J"
	cursorHome  = "\x1b[H"
	clearToEnd  = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// screen shows a text that changes. On a terminal each version replaces the one before;
// elsewhere it follows it.
type screen struct {
	out   io.Writer
	size  func() (width, height int) // nil: not a terminal
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

// crop cuts a text to the lines and columns that a terminal shows without wrapping or
// scrolling. The last row stays free for the cursor.
func crop(text string, width, height int) []string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if rows := max(1, height-1); len(lines) > rows {
		hidden := len(lines) - rows + 1
		lines = append(lines[:rows-1:rows-1], fmt.Sprintf("… %d more lines", hidden))
	}
	for i, line := range lines {
		if runes := []rune(line); len(runes) > width {
			lines[i] = string(runes[:max(0, width-1)]) + "…"
		}
	}
	return lines
}
