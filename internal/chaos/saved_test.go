package chaos

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A history that was saved is judged as it was before.
func TestSavedHistoryGivesSameVerdict(t *testing.T) {
	h := passingHistory()
	h.setEnergy(30, 100, 1) // of 60 J
	h.Faults = []InjectedFault{injected("ffmpeg: SIGKILL", 900, 910)}
	h.Unsettled = "a job is open"
	h.addEvent(0, 1, eventEnded, 900)
	path := filepath.Join(t.TempDir(), "history.jsonl")
	before := h.Check()
	if CountViolations(before) < 3 {
		t.Fatalf("too few violations to compare: %+v", before)
	}
	if err := h.Save(path, before); err != nil {
		t.Fatal(err)
	}
	again, err := LoadHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, again.Check()); diff != "" {
		t.Errorf("- before + after\n%s", diff)
	}
}
