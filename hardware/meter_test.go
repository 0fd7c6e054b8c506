package hardware

import (
	"fmt"
	"math"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// The whole way of a joule: a curve of power, counters in files, RAPL, the
// ledger; against the curve's own integral over the job's window. Readings lie
// up to 3 ms beside the job's start and end.
func TestEnergyOfKnownCurves(t *testing.T) {
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
			tree, zones := machine(t,
				// Wraps about every 3 s, against a limit of power to match.
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
			clock := func(since time.Duration) time.Time { return begin.Add(since) }
			rapl.now = func() time.Time { return clock(tree.Now()) }

			ledger := energy.NewLedger()
			look := func(at time.Duration) {
				step(t, tree, at)
				record(t, ledger, rapl)
			}
			start, end := 1042300*time.Microsecond, 17777700*time.Microsecond
			for at := time.Duration(0); at < 20*second; at += 100 * time.Millisecond {
				if at > start && at-start < 100*time.Millisecond {
					look(start + 3*time.Millisecond)
					ledger.Open("job", clock(start))
				}
				if at > end && at-end < 100*time.Millisecond {
					look(end + 3*time.Millisecond)
					break
				}
				look(at)
			}
			account := ledger.Close("job", clock(end))

			want := zones["intel-rapl:0"].Joules(start, end) + zones["intel-rapl:0:1"].Joules(start, end)
			got, bound := float64(*account.Total.Energy), float64(*account.Total.ErrorBound)
			if math.Abs(got-want) > bound {
				t.Errorf("%v J, truly %v J: off by %v J, more than the %v J that were promised", got, want, got-want, bound)
			}
			if promised := (280 + 8) * 4 * 0.004; bound > promised {
				t.Errorf("error bound %v J is wider than power × 2 × (update + distance) = %v J", bound, promised)
			}
			if account.Total.CoveragePercent != 100 || account.Total.Gaps != 0 || account.Total.Source != energy.Measured {
				t.Errorf("%+v", account.Total)
			}
			if account.Total.Method != "rapl: package-0 + dram" {
				t.Errorf("method %q", account.Total.Method)
			}
		})
	}
}

// A hundred wraps lose nothing.
func TestHundredWraps(t *testing.T) {
	tree, zones := machine(t, fakehw.ZoneConfig{
		ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Sine(150, 100, 7*time.Second), Range: 65532610,
	})
	rapl := openRAPL(t, tree)
	rapl.zones[0].MaxPower = 300
	begin := time.Now()
	rapl.now = func() time.Time { return begin.Add(tree.Now()) }
	ledger := energy.NewLedger()
	const length = 45 * time.Second // × 150 W = 103 × 65.5 J
	for at := time.Duration(0); at <= length; at += 100 * time.Millisecond {
		step(t, tree, at)
		record(t, ledger, rapl)
	}
	state := ledger.Snapshot().Zones[0]
	want := zones["intel-rapl:0"].Joules(0, length)
	if got := float64(state.Energy.Joules()); math.Abs(got-want) > 1e-5 || state.Gaps != 0 {
		t.Errorf("%v J with %d gaps, truly %v J", got, state.Gaps, want)
	}
}

func TestResetOfTheCounterIsAGap(t *testing.T) {
	tree, zones := machine(t, fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(100), Range: 262e9, Start: 100e9})
	rapl := openRAPL(t, tree)
	begin := time.Now()
	rapl.now = func() time.Time { return begin.Add(tree.Now()) }
	ledger := energy.NewLedger()
	ledger.Open("job", begin)
	for i := range 101 {
		step(t, tree, time.Duration(i)*100*time.Millisecond)
		if i == 50 {
			if err := zones["intel-rapl:0"].Reset(); err != nil {
				t.Fatal(err)
			}
		}
		record(t, ledger, rapl)
	}
	account := ledger.Close("job", rapl.now())
	if account.Total.Gaps != 1 || math.Abs(account.Total.CoveragePercent-99) > 1e-9 || math.Abs(float64(*account.Total.Energy)-990) > 1e-3 {
		t.Errorf("%+v, %v J", account.Total, *account.Total.Energy)
	}
}

// Real time, real files: a tree that runs beside the meter.
func TestRunningTree(t *testing.T) {
	tree, zones := machine(t, fakehw.ZoneConfig{
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
	rapl.zones[0].MaxPower = 1e6 // a tree that was held up makes a jump
	// How far a reading made now may lag behind, when the tree is held up.
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
	account := ledger.Close("job", end)
	want := zones["intel-rapl:0"].Joules(tree.Since(start), tree.Since(end))
	bound := float64(*account.Total.ErrorBound) + 220*late.Seconds()
	if got := float64(*account.Total.Energy); math.Abs(got-want) > bound {
		t.Errorf("%v J ± %v, truly %v J", got, bound, want)
	}
	if account.Total.Gaps != 0 {
		t.Errorf("%+v", account.Total)
	}
}

func ExampleOpenRAPL() {
	_, err := OpenRAPL("/nowhere")
	fmt.Println(err)
	// Output: no RAPL counters in /nowhere/class/powercap
}
