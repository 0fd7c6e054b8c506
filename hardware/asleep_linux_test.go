package hardware

import (
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// While nothing suspends the machine, what it slept stays the same to well within what
// would be taken for a suspend.
func TestAsleepStandsStill(t *testing.T) {
	first := asleep()
	for range 2000 {
		if moved := (asleep() - first).Abs(); moved > 20*time.Millisecond {
			t.Fatalf("slept for %v more", moved)
		}
	}
}

// A suspend is a gap, though the clock stood still and the counter's step is one that
// could be true.
func TestSuspendIsAGap(t *testing.T) {
	tree, _ := machine(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(20), Range: 262e9, Start: 5e9})
	rapl := openRAPL(t, tree)
	begin := time.Now()
	var slept time.Duration
	rapl.now = func() time.Time { return begin.Add(tree.Now() - slept) }
	rapl.asleep = func() time.Duration { return time.Hour + slept }
	ledger := energy.NewLedger()
	ledger.Open("job", begin)
	for i := range 101 {
		if i == 50 {
			slept = 7 * time.Second
		}
		step(t, tree, time.Duration(i)*100*time.Millisecond+slept)
		record(t, ledger, rapl)
	}
	total := ledger.Close("job", rapl.now()).Total
	if total.Gaps != 1 || total.CoveragePercent < 98.9 || total.CoveragePercent > 99.1 || !strings.HasPrefix(total.Method, "rapl") {
		t.Errorf("%+v", total)
	}
	if got := float64(*total.Energy); got < 197.9 || got > 198.1 {
		t.Errorf("%v J, want 198 J: what was read of the 10 s awake", got)
	}
}
