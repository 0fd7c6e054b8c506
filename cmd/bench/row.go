package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// row is one comparison of energy: what was true, what the meter said.
type row struct {
	Section  string  `json:"section"`
	Scenario string  `json:"scenario"`
	True     float64 `json:"true_joules"`
	Ours     number  `json:"ours_joules"`
	Error    number  `json:"error_joules"`
	Percent  number  `json:"error_percent"`
	// Promised is the error bound that the meter gave with its figure; nil where that
	// does not hold, as of a sum over jobs.
	Promised *float64 `json:"promised_bound_joules,omitempty"`
	// Unjudged: Promised is shown only.
	Unjudged bool `json:"promise_not_judged,omitempty"`
	// Live: of a real run. Edge is then power × how late the fake's own counters were at
	// the window's edges, and the meter's Promised is for its readings' distance.
	Live bool `json:"live,omitempty"`
	// Edge is power × 2 × (update + read jitter), in J, with the highest power of the
	// curve; and Relative the part of the true energy allowed beside it.
	Edge     float64  `json:"edge_bound_joules"`
	Relative float64  `json:"relative_bound"`
	Windows  int      `json:"windows"` // measured; the row is the worst of them
	Faults   []string `json:"faults"`  // what is wrong; empty: within
	Notes    []string `json:"notes"`
}

// judge compares and notes where a bound was passed.
func (r *row) judge() {
	const rounding = 1e-5 // J
	off := math.Abs(float64(r.Ours) - r.True)
	r.Error = r.Ours - number(r.True)
	r.Percent = 100 * r.Error / number(r.True)
	if off > r.allowed()+rounding {
		r.Faults = append(r.Faults, "off by more than "+r.rule())
	} else if math.IsNaN(off) {
		r.Faults = append(r.Faults, "no figure")
	}
	if r.promises() && off > *r.Promised+rounding {
		r.Faults = append(r.Faults, "off by more than the meter promised")
	}
}

// allowed is how far a figure may be off, in J.
func (r *row) allowed() float64 {
	bound := r.Relative*math.Abs(r.True) + r.Edge
	if r.Live && r.Promised != nil {
		bound += *r.Promised
	}
	return bound
}

// rule is allowed in words.
func (r *row) rule() string {
	rule := fmt.Sprintf("%g %% + the edge bound", 100*r.Relative)
	if r.Live {
		rule += " + what the meter promised"
	}
	return rule
}

func (r *row) promises() bool { return r.Promised != nil && !r.Unjudged && !r.Live }

// tightness is how much of its nearest bound the error takes; above 1 is outside.
func (r *row) tightness() float64 {
	bound := r.allowed()
	if r.promises() {
		bound = min(bound, *r.Promised)
	}
	return math.Abs(float64(r.Error)) / bound
}

// number is one that may be unknown: NaN, null in JSON.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// worse of two rows of one scenario: the one with faults, or nearer to its bound.
func worse(a, b *row) *row {
	switch {
	case a == nil, len(b.Faults) > 0 && len(a.Faults) == 0:
		return b
	case len(a.Faults) > 0 && len(b.Faults) == 0:
		return a
	case b.tightness() > a.tightness():
		return b
	}
	return a
}

// figure is one measured figure against its goal.
type figure struct {
	Section string   `json:"section"`
	What    string   `json:"what"`
	Value   float64  `json:"value"`
	Unit    string   `json:"unit"`
	Goal    float64  `json:"goal"` // Value is to stay below; 0: there is none
	Faults  []string `json:"faults"`
	Notes   []string `json:"notes"`
}

func (f *figure) judge() {
	if f.Goal > 0 && f.Value >= f.Goal {
		f.Faults = append(f.Faults, fmt.Sprintf("not below %g %s", f.Goal, f.Unit))
	}
}

// report is all that was found.
type report struct {
	Rows    []row    `json:"accuracy"`
	Figures []figure `json:"cost"`
	LeftOut []string `json:"left_out"`
}

func (r *report) outside() int {
	n := 0
	for _, row := range r.Rows {
		n += min(1, len(row.Faults))
	}
	for _, f := range r.Figures {
		n += min(1, len(f.Faults))
	}
	return n
}

// wide is how many columns a line may have.
const wide = 100

const rowFormat = "%-29s %10s %10s %9s %8s %9s %8s  %s\n"

func printHead(w io.Writer) {
	fmt.Fprintf(w, rowFormat, "scenario", "true J", "ours J", "error J", "error %", "promised", "edge J", "verdict")
}

func (r *row) print(w io.Writer) {
	promised := "–"
	if r.Promised != nil {
		promised = fmt.Sprintf("± %.3f", *r.Promised)
	}
	fmt.Fprintf(w, rowFormat, r.Scenario, joules(r.True), joules(float64(r.Ours)), fmt.Sprintf("%+.3f", r.Error),
		fmt.Sprintf("%+.3f", r.Percent), promised, fmt.Sprintf("%.3f", r.Edge), verdict(r.Faults))
	printNotes(w, r.Faults, r.Notes)
}

const figureFormat = "%-64s %8s %-9s %-9s  %s\n"

func (f *figure) print(w io.Writer) {
	goal := ""
	if f.Goal > 0 {
		goal = fmt.Sprintf("< %g", f.Goal)
	}
	fmt.Fprintf(w, figureFormat, f.What, fmt.Sprintf("%.3f", f.Value), f.Unit, goal, verdict(f.Faults))
	printNotes(w, f.Faults, f.Notes)
}

func verdict(faults []string) string {
	if len(faults) > 0 {
		return "OUTSIDE"
	}
	return "within"
}

// joules with as many digits as fit.
func joules(v float64) string {
	switch {
	case math.IsNaN(v):
		return "unknown"
	case math.Abs(v) < 1e5:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func printNotes(w io.Writer, faults, notes []string) {
	for _, f := range faults {
		wrap(w, "   ! ", f)
	}
	for _, n := range notes {
		wrap(w, "   · ", n)
	}
}

// wrap writes a text in lines that fit, the later ones below the first one's words.
func wrap(w io.Writer, lead, text string) {
	line := lead
	for word := range strings.FieldsSeq(text) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > wide {
			fmt.Fprintln(w, line)
			line = "     "
		}
		if !strings.HasSuffix(line, " ") {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(w, line)
}
