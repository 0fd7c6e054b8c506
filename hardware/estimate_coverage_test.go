package hardware

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

// The exponent is fitted to one published curve. All other curves are for testing only.
func TestCurveFitsOneProcessor(t *testing.T) {
	curves := publishedCurves()
	i := slices.IndexFunc(curves, func(p powerCurve) bool { return p.name == "Xeon Platinum" })
	fitted, least := 0.0, math.Inf(1)
	for r := 1.0; r < 3; r += 0.005 {
		sum := 0.0
		for u := 0.0; u <= 1; u += 0.05 {
			p := curves[i]
			residual := 2*u - math.Pow(u, r) - (p.power(u)-p.idle())/(p.full()-p.idle())
			sum += residual * residual
		}
		if sum < least {
			fitted, least = r, sum
		}
	}
	if math.Abs(fitted-curveExponent) > 0.2 {
		t.Errorf("got fitted exponent %v, want about %v", fitted, curveExponent)
	}
}

// schedules returns curves of CPU utilization over 20 s, of the kinds that transcoding has.
func schedules(count int) []fakehw.Curve {
	random := rand.New(rand.NewPCG(1, 2))
	var all []fakehw.Curve
	for i := range count {
		level, other := random.Float64(), random.Float64()
		period := time.Duration(1+random.IntN(8000)) * time.Millisecond
		switch i % 5 {
		case 0:
			all = append(all, fakehw.Constant(level))
		case 1: // alternating decoding and encoding
			all = append(all, fakehw.Bursts(min(level, other), max(level, other), period/2, period))
		case 2: // nothing or everything
			all = append(all, fakehw.Bursts(0, 1, time.Duration(level*float64(period)), period))
		case 3: // a job that starts or ends
			all = append(all, fakehw.Ramp(level, other, 15*time.Second))
		case 4:
			all = append(all, fakehw.Sine(0.5, level/2, period))
		}
	}
	return all
}

// estimate is the energy of a schedule in J, with its bound by the zone's uncertainty and its
// bound by the error at each utilization.
type estimate struct{ joules, zoneBound, errorBound float64 }

// estimates returns the estimate of each configuration for one schedule.
func estimates(t *testing.T, schedule fakehw.Curve, configs []EstimatorConfig) []estimate {
	t.Helper()
	tree := newCPUTree(t, schedule, nil)
	var estimators []*Estimator
	for _, config := range configs {
		estimators = append(estimators, newEstimator(t, tree, config))
	}
	begin := time.Now()
	for at := time.Duration(0); at <= 20*time.Second; at += 500 * time.Millisecond {
		advance(t, tree, at)
		times, err := readCPUTimes(tree.Proc())
		must(t, err)
		for _, e := range estimators {
			e.integrate(times, begin.Add(at))
		}
	}
	var all []estimate
	for _, e := range estimators {
		all = append(all, estimate{e.energy / 1e6, e.zone.Uncertainty * e.energy / 1e6, e.errorBound / 1e6})
	}
	return all
}

// energyOf is the energy of a processor, by its own curve.
func energyOf(p powerCurve, schedule fakehw.Curve) (joules float64) {
	const grain = 5 * time.Millisecond
	for at := grain / 2; at < 20*time.Second; at += grain {
		joules += p.power(schedule(at)) * grain.Seconds()
	}
	return joules
}

var hypothetical = []powerCurve{
	{name: "linear", watts: []float64{30, 130}},
	{name: "concave", watts: []float64{30, 58, 79, 97, 112, 130}},
	{name: "convex, as with turbo", watts: []float64{30, 42, 56, 73, 97, 130}},
}

