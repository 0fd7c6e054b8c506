package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"ffmpeg-agent/internal/safetext"
)

// unknown is shown in place of an unknown value.
const unknown = "-"

// plain returns untrusted text as one line without control characters, which a terminal
// would obey.
func plain(text string) string { return safetext.Line(text) }

// printJSON prints a value, called what in errors, as indented JSON.
func printJSON(out io.Writer, what string, value any) error {
	raw, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the %s: %w", what, err)
	}
	_, err = fmt.Fprintf(out, "%s\n", safetext.JSON(raw))
	return err
}

// nonZero formats a number that is unknown while it is 0.
func nonZero(n int) string {
	if n == 0 {
		return unknown
	}
	return fmt.Sprint(n)
}

// positive formats a number that is unknown while it is 0.
func positive(f float64, digits int) string {
	if !(f > 0) {
		return unknown
	}
	return fmt.Sprintf("%.*f", digits, f)
}

// figure formats a number that is unknown if nil.
func figure[F ~float64](f *F, digits int) string {
	if f == nil {
		return unknown
	}
	return fmt.Sprintf("%.*f", digits, float64(*f))
}

// size formats an amount of bytes in the largest fitting binary unit.
func size(bytes *uint64) string {
	if bytes == nil {
		return unknown
	}
	value, unit := float64(*bytes), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for value >= 1024 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", *bytes)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

func sizeOf(bytes int64) string {
	n := uint64(max(0, bytes))
	return size(&n)
}

// plural returns "1 gap" or "2 gaps".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// since formats the age of an event.
func since(now, then time.Time) string {
	if then.IsZero() || now.IsZero() {
		return unknown
	}
	return span(now.Sub(then))
}

// span formats a duration with about two significant parts: 1.4s, 42s, 3m5s, 2h7m, 5d3h.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(0, d); {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 2*day:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", d/day, int(d.Hours())%24)
}

// clock formats a time in UTC.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

const barWidth = 28

// bar draws the progress of a job.
func bar(percent float64) string { return barOf(percent, barWidth) }

// barOf draws a progress bar of width columns between its brackets.
func barOf(percent float64, width int) string {
	full := min(width, max(0, int(percent/100*float64(width))))
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", width-full) + "]"
}
