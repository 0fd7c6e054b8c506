package report

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"ffmpeg-agent/internal/safetext"
)

// unknown is shown in place of a value that is not known.
const unknown = "unknown"

// Limits on the text that a job can put on the page, in characters, lines or elements.
const (
	maxText      = 400
	maxName      = 60 // name of a zone
	maxLogLines  = 60
	maxLogLine   = 400
	maxArguments = 200
	maxNotes     = 50
)

// sanitize returns untrusted text as one line of at most maxText characters, without control
// characters and direction overrides.
func sanitize(text string) string { return sanitizeTo(text, maxText) }

// zoneName returns the name to show for a zone.
func zoneName(name, id string) string { return cmp.Or(sanitizeTo(cmp.Or(name, id), maxName), unknown) }

func sanitizeTo(text string, maxLen int) string {
	return safetext.Shorten(strings.TrimSpace(safetext.Line(text)), maxLen)
}

// plural returns "no gaps", "1 gap" or "2 gaps".
func plural(n int, noun string) string {
	switch n {
	case 0:
		return "no " + noun + "s"
	case 1:
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Non-breaking spaces.
const (
	thinSpace = "\u202f" // between groups of digits
	hardSpace = "\u00a0" // between a number and its unit
)

// fixed formats a number with a fixed number of decimals. Numbers of five and more digits are
// grouped.
func fixed(v float64, decimals int) string {
	if math.Abs(v) >= 1e15 {
		return fmt.Sprintf("%.6g", v)
	}
	return grouped(fmt.Sprintf("%.*f", decimals, v))
}

// grouped inserts spaces into the integer part of a decimal number.
func grouped(number string) string {
	sign, digits := "", number
	if strings.HasPrefix(digits, "-") {
		sign, digits = "−", digits[1:]
	}
	integer, fraction, found := strings.Cut(digits, ".")
	if found {
		fraction = "." + fraction
	}
	if len(integer) < 5 || strings.Trim(integer, "0123456789") != "" {
		return sign + integer + fraction
	}
	var groups []string
	for len(integer) > 3 {
		groups = append([]string{integer[len(integer)-3:]}, groups...)
		integer = integer[:len(integer)-3]
	}
	return sign + strings.Join(append([]string{integer}, groups...), thinSpace) + fraction
}

// significant formats a number of any size with at least three significant digits.
func significant(v float64) string {
	switch abs := math.Abs(v); {
	case abs >= 1000:
		return fixed(v, 0)
	case abs >= 1:
		return fixed(v, 3)
	}
	return strings.Replace(fmt.Sprintf("%.3g", v), "-", "−", 1)
}

// decimalsFor returns the number of decimals for a value with an error bound, at most 3: as
// many as show two significant digits of the bound.
func decimalsFor(bound float64) int {
	if !(bound > 0) {
		return 3
	}
	return int(max(0, min(3, 1-math.Floor(math.Log10(bound)))))
}

// fixedNonZero is like fixed, but does not round a positive number to 0.
func fixedNonZero(v float64, decimals int) string {
	if least := math.Pow(10, -float64(decimals)); v > 0 && v < least/2 {
		return "<" + hardSpace + fixed(least, decimals)
	}
	return fixed(v, decimals)
}

// exact formats a number with full precision, for programs that read the page.
func exact[F ~float64](v F) string { return fmt.Sprint(float64(v)) }

// percentage returns part in percent of whole.
func percentage(part, whole float64) string {
	if !(whole > 0) {
		return unknown
	}
	return fixed(100*part/whole, 1) + hardSpace + "%"
}

// timestamp is a time in machine-readable form and as text, both in UTC.
type timestamp struct{ At, Text string }

func timestampOf(t time.Time) *timestamp {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &timestamp{At: t.Format(time.RFC3339Nano), Text: formatTime(t)}
}

func formatTimeMillis(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") }

func formatTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func formatDuration(d time.Duration) string {
	switch {
	case d < 0:
		return "−" + formatDuration(-max(d, -math.MaxInt64))
	case d < time.Minute:
		return fixed(d.Seconds(), 3) + " s"
	case d.Round(100*time.Millisecond) < time.Hour:
		d = d.Round(100 * time.Millisecond)
		return fmt.Sprintf("%d min %.1f s", d/time.Minute, (d % time.Minute).Seconds())
	case d < 48*time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fixed(math.Floor(d.Hours()/24), 0) + " days"
}

// byteSize formats a size in the largest fitting decimal unit and in bytes.
func byteSize(bytes float64) string {
	value, unit := bytes, 0
	units := []string{"bytes", "kB", "MB", "GB", "TB"}
	for value >= 1000 && unit < len(units)-1 {
		value, unit = value/1000, unit+1
	}
	if unit == 0 {
		return fixed(bytes, 0) + " bytes"
	}
	return fmt.Sprintf("%s %s (%s bytes)", fixed(value, 2), units[unit], fixed(bytes, 0))
}
