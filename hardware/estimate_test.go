package hardware

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

func newEstimator(t testing.TB, tree *fakehw.Tree, config EstimatorConfig) *Estimator {
	t.Helper()
	config.ProcfsPath = tree.Proc()
	e, err := NewEstimator(config)
	must(t, err)
	e.now = treeClock(tree)
	return e
}

func TestEstimateFollowsUtilization(t *testing.T) {
	half := 2*0.5 - math.Pow(0.5, 1.4)
	tests := []struct {
		name         string
		busy, stolen float64
		config       EstimatorConfig
		watts        float64
		uncertainty  float64
		model        string
	}{
		{"idle, both configured", 0, 0, EstimatorConfig{IdleWatts: 10, MaxWatts: 110}, 10, 0.7, "P = 10 + 100·(2u − u^1.4) W at CPU utilization u; configured idle and maximum, 8 threads Fake CPU @ 3.00GHz"},
		{"full, both configured", 1, 0, EstimatorConfig{IdleWatts: 10, MaxWatts: 110}, 110, 0.7, "configured idle and maximum"},
		{"half, both configured", 0.5, 0, EstimatorConfig{IdleWatts: 10, MaxWatts: 110}, 10 + 100*half, 0.7, "configured idle and maximum"},
		{"half of it stolen", 0.5, 0.5, EstimatorConfig{IdleWatts: 10, MaxWatts: 110}, 10 + 100*half, 0.7, "configured idle and maximum"},
		{"full, none configured", 1, 0, EstimatorConfig{}, 40, 1, "assumed idle and maximum"},
		{"idle, none configured", 0, 0, EstimatorConfig{}, 8, 1, "assumed idle and maximum"},
		{"idle, maximum configured", 0, 0, EstimatorConfig{MaxWatts: 100}, 20, 1, "configured maximum, assumed idle"},
		{"full, idle configured", 1, 0, EstimatorConfig{IdleWatts: 20}, 100, 1, "configured idle, assumed maximum"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tree := newCPUTree(t, fakehw.Constant(test.busy), fakehw.Constant(test.stolen))
			e := newEstimator(t, tree, test.config)
			ledger := energy.NewLedger()
			record(t, ledger, e)
			ledger.Open("job", e.now())
			for i := 1; i <= 50; i++ {
				advance(t, tree, time.Duration(i)*100*time.Millisecond)
				record(t, ledger, e)
			}
			total := ledger.Close("job", e.now()).Total
			want := test.watts * 5
			if got := float64(*total.Energy); math.Abs(got-want) > 0.01*want {
				t.Errorf("got %v J, want %v J", got, want)
			}
			if total.Source != energy.Estimated || total.CoveragePercent != 100 {
				t.Errorf("got %+v, want an estimate with full coverage", total)
			}
			if !strings.HasPrefix(total.Method, "estimate (") || !strings.Contains(total.Method, test.model) {
				t.Errorf("got method %q, want %q in it", total.Method, test.model)
			}
			if got := e.zone.Uncertainty; math.Abs(got-test.uncertainty) > 1e-9 {
				t.Errorf("got uncertainty %v, want %v", got, test.uncertainty)
			}
			model, edges := 5*float64(min(e.PowerError(test.busy), e.Power(test.busy))), 0.1*test.watts
			if bound := float64(*total.ErrorBound); bound < 0.99*model || bound > 1.01*model+edges {
				t.Errorf("got error bound %v J, want %v J of the model and up to %v J at the edges", bound, model, edges)
			}
		})
	}
}

// /proc/stat advances in ticks of 10 ms; readings may be closer together.
func TestEstimateBetweenTicks(t *testing.T) {
	tree := newCPUTree(t, fakehw.Bursts(0, 1, time.Second, 2*time.Second), nil)
	e := newEstimator(t, tree, EstimatorConfig{IdleWatts: 10, MaxWatts: 110})
	var last energy.Microjoules
	for at := time.Duration(0); at <= 4*time.Second; at += time.Millisecond {
		advance(t, tree, at)
		readings, faults := e.Read()
		if len(faults) > 0 || readings[0].Counter < last {
			t.Fatalf("at %v: got readings %+v and faults %+v after %d µJ", at, readings, faults, last)
		}
		last = readings[0].Counter
	}
	if got, want := float64(last.Joules()), 240.0; math.Abs(got-want) > 0.02*want {
		t.Errorf("got %v J, want %v J", got, want)
	}
}

func TestEstimateIncludesTheTimeBeforeTheFirstTick(t *testing.T) {
	tree := newCPUTree(t, fakehw.Constant(0), nil)
	e := newEstimator(t, tree, EstimatorConfig{IdleWatts: 10, MaxWatts: 110})
	var counter energy.Microjoules
	for at := time.Duration(0); at <= 100*time.Millisecond; at += time.Millisecond / 4 {
		advance(t, tree, at)
		readings, _ := e.Read()
		counter = readings[0].Counter
	}
	if got := float64(counter.Joules()); math.Abs(got-1) > 1e-5 {
		t.Errorf("got %v J after 100 ms at 10 W, want 1 J", got)
	}
}

func TestEstimateContinuesAfterAFault(t *testing.T) {
	tree := newCPUTree(t, fakehw.Constant(1), nil)
	e := newEstimator(t, tree, EstimatorConfig{IdleWatts: 10, MaxWatts: 100})
	e.Read()
	advance(t, tree, time.Second)
	for _, garbage := range []string{"", "cpu\n", "cpu a b c d\n", "cpu 1 2 3 4", "intr 5\n"} {
		text, err := os.ReadFile(tree.Proc("stat"))
		must(t, err)
		must(t, tree.Write(tree.Proc("stat"), garbage))
		if readings, faults := e.Read(); len(readings) != 0 || len(faults) != 1 {
			t.Errorf("%q: got readings %+v and faults %+v, want a fault", garbage, readings, faults)
		}
		must(t, tree.Write(tree.Proc("stat"), string(text)))
	}
	readings, _ := e.Read()
	if got := float64(readings[0].Counter.Joules()); math.Abs(got-100) > 1 {
		t.Errorf("got %v J over the second with the faults, want 100 J", got)
	}
}

func TestNewEstimatorRejectsInvalidConfigurations(t *testing.T) {
	tree := newCPUTree(t, nil, nil)
	for name, config := range map[string]EstimatorConfig{
		"no CPU times":            {ProcfsPath: t.TempDir()},
		"maximum less than idle":  {ProcfsPath: tree.Proc(), IdleWatts: 50, MaxWatts: 40},
		"negative power":          {ProcfsPath: tree.Proc(), IdleWatts: -1},
		"power that is no number": {ProcfsPath: tree.Proc(), MaxWatts: math.NaN()},
		"infinite power":          {ProcfsPath: tree.Proc(), MaxWatts: math.Inf(1)},
	} {
		if e, err := NewEstimator(config); err == nil {
			t.Errorf("%s: got %+v, want an error", name, e.zone)
		}
	}
}

func BenchmarkEstimatorRead(b *testing.B) {
	e := newEstimator(b, newCPUTree(b, nil, nil), EstimatorConfig{})
	e.now = time.Now
	for b.Loop() {
		if readings, _ := e.Read(); len(readings) != 1 {
			b.Fatal("no reading")
		}
	}
}
