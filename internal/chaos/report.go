package chaos

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Tally counts how often a kind of fault was played, and how often its effect was observed.
type Tally struct {
	Kind               string
	Injected, Observed int
	Skipped            int    // not played: they had no target
	Unavailable        int    // of these: this run has no such targets
	Error              string // of one that was not seen
}

// Tallies counts the faults by kind, in the order of Kinds.
func (h *History) Tallies() []Tally {
	var all []Tally
	for _, k := range Kinds() {
		t := Tally{Kind: k.Name}
		for _, f := range h.Faults {
			if f.Kind != k.Name {
				continue
			}
			t.Injected++
			t.Skipped += boolToInt(f.Skipped)
			t.Unavailable += boolToInt(f.Unavailable)
			if f.Effect != "" {
				t.Observed++
			} else {
				t.Error = f.Error
			}
		}
		if t.Injected > 0 {
			all = append(all, t)
		}
	}
	return all
}

// Observed is how many faults had an effect that was seen, and of how many kinds.
func (h *History) Observed() (faults, kinds int) {
	for _, t := range h.Tallies() {
		faults += t.Observed
		if t.Observed > 0 {
			kinds++
		}
	}
	return faults, kinds
}

// CountViolations is how often an invariant did not hold.
func CountViolations(findings []Finding) (n int) {
	for _, f := range findings {
		n += len(f.Violations)
	}
	return n
}

// Unchecked are the applicable invariants that had no case to check.
func Unchecked(findings []Finding) (names []string) {
	for _, f := range findings {
		if f.Checked+f.Excused == 0 && !f.Inapplicable {
			names = append(names, f.Invariant)
		}
	}
	return names
}

// maxPrinted of each invariant are printed; all are in the history.
const maxPrinted = 8

// Print writes the verdict.
func (h *History) Print(w io.Writer, findings []Finding) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "fault\tplayed\tobserved\t")
	for _, k := range h.Tallies() {
		why := ""
		if k.Observed == 0 {
			why = k.Error
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\n", k.Kind, k.Injected, k.Observed, why)
	}
	fmt.Fprintln(t, "\t\t\t\ninvariant\tchecked\tviolations\t")
	for _, f := range findings {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\n", f.Invariant, f.Checked, len(f.Violations), f.Note)
	}
	_ = t.Flush()
	for _, f := range findings {
		if len(f.Violations) > 0 {
			fmt.Fprintf(w, "\n%s:\n", f.Invariant)
			for _, b := range f.Violations[:min(len(f.Violations), maxPrinted)] {
				fmt.Fprintf(w, "  %s\n", b)
			}
			if more := len(f.Violations) - maxPrinted; more > 0 {
				fmt.Fprintf(w, "  and %d more\n", more)
			}
		}
	}
	faults, kinds := h.Observed()
	fmt.Fprintf(w, "\n%d jobs, %d requests, %d heartbeats, %d processes of agents, %d epochs of the master\n", len(h.Jobs), len(h.Exchanges), len(h.Heartbeats), len(h.Processes), len(h.Epochs))
	fmt.Fprintf(w, "%d faults of %d kinds observed, %d violations\n", faults, kinds, CountViolations(findings))
}

// KindNames are the names of kinds, one a line.
func KindNames(kinds []Kind) string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.Name)
	}
	slices.Sort(names)
	return strings.Join(names, "\n")
}
