//go:build attack

package attack

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

// attack is one row of the table.
type attack struct {
	name   string // what is done, as a test name
	wants  string // what the attacker wants
	threat string // the line of THREATS.md that it proves, such as T3
	// run attacks, and returns what the attacker got; empty: nothing, the attack was held.
	// What it expected and did not see (the job that has to fail with user_error) is a failure
	// of the test.
	run func(*testing.T) (got string)
}

// attacks are all rows. Each group has a file of its own.
var attacks = slices.Concat(resourceAttacks, secretAttacks, neighbourAttacks, parameterAttacks, masterAttacks, decoderAttacks)

func TestAttacks(t *testing.T) {
	threats := readThreats(t)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "THREAT\tATTACK\tWANTS\tRESULT")
	held, proved := 0, map[string]bool{}
	for _, a := range attacks {
		if !threats[a.threat] {
			t.Errorf("attack %q: THREATS.md has no line %s", a.name, a.threat)
		}
		proved[a.threat] = true
		result := "did not run to its end"
		ok := t.Run(a.name, func(t *testing.T) {
			result = "skipped"
			if got := a.run(t); got != "" {
				result = "NOT HELD: " + got
				t.Errorf("got %s, want nothing", got)
			} else {
				result = "held"
			}
		})
		if ok && result == "held" {
			held++
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", a.threat, a.name, a.wants, result)
	}
	printSpoils(t, os.Stdout)
	fmt.Println()
	table.Flush()
	fmt.Printf("\n%d of %d attacks held\n", held, len(attacks))
	for threat := range threats {
		if !proved[threat] {
			t.Errorf("no attack proves line %s of THREATS.md", threat)
		}
	}
}

// threatLine is a row of the table in THREATS.md: "| T1 | …".
var threatLine = regexp.MustCompile(`^\| (T\d+) \|`)

// readThreats returns the lines of THREATS.md that attacks prove.
func readThreats(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../../THREATS.md")
	if err != nil {
		t.Fatal(err)
	}
	threats := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if m := threatLine.FindStringSubmatch(line); m != nil {
			threats[m[1]] = true
		}
	}
	return threats
}
