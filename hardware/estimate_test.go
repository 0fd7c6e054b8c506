package hardware

import (
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// busyMachine is a fake one with 8 threads in some use.
func busyMachine(t testing.TB, busy, stolen fakehw.Curve) *fakehw.Tree {
	t.Helper()
	tree, _ := machine(t)
	err := tree.SetCPU(fakehw.CPUConfig{
		Model: "Fake  CPU @ 3.00GHz", Threads: 8, Busy: busy, Stolen: stolen,
		MemoryTotal: 16 << 30, MemoryAvailable: 5 << 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func newEstimator(t testing.TB, tree *fakehw.Tree, config EstimatorConfig) *Estimator {
	t.Helper()
	config.ProcfsPath = tree.Proc()
	e, err := NewEstimator(config)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	e.now = func() time.Time { return begin.Add(tree.Now()) }
	return e
}

func TestEstimateFollowsCPUUse(t *testing.T) {
	half := 2*0.5 - math.Pow(0.5, 1.4)
	tests := []struct {
		name         string
		busy, stolen float64
		config       EstimatorConfig
		watts        float64
		uncertainty  float64
		model        string
	}{
		{"idle, owner's figures", 0, 0, EstimatorConfig{IdleWatts: 10, MaxWatts: 110}, 10, 0.7, "P = 10 + 100·(2u − u^1.4) W at CPU use u; owner's figures, 8 threads Fake CPU @ 3.00GHz"},
		{"full, owner's figures", 1, 0, EstimatorConfig{IdleWatts: 10, MaxWatts: 110}, 110, 0.7, "owner's figures"},
		{"half, owner's figures", 0.5, 0, EstimatorConfig{IdleWatts: 10, MaxWatts: 110}, 10 + 100*half, 0.7, "owner's figures"},
		{"half of it given to other machines", 0.5, 0.5, EstimatorConfig{IdleWatts: 10, MaxWatts: 110}, 10 + 100*half, 0.7, "owner's figures"},
		{"full, figures assumed", 1, 0, EstimatorConfig{}, 40, 1, "figures assumed"},
		{"idle, figures assumed", 0, 0, EstimatorConfig{}, 8, 1, "figures assumed"},
		{"idle, from the maximum", 0, 0, EstimatorConfig{MaxWatts: 100}, 20, 1, "idle assumed"},
		{"full, from idle", 1, 0, EstimatorConfig{IdleWatts: 20}, 100, 1, "full use assumed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tree := busyMachine(t, fakehw.Constant(test.busy), fakehw.Constant(test.stolen))
			e := newEstimator(t, tree, test.config)
			ledger := energy.NewLedger()
			record(t, ledger, e)
			ledger.Open("job", e.now())
			for i := 1; i <= 50; i++ {
				step(t, tree, time.Duration(i)*100*time.Millisecond)
				record(t, ledger, e)
			}
			account := ledger.Close("job", e.now())
			want := test.watts * 5
			if got := float64(*account.Total.Energy); math.Abs(got-want) > 0.01*want {
				t.Errorf("%v J, want %v J", got, want)
			}
			if account.Total.Source != energy.Estimated || account.Total.CoveragePercent != 100 {
				t.Errorf("%+v", account.Total)
			}
			if !strings.HasPrefix(account.Total.Method, "estimate (") || !strings.Contains(account.Total.Method, test.model) {
				t.Errorf("method %q, want %q", account.Total.Method, test.model)
			}
			if got := e.zone.Uncertainty; math.Abs(got-test.uncertainty) > 1e-9 {
				t.Errorf("uncertainty %v, want %v", got, test.uncertainty)
			}
			doubt, edges := 5*float64(min(e.Doubt(test.busy), e.Power(test.busy))), 0.1*test.watts
			if bound := float64(*account.Total.ErrorBound); bound < 0.99*doubt || bound > 1.01*doubt+edges {
				t.Errorf("error bound %v J, the model's doubt is %v J", bound, doubt)
			}
		})
	}
}

// Readings closer together than /proc/stat's ticks add up to the same energy.
func TestEstimateBetweenTicks(t *testing.T) {
	tree := busyMachine(t, fakehw.Bursts(0, 1, time.Second, 2*time.Second), nil)
	e := newEstimator(t, tree, EstimatorConfig{IdleWatts: 10, MaxWatts: 110})
	var last energy.Microjoules
	for at := time.Duration(0); at <= 4*time.Second; at += time.Millisecond {
		step(t, tree, at)
		readings, faults := e.Read()
		if len(faults) > 0 || readings[0].Counter < last {
			t.Fatalf("at %v: %+v after %d, faults %+v", at, readings, last, faults)
		}
		last = readings[0].Counter
	}
	if got, want := float64(last.Joules()), 240.0; math.Abs(got-want) > 0.02*want {
		t.Errorf("%v J, want %v J", got, want)
	}
}

func TestEstimateBeforeTheFirstTickIsMadeUpFor(t *testing.T) {
	tree := busyMachine(t, fakehw.Constant(0), nil)
	e := newEstimator(t, tree, EstimatorConfig{IdleWatts: 10, MaxWatts: 110})
	var counter energy.Microjoules
	for at := time.Duration(0); at <= 100*time.Millisecond; at += time.Millisecond / 4 {
		step(t, tree, at)
		readings, _ := e.Read()
		counter = readings[0].Counter
	}
	if got := float64(counter.Joules()); math.Abs(got-1) > 1e-5 {
		t.Errorf("%v J after 100 ms at 10 W", got)
	}
}

func TestEstimatorGoesOnAfterAFault(t *testing.T) {
	tree := busyMachine(t, fakehw.Constant(1), nil)
	e := newEstimator(t, tree, EstimatorConfig{IdleWatts: 10, MaxWatts: 100})
	e.Read()
	step(t, tree, time.Second)
	for _, garbage := range []string{"", "cpu\n", "cpu a b c d\n", "cpu 1 2 3 4", "intr 5\n"} {
		text, err := os.ReadFile(tree.Proc("stat"))
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Write(tree.Proc("stat"), garbage); err != nil {
			t.Fatal(err)
		}
		if readings, faults := e.Read(); len(readings) != 0 || len(faults) != 1 {
			t.Errorf("%q: readings %+v, faults %+v", garbage, readings, faults)
		}
		if err := tree.Write(tree.Proc("stat"), string(text)); err != nil {
			t.Fatal(err)
		}
	}
	readings, _ := e.Read()
	if got := float64(readings[0].Counter.Joules()); math.Abs(got-100) > 1 {
		t.Errorf("%v J over the second with the faults, want 100", got)
	}
}

func TestEstimatorRefusesWhatItCannotDo(t *testing.T) {
	tree := busyMachine(t, nil, nil)
	for name, config := range map[string]EstimatorConfig{
		"no /proc":             {ProcfsPath: t.TempDir()},
		"less at full use":     {ProcfsPath: tree.Proc(), IdleWatts: 50, MaxWatts: 40},
		"negative":             {ProcfsPath: tree.Proc(), IdleWatts: -1},
		"not a number":         {ProcfsPath: tree.Proc(), MaxWatts: math.NaN()},
		"more than everything": {ProcfsPath: tree.Proc(), MaxWatts: math.Inf(1)},
	} {
		if e, err := NewEstimator(config); err == nil {
			t.Errorf("%s: %+v", name, e.zone)
		}
	}
}

func TestBestSourceOfCPUPower(t *testing.T) {
	withRAPL := busyMachine(t, nil, nil)
	if _, err := withRAPL.AddZone(zone("intel-rapl:0", "package-0")); err != nil {
		t.Fatal(err)
	}
	withHwmon := busyMachine(t, nil, nil)
	addChip(t, withHwmon, fakehw.ChipConfig{Name: "fam15h_power", Device: "0000:00:18.4", Sensors: []fakehw.SensorConfig{
		{File: "power1_input", Power: fakehw.Constant(50)},
	}})
	without := busyMachine(t, nil, nil)
	bare, _ := machine(t)
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
		{"nothing at all", bare, "auto", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sensors, err := OpenCPUPower(CPUPowerConfig{SysfsPath: test.tree.Sys(), ProcfsPath: test.tree.Proc(), Estimate: test.estimate})
			if test.want == "" {
				if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrNoRAPL) || sensors != nil {
					t.Fatalf("%v, %v", sensors, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer sensors.Close()
			if sensors.Name() != test.want || len(sensors.Zones()) != 1 {
				t.Errorf("%s with %d zones", sensors.Name(), len(sensors.Zones()))
			}
			if because := sensors.Because(); test.want == "estimate" && !(errors.Is(because, ErrNoRAPL) && errors.Is(because, ErrNoHwmon)) {
				t.Errorf("estimated because of %v", because)
			}
			if because := sensors.Because(); test.want == "hwmon" && !errors.Is(because, ErrNoRAPL) {
				t.Errorf("by hwmon because of %v", because)
			}
		})
	}
}

func FuzzCPUTimes(f *testing.F) {
	f.Add([]byte("cpu  10775 0 4787 251409 479 0 86 669 0 0\ncpu0 1"))
	f.Add([]byte("cpu 1 2 3 4\n"))
	f.Add([]byte("cpu 99999999999999999999 0 0 0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		times, err := parseCPUTimes(text)
		if err != nil && times != (cpuTimes{}) {
			t.Fatalf("%+v beside %v", times, err)
		}
		if use, ok := times.use(cpuTimes{}); ok && !(use >= 0 && use <= 1) {
			t.Fatalf("%q: use %v", text, use)
		}
	})
}

func BenchmarkEstimatorRead(b *testing.B) {
	e := newEstimator(b, busyMachine(b, nil, nil), EstimatorConfig{})
	e.now = time.Now
	for b.Loop() {
		if readings, _ := e.Read(); len(readings) != 1 {
			b.Fatal("no reading")
		}
	}
}
