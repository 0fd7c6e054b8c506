package hardware

import (
	"math"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// The energy of a window, from counter files by way of RAPL and the ledger, against the
// integral of the power curve. Readings are up to 3 ms away from the window's start and end.
func TestRAPLEnergyMatchesKnownCurves(t *testing.T) {
	const second = time.Second
	curves := map[string]fakehw.Curve{
		"constant": fakehw.Constant(120),
		"ramp":     fakehw.Ramp(10, 200, 20*second),
		"sine":     fakehw.Sine(100, 80, 1300*time.Millisecond),
		"steps":    fakehw.Bursts(20, 250, 3*second, 5*second),
		"bursts":   fakehw.Bursts(15, 280, 50*time.Millisecond, 370*time.Millisecond),
	}
	for name, curve := range curves {
		t.Run(name, func(t *testing.T) {
			tree, zones := newTree(t,
				// Wraps about every 3 s.
				fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: curve, Range: 300e6, Start: 299e6},
				fakehw.ZoneConfig{ID: "intel-rapl:0:0", Name: "core", Power: curve, Range: 300e6},
				fakehw.ZoneConfig{ID: "intel-rapl:0:1", Name: "dram", Power: fakehw.Sine(5, 3, second), Range: 65e9, Start: 64e9},
				fakehw.ZoneConfig{ID: "intel-rapl:1", Name: "psys", Power: fakehw.Constant(400), Range: 262e9},
			)
			rapl := openRAPL(t, tree)
			for _, z := range rapl.zones {
				z.MaxPower = 500
			}
			begin := time.Now()
			clock := func(elapsed time.Duration) time.Time { return begin.Add(elapsed) }
			rapl.now = func() time.Time { return clock(tree.Now()) }

			ledger := energy.NewLedger()
			read := func(at time.Duration) {
				advance(t, tree, at)
				record(t, ledger, rapl)
			}
			start, end := 1042300*time.Microsecond, 17777700*time.Microsecond
			for at := time.Duration(0); at < 20*second; at += 100 * time.Millisecond {
				if at > start && at-start < 100*time.Millisecond {
					read(start + 3*time.Millisecond)
					ledger.Open("job", clock(start))
				}
				if at > end && at-end < 100*time.Millisecond {
					read(end + 3*time.Millisecond)
					break
				}
				read(at)
			}
			total := ledger.Close("job", clock(end)).Total

			want := zones["intel-rapl:0"].Joules(start, end) + zones["intel-rapl:0:1"].Joules(start, end)
			got, bound := float64(*total.Energy), float64(*total.ErrorBound)
			if math.Abs(got-want) > bound {
				t.Errorf("got %v J, want %v ± %v J", got, want, bound)
			}
			if limit := (280 + 8) * 4 * 0.004; bound > limit {
				t.Errorf("got error bound %v J, want at most power × 2 × (update + distance) = %v J", bound, limit)
			}
			if total.CoveragePercent != 100 || total.Gaps != 0 || total.Source != energy.Measured {
				t.Errorf("got %+v, want full coverage without gaps", total)
			}
			if total.Method != "rapl: package-0 + dram" {
				t.Errorf("got method %q", total.Method)
			}
		})
	}
}

func TestRAPLWrapsLoseNothing(t *testing.T) {
	tree, zones := newTree(t, fakehw.ZoneConfig{
		ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Sine(150, 100, 7*time.Second), Range: 65532610,
	})
	rapl := openRAPL(t, tree)
	rapl.zones[0].MaxPower = 300
	rapl.now = treeClock(tree)
	ledger := energy.NewLedger()
	const length = 45 * time.Second // × 150 W = 103 × 65.5 J
	for at := time.Duration(0); at <= length; at += 100 * time.Millisecond {
		advance(t, tree, at)
		record(t, ledger, rapl)
	}
	state := ledger.Snapshot().Zones[0]
	want := zones["intel-rapl:0"].Joules(0, length)
	if got := float64(state.Energy.Joules()); math.Abs(got-want) > 1e-5 || state.Gaps != 0 {
		t.Errorf("got %v J with %d gaps, want %v J without gaps", got, state.Gaps, want)
	}
}

func TestRAPLResetIsAGap(t *testing.T) {
	tree, zones := newTree(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(100), Range: 262e9, Start: 100e9})
	rapl := openRAPL(t, tree)
	rapl.now = treeClock(tree)
	ledger := energy.NewLedger()
	ledger.Open("job", rapl.now())
	for i := range 101 {
		advance(t, tree, time.Duration(i)*100*time.Millisecond)
		if i == 50 {
			must(t, zones["intel-rapl:0"].Reset())
		}
		record(t, ledger, rapl)
	}
	total := ledger.Close("job", rapl.now()).Total
	if total.Gaps != 1 || math.Abs(total.CoveragePercent-99) > 1e-9 || math.Abs(float64(*total.Energy)-990) > 1e-3 {
		t.Errorf("got %v J, %+v; want 990 J, 99 %% coverage and 1 gap", *total.Energy, total)
	}
}

// The tree's counters advance in real time here, while RAPL reads them.
func TestRAPLEnergyInRealTime(t *testing.T) {
	tree, zones := newTree(t, fakehw.ZoneConfig{
		ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Bursts(20, 220, 50*time.Millisecond, 100*time.Millisecond), Range: 262e9, Start: 5e9,
	})
	ctx := t.Context()
	failed := make(chan error, 1)
	go func() { failed <- tree.Run(ctx, time.Millisecond) }()
	rapl := openRAPL(t, tree)
	ledger := energy.NewLedger()
	for tree.Now() == 0 {
		select {
		case err := <-failed:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	rapl.zones[0].MaxPower = 1e6 // the counter jumps when the tree's goroutine was preempted
	// How far the counter lags behind now for the same reason.
	lag := func() time.Duration { return tree.Since(time.Now()) - tree.Now() }
	start := time.Now()
	late := lag()
	record(t, ledger, rapl)
	ledger.Open("job", start)
	for time.Since(start) < 400*time.Millisecond {
		<-time.After(20 * time.Millisecond)
		record(t, ledger, rapl)
	}
	end := time.Now()
	late += lag()
	record(t, ledger, rapl)
	total := ledger.Close("job", end).Total
	want := zones["intel-rapl:0"].Joules(tree.Since(start), tree.Since(end))
	bound := float64(*total.ErrorBound) + 220*late.Seconds()
	if got := float64(*total.Energy); math.Abs(got-want) > bound {
		t.Errorf("got %v J, want %v ± %v J", got, want, bound)
	}
	if total.Gaps != 0 {
		t.Errorf("got %+v, want no gaps", total)
	}
}
