package hardware

import (
	"errors"
	"math"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

func TestOpenCPUPowerTakesTheBestSource(t *testing.T) {
	withRAPL := newCPUTree(t, nil, nil)
	_, err := withRAPL.AddZone(zone("intel-rapl:0", "package-0"))
	must(t, err)
	withHwmon := newCPUTree(t, nil, nil)
	addChip(t, withHwmon, fam15h(fakehw.SensorConfig{File: "power1_input", Power: fakehw.Constant(50)}))
	without := newCPUTree(t, nil, nil)
	bare, _ := newTree(t)
	tests := []struct {
		name     string
		tree     *fakehw.Tree
		estimate string
		want     string
	}{
		{"RAPL", withRAPL, "auto", "rapl"},
		{"RAPL, estimates off", withRAPL, "off", "rapl"},
		{"hwmon", withHwmon, "off", "hwmon"},
		{"none, estimated", without, "auto", "estimate"},
		{"none, estimates by default", without, "", "estimate"},
		{"none, estimates off", without, "off", ""},
		{"no CPU times", bare, "auto", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sensors, err := OpenCPUPower(CPUPowerConfig{SysfsPath: test.tree.Sys(), ProcfsPath: test.tree.Proc(), Estimate: test.estimate})
			if test.want == "" {
				if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrNoRAPL) || sensors != nil {
					t.Fatalf("got %v and error %v, want ErrUnavailable because of ErrNoRAPL", sensors, err)
				}
				return
			}
			must(t, err)
			defer sensors.Close()
			if sensors.Name() != test.want || len(sensors.Zones()) != 1 {
				t.Errorf("got %s with %d zones, want %s with 1", sensors.Name(), len(sensors.Zones()), test.want)
			}
			reason := sensors.FallbackReason()
			if noRAPL := test.want != "rapl"; errors.Is(reason, ErrNoRAPL) != noRAPL {
				t.Errorf("got reason %v, want ErrNoRAPL: %v", reason, noRAPL)
			}
			if noHwmon := test.want == "estimate"; errors.Is(reason, ErrNoHwmon) != noHwmon {
				t.Errorf("got reason %v, want ErrNoHwmon: %v", reason, noHwmon)
			}
		})
	}
}

func TestFallbackEndsWhenABetterSourceAppears(t *testing.T) {
	tree := newCPUTree(t, nil, nil)
	open := func(want string) PowerSensors {
		t.Helper()
		sensors, err := OpenCPUPower(CPUPowerConfig{SysfsPath: tree.Sys(), ProcfsPath: tree.Proc()})
		must(t, err)
		t.Cleanup(func() { sensors.Close() })
		if sensors.Name() != want {
			t.Fatalf("got source %s, want %s", sensors.Name(), want)
		}
		return sensors
	}
	expectEnd := func(sensors PowerSensors, reason string) {
		t.Helper()
		if readings, faults := sensors.Read(); len(readings) != 1 || !readings[0].Zone.Counted || len(faults) > 0 {
			t.Fatalf("before the probe: got readings %+v and faults %+v, want a counted reading", readings, faults)
		}
		later := time.Now().Add(rescanInterval)
		sensors.(*fallback).now = func() time.Time { return later }
		if readings, _ := sensors.Read(); len(readings) != 1 || readings[0].Zone.Counted {
			t.Fatalf("at the probe: got readings %+v, want one that is not counted", readings)
		}
		if readings, faults := sensors.Read(); len(readings) != 0 || len(faults) != 1 || faults[0].Err != reason {
			t.Fatalf("after the probe: got readings %+v and faults %+v, want fault %q", readings, faults, reason)
		}
	}
	estimate := open("estimate")
	addChip(t, tree, fam15h(meter("power1_input", "", 100)))
	expectEnd(estimate, "hwmon is now available")
	hwmon := open("hwmon")
	_, err := tree.AddZone(zone("intel-rapl:0", "package-0"))
	must(t, err)
	expectEnd(hwmon, "rapl is now available")
	open("rapl")
}

// The source that ended and the better one measure the same processor.
func TestEndedFallbackIsNotCounted(t *testing.T) {
	tree := newCPUTree(t, fakehw.Constant(1), nil)
	estimate, err := OpenCPUPower(CPUPowerConfig{SysfsPath: tree.Sys(), ProcfsPath: tree.Proc(), MaxWatts: 100})
	must(t, err)
	clock := treeClock(tree)
	f := estimate.(*fallback)
	f.now, f.probed, f.PowerSensors.(*Estimator).now = clock, clock(), clock
	ledger := energy.NewLedger()
	ledger.Open("job", clock())
	for at := time.Duration(0); at < rescanInterval; at += time.Second {
		advance(t, tree, at)
		record(t, ledger, estimate)
	}
	_, err = tree.AddZone(zone("intel-rapl:0", "package-0"))
	must(t, err)
	for at := rescanInterval; at < rescanInterval+5*time.Second; at += time.Second {
		advance(t, tree, at)
		record(t, ledger, estimate)
		for _, z := range estimate.Zones() {
			if z.Counted {
				t.Errorf("at %v: %s is counted", at, z.ID)
			}
		}
	}
	rapl := openRAPL(t, tree)
	rapl.now = clock
	for at := rescanInterval + 5*time.Second; at <= 2*rescanInterval; at += time.Second {
		advance(t, tree, at)
		record(t, ledger, rapl)
	}
	total := ledger.Close("job", clock()).Total
	if want := 10 * (rescanInterval - 5*time.Second).Seconds(); total.Method != "rapl: package-0" || math.Abs(float64(*total.Energy)-want) > 1e-3 {
		t.Errorf("got %v J, %+v; want %v J by rapl", *total.Energy, total, want)
	}
	if total.CoveragePercent > 50 {
		t.Errorf("got coverage %v %%, want at most 50 %%", total.CoveragePercent)
	}
}
