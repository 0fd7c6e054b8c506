package chaos

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Tally is how often a kind of fault was played, and seen to have an effect.
type Tally struct {
	Kind         string
	Played, Seen int
	Idle         int    // of those played: there was nothing to play it on
	Why          string // of one that was not seen
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
			t.Played++
			t.Idle += count(f.Idle)
			if f.Seen != "" {
				t.Seen++
			} else {
				t.Why = f.Why
			}
		}
		if t.Played > 0 {
			all = append(all, t)
		}
	}
	return all
}

// Observed is how many faults had an effect that was seen, and of how many kinds.
func (h *History) Observed() (faults, kinds int) {
	for _, t := range h.Tallies() {
		faults += t.Seen
		if t.Seen > 0 {
			kinds++
		}
	}
	return faults, kinds
}

// Breaches is how often an invariant did not hold.
func Breaches(findings []Finding) (n int) {
	for _, f := range findings {
		n += len(f.Breaches)
	}
	return n
}

// Unchecked are the invariants of which no case was looked at.
func Unchecked(findings []Finding) (names []string) {
	for _, f := range findings {
		if f.Checked+f.Excused == 0 {
			names = append(names, f.Invariant)
		}
	}
	return names
}

// shownBreaches of each invariant are printed; all are in the history.
const shownBreaches = 8

// Print writes the verdict.
func (h *History) Print(w io.Writer, findings []Finding) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "fault\tplayed\tobserved\t")
	for _, k := range h.Tallies() {
		why := ""
		if k.Seen == 0 {
			why = k.Why
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\n", k.Kind, k.Played, k.Seen, why)
	}
	fmt.Fprintln(t, "\t\t\t\ninvariant\tchecked\tbreaches\t")
	for _, f := range findings {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\n", f.Invariant, f.Checked, len(f.Breaches), f.Note)
	}
	_ = t.Flush()
	for _, f := range findings {
		if len(f.Breaches) > 0 {
			fmt.Fprintf(w, "\n%s:\n", f.Invariant)
			for _, b := range f.Breaches[:min(len(f.Breaches), shownBreaches)] {
				fmt.Fprintf(w, "  %s\n", b)
			}
			if more := len(f.Breaches) - shownBreaches; more > 0 {
				fmt.Fprintf(w, "  and %d more\n", more)
			}
		}
	}
	faults, kinds := h.Observed()
	fmt.Fprintf(w, "\n%d jobs, %d requests, %d heartbeats, %d lives, %d memories of the master\n", len(h.Jobs), len(h.Exchanges), len(h.Beats), len(h.Lives), len(h.Memories))
	fmt.Fprintf(w, "%d faults of %d kinds observed, %d breaches\n", faults, kinds, Breaches(findings))
}

// Names are the names of kinds, one a line.
func Names(kinds []Kind) string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.Name)
	}
	slices.Sort(names)
	return strings.Join(names, "\n")
}