func TestCoverageOfEstimates(t *testing.T) {
	processors := append(publishedCurves(), hypothetical...)
	// Whole machines that use half of their power when idle are no processors.
	isPackage := func(p powerCurve) bool { return p.idle() < 0.4*p.full() }
	type config = EstimatorConfig
	tests := []*coverage{
		{name: "idle and maximum", config: func(p powerCurve) config { return config{IdleWatts: p.idle(), MaxWatts: p.full()} }},
		{name: "idle and maximum, 8 % too high", config: func(p powerCurve) config {
			return config{IdleWatts: 1.08 * p.idle(), MaxWatts: 1.08 * p.full()}
		}},
		{name: "idle and maximum, 8 % too low", config: func(p powerCurve) config {
			return config{IdleWatts: 0.92 * p.idle(), MaxWatts: 0.92 * p.full()}
		}},
		{name: "maximum", config: func(p powerCurve) config { return config{MaxWatts: p.full()} }, applies: isPackage},
		{name: "idle", config: func(p powerCurve) config { return config{IdleWatts: p.idle()} },
			applies: func(p powerCurve) bool { return isPackage(p) && p.idle() > 0.1*p.full() }},
	}
	type pair struct {
		test      *coverage
		processor int
	}
	var pairs []pair
	var configs []EstimatorConfig
	for _, test := range tests {
		for i, p := range processors {
			if test.applies == nil || test.applies(p) {
				pairs, configs = append(pairs, pair{test, i}), append(configs, test.config(p))
			}
		}
	}
	for _, schedule := range schedules(20) {
		var truths []float64
		for _, p := range processors {
			truths = append(truths, energyOf(p, schedule))
		}
		for i, e := range estimates(t, schedule, configs) {
			pairs[i].test.add(e, truths[pairs[i].processor])
		}
	}
	for _, test := range tests {
		t.Run(test.name, test.check)
	}
}

// coverage counts how often the truth is within the bounds of an estimate.
type coverage struct {
	name    string
	config  func(powerCurve) EstimatorConfig
	applies func(powerCurve) bool // nil: to all

	cases, withinZone, withinError int
	zoneWidth, errorWidth          float64 // sums of the bounds relative to the estimates
}

func (c *coverage) add(e estimate, truth float64) {
	off := math.Abs(e.joules - truth)
	c.cases++
	c.zoneWidth += e.zoneBound / e.joules
	c.errorWidth += e.errorBound / e.joules
	if off <= e.zoneBound {
		c.withinZone++
	}
	if off <= e.errorBound {
		c.withinError++
	}
}

func (c *coverage) check(t *testing.T) {
	all := float64(c.cases)
	zone, bound := 100*float64(c.withinZone)/all, 100*float64(c.withinError)/all
	t.Logf("%d cases: %.1f %% within the zone's uncertainty, ±%.0f %% on average; %.1f %% within the error bound, ±%.0f %%",
		c.cases, zone, 100*c.zoneWidth/all, bound, 100*c.errorWidth/all)
	if c.cases < 100 || zone < 95 || bound < 95 {
		t.Errorf("got %d cases with %.1f %% and %.1f %% covered, want at least 100 with 95 %%", c.cases, zone, bound)
	}
}

// Cross-validation: the bound that all other kinds of processors need covers each kind.
func TestCurveErrorCoversUnseenProcessors(t *testing.T) {
	distance := func(p powerCurve, u float64) float64 {
		return math.Abs((p.power(u)-p.idle())/(p.full()-p.idle())-relativePower(u)) / math.Sqrt(u*(1-u))
	}
	kinds := map[string][]powerCurve{}
	for _, p := range publishedCurves() {
		kind, _, _ := strings.Cut(p.name, " ")
		kinds[kind] = append(kinds[kind], p)
	}
	covered, points := 0, 0
	for kind := range kinds {
		width := 0.0
		for other, processors := range kinds {
			for _, p := range processors {
				for u := 0.05; u < 0.96 && other != kind; u += 0.05 {
					width = max(width, distance(p, u))
				}
			}
		}
		for _, p := range kinds[kind] {
			for u := 0.05; u < 0.96; u += 0.05 {
				points++
				if distance(p, u) <= width {
					covered++
				}
			}
		}
	}
	percent := 100 * float64(covered) / float64(points)
	t.Logf("%d kinds: %.1f %% of %d points", len(kinds), percent, points)
	if len(kinds) < 5 || percent < 95 {
		t.Errorf("got %.1f %% of %d points of %d kinds covered, want 95 %% of 5 kinds", percent, points, len(kinds))
	}
}

