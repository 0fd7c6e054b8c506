package report

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
)

// unknown is what stands for a figure that is not known, never 0.
const unknown = "unknown"

// Bounds of what comes from a job and is shown, in characters and lines.
const (
	mostText      = 400
	mostName      = 60 // of a zone
	mostLogLines  = 60
	mostLogLine   = 400
	mostArguments = 200
	mostNotes     = 50
)

// plain is one line of text from elsewhere, without what steers a terminal or turns
// the direction of writing, of at most mostText characters.
func plain(text string) string { return cut(text, mostText) }

// nameOf is what a zone is called.
func nameOf(name, id string) string { return or(cut(or(name, id), mostName), unknown) }

func cut(text string, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if n++; n > most {
			b.WriteString("…")
			break
		}
		switch {
		case unicode.IsSpace(r):
			r = ' '
		case !unicode.IsPrint(r):
			r = '?'
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// several is a number of things: no gaps, 1 gap, 2 gaps.
func several(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Spaces at which no line breaks: thin between groups of digits, hard before a unit.
const (
	thin = "\u202f"
	hard = "\u00a0"
)

// fixed is a number with so many decimals, its digits in groups from five on.
func fixed(v float64, decimals int) string {
	if math.Abs(v) >= 1e15 {
		return fmt.Sprintf("%.6g", v)
	}
	return grouped(fmt.Sprintf("%.*f", decimals, v))
}

// grouped puts spaces into the whole part of a decimal number.
func grouped(number string) string {
	sign, digits := "", number
	if strings.HasPrefix(digits, "-") {
		sign, digits = "−", digits[1:]
	}
	whole, fraction, found := strings.Cut(digits, ".")
	if found {
		fraction = "." + fraction
	}
	if len(whole) < 5 || strings.Trim(whole, "0123456789") != "" {
		return sign + whole + fraction
	}
	var groups []string
	for len(whole) > 3 {
		groups = append([]string{whole[len(whole)-3:]}, groups...)
		whole = whole[:len(whole)-3]
	}
	return sign + strings.Join(append([]string{whole}, groups...), thin) + fraction
}

// measure is a figure of any size with at least three digits that count.
func measure(v float64) string {
	switch abs := math.Abs(v); {
	case abs >= 1000:
		return fixed(v, 0)
	case abs >= 1:
		return fixed(v, 3)
	}
	return strings.Replace(fmt.Sprintf("%.3g", v), "-", "−", 1)
}

// decimalsOf is how many decimals a figure deserves whose error is bound: as many as
// leave the bound two digits that count.
func decimalsOf(bound float64) int {
	if !(bound > 0) {
		return 3
	}
	return int(max(0, min(3, 1-math.Floor(math.Log10(bound)))))
}

// amountOf is an amount with so many decimals. What is more than 0 is not shown as 0.
func amountOf(v float64, decimals int) string {
	if least := math.Pow(10, -float64(decimals)); v > 0 && v < least/2 {
		return "<" + hard + fixed(least, decimals)
	}
	return fixed(v, decimals)
}

// exact is a figure to its last digit, for programs that read the page.
func exact[F ~float64](v F) string { return fmt.Sprint(float64(v)) }

// part is a part of a whole in percent; unknown where there is no whole.
func part(of, whole float64) string {
	if !(whole > 0) {
		return unknown
	}
	return fixed(100*of/whole, 1) + hard + "%"
}

// moment is a time that does not depend on where the page is made.
type moment struct{ At, Text string }

func momentOf(t time.Time) *moment {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &moment{At: t.Format(time.RFC3339Nano), Text: clock(t)}
}

// precise is a time to the millisecond.
func precise(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") }

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// length is a length of time for people.
func length(d time.Duration) string {
	switch {
	case d < 0:
		return "−" + length(-max(d, -math.MaxInt64))
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

// amount is a size in bytes, in the largest fitting decimal unit and to the byte.
func amount(bytes float64) string {
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

// upper is a sentence's beginning.
func upper(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
