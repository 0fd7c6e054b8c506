package chaos

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A history that was saved is judged as it was before.
func TestASavedHistoryIsJudgedAlike(t *testing.T) {
	h := newHistory()
	h.measured(30, 100, 1) // of 60 J
	h.Faults = []Injected{fault("ffmpeg: SIGKILL", 900, 910)}
	h.Unsettled = "a job is open"
	h.stepped(0, 1, stepEnded, 900)
	path := filepath.Join(t.TempDir(), "history.jsonl")
	before := h.Judge()
	if Breaches(before) < 3 {
		t.Fatalf("too few breaches to compare: %+v", before)
	}
	if err := h.Save(path, before); err != nil {
		t.Fatal(err)
	}
	again, err := LoadHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, again.Judge()); diff != "" {
		t.Errorf("- before + after\n%s", diff)
	}
}