// With both figures configured, only the workload and the unknown curve remain.
func TestUncertaintyOfConfiguredFigures(t *testing.T) {
	for _, test := range []struct{ idle, max, want float64 }{
		{100, 100, 0.10}, {86, 117, 0.18}, {166, 265, 0.21}, {81.4, 244, 0.36}, {55, 469, 0.62}, {1, 100, 1},
	} {
		e := newEstimator(t, newCPUTree(t, nil, nil), EstimatorConfig{IdleWatts: test.idle, MaxWatts: test.max})
		if math.Abs(e.zone.Uncertainty-test.want) > 0.011 {
			t.Errorf("%v to %v W: got ±%v, want ±%v", test.idle, test.max, e.zone.Uncertainty, test.want)
		}
		for _, u := range []float64{0, 1} {
			if got := float64(e.PowerError(u) / e.Power(u)); math.Abs(got-workloadError) > 1e-9 {
				t.Errorf("%v to %v W at utilization %v: got ±%v, want ±%v", test.idle, test.max, u, got, workloadError)
			}
		}
	}
}

func TestCurveErrorIsNotWiderThanNeeded(t *testing.T) {
	above, below := 0.0, 0.0
	for _, p := range publishedCurves() {
		for u := 0.1; u < 0.95; u += 0.1 {
			distance := (p.power(u)-p.idle())/(p.full()-p.idle()) - relativePower(u)
			bound := curveError * math.Sqrt(u*(1-u))
			above, below = max(above, distance/bound), max(below, -distance/bound)
		}
	}
	for _, reached := range []float64{above, below} {
		if reached < 0.9 || reached > 1.02 {
			t.Errorf("published curves are up to %.2f × the bound above and %.2f × below, want about 1", above, below)
		}
	}
}

// Power in W per thread, idle and maximum, is from Cloud Carbon Footprint's coefficients from
// SPECpower (ccf-coefficients, 2026). It is that of whole machines: processors use less.
func TestAssumedFiguresCoverKnownProcessors(t *testing.T) {
	threads := map[string][2]float64{
		"Sandy Bridge": {2.21, 8.63}, "Ivy Bridge": {1.71, 5.56}, "Haswell": {1.86, 5.60}, "Broadwell": {0.71, 3.69},
		"Skylake": {0.61, 4.10}, "Cascade Lake": {0.69, 4.06}, "Coffee Lake": {1.14, 5.42}, "Ice Lake": {0.77, 3.76},
		"Sapphire Rapids": {1.04, 4.16}, "Emerald Rapids": {0.81, 4.48}, "Granite Rapids": {0.58, 2.53},
		"EPYC 1": {0.85, 2.60}, "EPYC 2": {0.47, 1.69}, "EPYC 3": {0.46, 1.96}, "EPYC 4": {0.74, 2.28},
	}
	covered, cases := 0, 0
	for _, schedule := range schedules(20) {
		e := estimates(t, schedule, []EstimatorConfig{{}})[0]
		for name, watts := range threads {
			p := powerCurve{name: name, watts: []float64{8 * watts[0], 8 * watts[1]}}
			cases++
			if math.Abs(e.joules-energyOf(p, schedule)) <= e.zoneBound {
				covered++
			}
		}
	}
	if percent := 100 * float64(covered) / float64(cases); percent < 95 {
		t.Errorf("got %.1f %% of %d cases covered, want 95 %%", percent, cases)
	}
}
