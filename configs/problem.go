package configs

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// OriginKind is the sort of place that a value comes from.
type OriginKind int

// The places, the weakest first.
const (
	FromDefault OriginKind = iota
	FromFile
	FromEnvironment
	FromFlag
)

// Origin is where a value comes from.
type Origin struct {
	Kind OriginKind
	Name string // of the flag without dashes, the variable, or the file
	Line int    // in the file, from 1; 0 when no line is meant
}

// String returns "flag --master", "environment variable MASTER_URL",
// "file /etc/ffmpeg-agent/agent.yaml:12" or "default".
func (o Origin) String() string {
	switch {
	case o.Kind == FromFlag:
		return "flag --" + o.Name
	case o.Kind == FromEnvironment:
		return "environment variable " + o.Name
	case o.Kind == FromFile && o.Line > 0:
		return fmt.Sprintf("file %s:%d", o.Name, o.Line)
	case o.Kind == FromFile:
		return "file " + o.Name
	}
	return "default"
}

// A Problem is one thing that is wrong with the configuration.
type Problem struct {
	Key     string // "master.url"; "" when the file as a whole is meant
	Value   string // quoted and shortened; secrets hidden; "" where there is none to show
	Origin  Origin
	Reason  string // what is wrong
	Allowed string // what would be right
}

// String returns the problem as one line:
//
//	poll_interval "10" (flag --poll-interval): a number without a unit; allowed: a duration from …
func (p Problem) String() string {
	var b strings.Builder
	for _, word := range []string{p.Key, p.Value} {
		if word != "" {
			b.WriteString(word + " ")
		}
	}
	fmt.Fprintf(&b, "(%s): %s", p.Origin, p.Reason)
	if p.Allowed != "" {
		b.WriteString("; allowed: " + p.Allowed)
	}
	return b.String()
}

// Error is a configuration that cannot be used, with everything that is wrong with it.
type Error struct{ Problems []Problem }

var _ error = (*Error)(nil)

// Error returns one line for a single problem, and a line each for several.
func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return "configuration: " + e.Problems[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration: %d problems", len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

// shown returns a value as a Problem may show it.
func (k key) shown(raw any) string {
	text, _ := raw.(string)
	if list, ok := raw.([]string); ok {
		text = strings.Join(list, ",")
	}
	switch {
	case k.secret() && text != "":
		return "(hidden)"
	case k.rule.url && strings.ContainsAny(text, "@?#"):
		return "(hidden, for it may hold a password)"
	}
	return fmt.Sprintf("%q", shorten(text))
}

// maxShown is how much of a value an error shows, in bytes.
const maxShown = 80

// shorten makes text fit for one line of an error. Text of several lines is left
// out altogether: that is a quote nobody closed, and what it swallowed may be secret.
func shorten(text string) string {
	if strings.ContainsAny(text, "\r\n") {
		return "(several lines)"
	}
	if len(text) <= maxShown {
		return text
	}
	cut := maxShown
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// knownKeys is what is allowed where a key is unknown.
const knownKeys = "the keys that agent config lists"

// nameable says whether the name of an unknown key is a plain word, so that an
// error may repeat it.
func nameable(name string) bool {
	odd := func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_-.", r)
	}
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, odd)
}

// nearest returns the path that was probably meant by name, or "" when none is
// at all like it. A last element alone counts as nearly the whole: max_concurrent
// is probably jobs.max_concurrent.
func nearest(name string, paths []string) string {
	fold := strings.NewReplacer("-", "_", ".", "_")
	given := fold.Replace(strings.ToLower(name))
	best, bestDistance := "", len(given)/2+1
	for _, path := range paths {
		last := path[strings.LastIndexByte(path, '.')+1:]
		d := min(distance(given, fold.Replace(path)), distance(given, last)+1)
		if d < bestDistance {
			best, bestDistance = path, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two texts, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
