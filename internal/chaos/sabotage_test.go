package chaos

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSabotagesFitTheCode: each text that a sabotage replaces stands once in its file, and
// the kinds of faults that it names are there.
func TestSabotagesFitTheCode(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Sabotages() {
		if seen[s.Name] || len(s.Edits) == 0 {
			t.Errorf("%s: %d edits", s.Name, len(s.Edits))
		}
		seen[s.Name] = true
		for _, e := range s.Edits {
			raw, err := os.ReadFile(filepath.Join("..", "..", e.File))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(raw), e.Old); n != 1 || e.New == e.Old {
				t.Errorf("%s: stands %d times in %s: %q", s.Name, n, e.File, e.Old)
			}
		}
		if _, err := SelectKinds(Kinds(), s.Faults); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}
