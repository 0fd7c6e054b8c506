package hardware

import (
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// Measurement noise must be far below the ledger's threshold for a suspend.
func TestSuspendedIsStable(t *testing.T) {
	first := suspended()
	for range 2000 {
		if moved := (suspended() - first).Abs(); moved > 20*time.Millisecond {
			t.Fatalf("suspended() changed by %v, want at most 20 ms", moved)
		}
	}
}

// The clock stands still during a suspend, and the counter's step is a plausible one.
func TestSuspendIsAGap(t *testing.T) {
	tree, _ := newTree(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(20), Range: 262e9, Start: 5e9})
	rapl := openRAPL(t, tree)
	begin := time.Now()
	var suspended time.Duration
	rapl.now = func() time.Time { return begin.Add(tree.Now() - suspended) }
	rapl.suspended = func() time.Duration { return time.Hour + suspended }
	ledger := energy.NewLedger()
	ledger.Open("job", begin)
	for i := range 101 {
		if i == 50 {
			suspended = 7 * time.Second
		}
		advance(t, tree, time.Duration(i)*100*time.Millisecond+suspended)
		record(t, ledger, rapl)
	}
	total := ledger.Close("job", rapl.now()).Total
	if total.Gaps != 1 || total.CoveragePercent < 98.9 || total.CoveragePercent > 99.1 || !strings.HasPrefix(total.Method, "rapl") {
		t.Errorf("got %+v, want 99 %% coverage and 1 gap", total)
	}
	if got := float64(*total.Energy); got < 197.9 || got > 198.1 {
		t.Errorf("got %v J, want 198 J of the 10 s awake", got)
	}
}
