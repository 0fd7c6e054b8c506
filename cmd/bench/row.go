package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// row compares one measured energy with the true one.
type row struct {
	Section  string  `json:"section"`
	Scenario string  `json:"scenario"`
	True     float64 `json:"true_joules"`
	Measured number  `json:"measured_joules"`
	Error    number  `json:"error_joules"`
	Percent  number  `json:"error_percent"`
	// Reported is the error bound that the meter reported with the figure; nil where it
	// does not apply, as for a sum over jobs.
	Reported *float64 `json:"reported_bound_joules,omitempty"`
	// ReportedUnchecked: Reported is shown but not checked.
	ReportedUnchecked bool `json:"reported_bound_not_checked,omitempty"`
	// Live marks a row of a real run. There Edge is power × the lateness of the fake counters
	// at the window's edges, and Reported is allowed in addition.
	Live bool `json:"live,omitempty"`
	// Edge is the error in J allowed for the window's edges: peak power × 2 × (counter update +
	// read jitter).
	Edge       float64  `json:"edge_bound_joules"`
	Relative   float64  `json:"relative_bound"` // fraction of the true energy allowed in addition
	Windows    int      `json:"windows"`        // windows measured; the row is the worst of them
	Violations []string `json:"violations"`     // empty if the row is within its bounds
	Notes      []string `json:"notes"`
}

// check computes the error and records violated bounds.
func (r *row) check() {
	const rounding = 1e-5 // J
	off := math.Abs(float64(r.Measured) - r.True)
	r.Error = r.Measured - number(r.True)
	r.Percent = 100 * r.Error / number(r.True)
	if off > r.allowed()+rounding {
		r.Violations = append(r.Violations, "off by more than "+r.rule())
	} else if math.IsNaN(off) {
		r.Violations = append(r.Violations, "no figure")
	}
	if r.checksReported() && off > *r.Reported+rounding {
		r.Violations = append(r.Violations, "off by more than the reported bound")
	}
}

// allowed returns the largest allowed error, in J.
func (r *row) allowed() float64 {
	bound := r.Relative*math.Abs(r.True) + r.Edge
	if r.Live && r.Reported != nil {
		bound += *r.Reported
	}
	return bound
}

// rule describes allowed in words.
func (r *row) rule() string {
	rule := fmt.Sprintf("%g %% + the edge bound", 100*r.Relative)
	if r.Live {
		rule += " + the reported bound"
	}
	return rule
}

// checksReported reports whether the error must be within the reported bound.
func (r *row) checksReported() bool { return r.Reported != nil && !r.ReportedUnchecked && !r.Live }

// boundUse returns the error as a fraction of the tightest bound; above 1 is a violation.
func (r *row) boundUse() float64 {
	bound := r.allowed()
	if r.checksReported() {
		bound = min(bound, *r.Reported)
	}
	return math.Abs(float64(r.Error)) / bound
}

// number is a figure that may be unknown: NaN in memory, null in JSON.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// worse returns the row with violations, or else the one that is closer to its bound. a may
// be nil.
func worse(a, b *row) *row {
	switch {
	case a == nil, len(b.Violations) > 0 && len(a.Violations) == 0:
		return b
	case len(a.Violations) > 0 && len(b.Violations) == 0:
		return a
	case b.boundUse() > a.boundUse():
		return b
	}
	return a
}

// figure compares one measured figure with its limit.
type figure struct {
	Section    string   `json:"section"`
	What       string   `json:"what"`
	Value      float64  `json:"value"`
	Unit       string   `json:"unit"`
	Limit      float64  `json:"limit"` // Value must be below it; 0: no limit
	Violations []string `json:"violations"`
	Notes      []string `json:"notes"`
}

func (f *figure) check() {
	if f.Limit > 0 && f.Value >= f.Limit {
		f.Violations = append(f.Violations, fmt.Sprintf("not below %g %s", f.Limit, f.Unit))
	}
}

// report is the output of a run.
type report struct {
	Rows    []row    `json:"accuracy"`
	Figures []figure `json:"cost"`
	Skipped []string `json:"skipped"`
}

// outside counts the lines with violations.
func (r *report) outside() int {
	n := 0
	for _, row := range r.Rows {
		n += min(1, len(row.Violations))
	}
	for _, f := range r.Figures {
		n += min(1, len(f.Violations))
	}
	return n
}

// lineWidth is the longest line, in columns.
const lineWidth = 100

const rowFormat = "%-29s %10s %10s %9s %8s %9s %8s  %s\n"

func printHeader(w io.Writer) {
	fmt.Fprintf(w, rowFormat, "scenario", "true J", "measured J", "error J", "error %", "reported", "edge J", "verdict")
}

func (r *row) print(w io.Writer) {
	reported := "–"
	if r.Reported != nil {
		reported = fmt.Sprintf("± %.3f", *r.Reported)
	}
	fmt.Fprintf(w, rowFormat, r.Scenario, joules(r.True), joules(float64(r.Measured)), fmt.Sprintf("%+.3f", r.Error),
		fmt.Sprintf("%+.3f", r.Percent), reported, fmt.Sprintf("%.3f", r.Edge), verdict(r.Violations))
	printNotes(w, r.Violations, r.Notes)
}

const figureFormat = "%-64s %8s %-9s %-9s  %s\n"

func (f *figure) print(w io.Writer) {
	limit := ""
	if f.Limit > 0 {
		limit = fmt.Sprintf("< %g", f.Limit)
	}
	fmt.Fprintf(w, figureFormat, f.What, fmt.Sprintf("%.3f", f.Value), f.Unit, limit, verdict(f.Violations))
	printNotes(w, f.Violations, f.Notes)
}

func verdict(violations []string) string {
	if len(violations) > 0 {
		return "OUTSIDE"
	}
	return "within"
}

// joules formats an energy with as many digits as fit the column.
func joules(v float64) string {
	switch {
	case math.IsNaN(v):
		return "unknown"
	case math.Abs(v) < 1e5:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func printNotes(w io.Writer, violations, notes []string) {
	for _, v := range violations {
		wrap(w, "   ! ", v)
	}
	for _, n := range notes {
		wrap(w, "   · ", n)
	}
}

// wrap writes a text in lines of at most lineWidth; later lines are indented.
func wrap(w io.Writer, lead, text string) {
	line := lead
	for word := range strings.FieldsSeq(text) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > lineWidth {
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
