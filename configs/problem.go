package configs

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// OriginKind is the kind of source that a value comes from.
type OriginKind int

// The sources in ascending order of precedence.
const (
	FromDefault OriginKind = iota
	FromFile
	FromLegacyEnvironment // a variable of an older worker
	FromEnvironment
	FromFlag
)

// Origin is the source of a value.
type Origin struct {
	Kind OriginKind
	Name string // flag without dashes, environment variable, or path of the file
	Line int    // in the file, from 1; 0 if not applicable
}

// String returns "flag --master", "environment variable MASTER_URL",
// "file /etc/ffmpeg-agent/agent.yaml:12" or "default".
func (o Origin) String() string {
	switch {
	case o.Kind == FromFlag:
		return "flag --" + o.Name
	case o.Kind == FromEnvironment || o.Kind == FromLegacyEnvironment:
		return "environment variable " + o.Name
	case o.Kind == FromFile && o.Line > 0:
		return fmt.Sprintf("file %s:%d", o.Name, o.Line)
	case o.Kind == FromFile:
		return "file " + o.Name
	}
	return "default"
}

// A Problem is one error in the configuration.
type Problem struct {
	Key     string // "master.url"; "" if the problem concerns the whole file
	Value   string // quoted and shortened, secrets hidden; "" if there is no value to show
	Origin  Origin
	Reason  string // what is wrong with the value
	Allowed string // which values are allowed
}

// String returns the problem as one line:
//
//	poll_interval "10" (flag --poll-interval): a number without a unit; allowed: a duration from …
func (p Problem) String() string {
	var b strings.Builder
	for _, part := range []string{p.Key, p.Value} {
		if part != "" {
			b.WriteString(part + " ")
		}
	}
	fmt.Fprintf(&b, "(%s): %s", p.Origin, p.Reason)
	if p.Allowed != "" {
		b.WriteString("; allowed: " + p.Allowed)
	}
	return b.String()
}

// Error reports an invalid configuration, with all problems found.
type Error struct {
	Problems []Problem
	// Config has the valid values, and defaults for the others, so that a running agent can
	// still be found.
	Config Config
}

var _ error = (*Error)(nil)

// Error returns a single problem as one line, several problems as one line each.
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

// shown returns a value in a form that is safe to show in a Problem.
func (k key) shown(raw any) string {
	text, _ := raw.(string)
	if list, ok := raw.([]string); ok {
		text = strings.Join(list, ",")
	}
	switch {
	case k.secret() && text != "":
		return "(hidden)"
	case k.rule.url && strings.ContainsAny(text, "@?#"):
		return "(hidden: may contain a password)"
	}
	return fmt.Sprintf("%q", shorten(text))
}

// maxShown is the maximum length of a value in an error, in bytes.
const maxShown = 80

// shorten makes text fit on one line of an error. Text of several lines is omitted:
// it usually results from a missing quote, so it may include a secret from a later line.
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

// knownKeys is the Allowed text of a problem with an unknown key.
const knownKeys = "the keys listed by \"agent config\""

// isPlainWord reports whether the name of an unknown key is safe to show in an error.
func isPlainWord(name string) bool {
	special := func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_-.", r)
	}
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, special)
}

// nearest returns the path most similar to name, or "" if no path is similar. The
// last element of a path counts almost as much as the whole: max_concurrent matches
// jobs.max_concurrent.
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

// distance returns the Levenshtein distance between two strings, in bytes.
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
