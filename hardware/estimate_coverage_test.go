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

// The estimate's curve is what one of the published ones is fitted best by, or near to
// it. All the others are only tested against.
func TestCurveIsThatOfOneProcessor(t *testing.T) {
	processors := fakehw.Processors()
	i := slices.IndexFunc(processors, func(p fakehw.Processor) bool { return p.Name == "Xeon Platinum" })
	fitted, least := 0.0, math.Inf(1)
	for r := 1.0; r < 3; r += 0.005 {
		sum := 0.0
		for use := 0.0; use <= 1; use += 0.05 {
			p := processors[i]
			apart := 2*use - math.Pow(use, r) - (p.Power(use)-p.Idle())/(p.Max()-p.Idle())
			sum += apart * apart
		}
		if sum < least {
			fitted, least = r, sum
		}
	}
	if math.Abs(fitted-curveExponent) > 0.2 {
		t.Errorf("fitted %v, used %v", fitted, curveExponent)
	}
}

// schedules of CPU use, 20 s long, of the kinds that transcoding has.
func schedules(count int) []fakehw.Curve {
	random := rand.New(rand.NewPCG(1, 2))
	var all []fakehw.Curve
	for i := range count {
		level, other := random.Float64(), random.Float64()
		period := time.Duration(1+random.IntN(8000)) * time.Millisecond
		switch i % 5 {
		case 0:
			all = append(all, fakehw.Constant(level))
		case 1: // decoding and encoding by turns
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

// estimates are what jobs of 20 s are said to have used on one machine in some use.
func estimates(t *testing.T, use fakehw.Curve, configs []EstimatorConfig) []*Estimator {
	t.Helper()
	tree := busyMachine(t, use, nil)
	var all []*Estimator
	for _, config := range configs {
		all = append(all, newEstimator(t, tree, config))
	}
	begin := time.Now()
	for at := time.Duration(0); at <= 20*time.Second; at += 500 * time.Millisecond {
		step(t, tree, at)
		times, err := readCPUTimes(tree.Proc())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all { // one look at /proc/stat for all
			e.integrate(times, begin.Add(at))
		}
	}
	return all
}

// bounds of what has been estimated, in J: by the zone's uncertainty, and by what was
// doubted at each use.
func (e *Estimator) bounds() (joules, bound, doubt float64) {
	return e.counted / 1e6, e.zone.Uncertainty * e.counted / 1e6, e.doubt / 1e6
}

// used is the truth: the processor's own curve over the schedule.
func used(p fakehw.Processor, use fakehw.Curve) (joules float64) {
	const grain = 5 * time.Millisecond
	for at := grain / 2; at < 20*time.Second; at += grain {
		joules += p.Power(use(at)) * grain.Seconds()
	}
	return joules
}

// hypothetical are shapes that bound what machines do.
var hypothetical = []fakehw.Processor{
	{Name: "linear", Watts: []float64{30, 130}},
	{Name: "concave", Watts: []float64{30, 58, 79, 97, 112, 130}},
	{Name: "convex, as with turbo", Watts: []float64{30, 42, 56, 73, 97, 130}},
}

func TestCoverageOfEstimates(t *testing.T) {
	processors := append(fakehw.Processors(), hypothetical...)
	packages := func(p fakehw.Processor) bool { return p.Idle() < 0.4*p.Max() }
	type config = EstimatorConfig
	tests := []*coverage{
		{name: "owner's figures", config: func(p fakehw.Processor) config { return config{IdleWatts: p.Idle(), MaxWatts: p.Max()} }},
		{name: "owner's figures, 8 % too high", config: func(p fakehw.Processor) config {
			return config{IdleWatts: 1.08 * p.Idle(), MaxWatts: 1.08 * p.Max()}
		}},
		{name: "owner's figures, 8 % too low", config: func(p fakehw.Processor) config {
			return config{IdleWatts: 0.92 * p.Idle(), MaxWatts: 0.92 * p.Max()}
		}},
		// Whole machines that use half of their power at rest are no processors.
		{name: "figure at full use", config: func(p fakehw.Processor) config { return config{MaxWatts: p.Max()} }, of: packages},
		{name: "figure at rest", config: func(p fakehw.Processor) config { return config{IdleWatts: p.Idle()} },
			of: func(p fakehw.Processor) bool { return packages(p) && p.Idle() > 0.1*p.Max() }},
	}
	type tested struct {
		test      *coverage
		processor int
	}
	var cases []tested
	var configs []EstimatorConfig
	for _, test := range tests {
		for i, p := range processors {
			if test.of == nil || test.of(p) {
				cases, configs = append(cases, tested{test, i}), append(configs, test.config(p))
			}
		}
	}
	for _, load := range schedules(20) {
		var truths []float64
		for _, p := range processors {
			truths = append(truths, used(p, load))
		}
		for i, e := range estimates(t, load, configs) {
			cases[i].test.add(e, truths[cases[i].processor])
		}
	}
	for _, test := range tests {
		t.Run(test.name, test.judge)
	}
}

// coverage is how often what was used lies within what an estimate says of its error.
type coverage struct {
	name   string
	config func(fakehw.Processor) EstimatorConfig
	of     func(fakehw.Processor) bool // nil: all

	cases, inside, within int     // within the zone's uncertainty, within what was doubted
	width, narrow         float64 // sums of those bounds, relative
}

func (c *coverage) add(e *Estimator, truth float64) {
	joules, bound, doubt := e.bounds()
	apart := math.Abs(joules - truth)
	c.cases++
	c.width += bound / joules
	c.narrow += doubt / joules
	if apart <= bound {
		c.inside++
	}
	if apart <= doubt {
		c.within++
	}
}

func (c *coverage) judge(t *testing.T) {
	all := float64(c.cases)
	inside, within := 100*float64(c.inside)/all, 100*float64(c.within)/all
	t.Logf("%d cases: %.1f %% within the zone's uncertainty, ±%.0f %% on average; %.1f %% within what is doubted, ±%.0f %%",
		c.cases, inside, 100*c.width/all, within, 100*c.narrow/all)
	if c.cases < 100 || inside < 95 || within < 95 {
		t.Errorf("of %d cases %d and %d are covered", c.cases, c.inside, c.within)
	}
}

// The width of the bound is not fitted to the curves that it is tested on: what all
// processors of other kinds call for covers those of each kind.
func TestBoundHoldsForProcessorsItWasNotChosenBy(t *testing.T) {
	apart := func(p fakehw.Processor, use float64) float64 {
		return math.Abs((p.Power(use)-p.Idle())/(p.Max()-p.Idle())-rise(use)) / math.Sqrt(use*(1-use))
	}
	kinds := map[string][]fakehw.Processor{}
	for _, p := range fakehw.Processors() {
		kind, _, _ := strings.Cut(p.Name, " ")
		kinds[kind] = append(kinds[kind], p)
	}
	inside, cases := 0, 0
	for kind := range kinds {
		width := 0.0
		for other, processors := range kinds {
			for _, p := range processors {
				for use := 0.05; use < 0.96 && other != kind; use += 0.05 {
					width = max(width, apart(p, use))
				}
			}
		}
		for _, p := range kinds[kind] {
			for use := 0.05; use < 0.96; use += 0.05 {
				cases++
				if apart(p, use) <= width {
					inside++
				}
			}
		}
	}
	percent := 100 * float64(inside) / float64(cases)
	t.Logf("%d kinds: %.1f %% of %d points", len(kinds), percent, cases)
	if len(kinds) < 5 || percent < 95 {
		t.Errorf("%.1f %% of %d points of %d kinds are covered", percent, cases, len(kinds))
	}
}

// The bound is not wide for nothing: with the owner's figures it is what work and the
// unknown curve leave open, and that is little where power hardly depends on use.
func TestBoundIsAsNarrowAsTheFiguresAllow(t *testing.T) {
	for _, test := range []struct{ idle, max, want float64 }{
		{100, 100, 0.10}, {86, 117, 0.18}, {166, 265, 0.21}, {81.4, 244, 0.36}, {55, 469, 0.62}, {1, 100, 1},
	} {
		e := newEstimator(t, busyMachine(t, nil, nil), EstimatorConfig{IdleWatts: test.idle, MaxWatts: test.max})
		if math.Abs(e.zone.Uncertainty-test.want) > 0.011 {
			t.Errorf("%v to %v W: ±%v, want ±%v", test.idle, test.max, e.zone.Uncertainty, test.want)
		}
		for _, use := range []float64{0, 1} {
			if got := float64(e.Doubt(use) / e.Power(use)); math.Abs(got-workDoubt) > 1e-9 {
				t.Errorf("%v to %v W at use %v: ±%v", test.idle, test.max, use, got)
			}
		}
	}
}

// The curves' bound is no wider than needed: published curves reach it.
func TestCurvesReachTheBound(t *testing.T) {
	above, below := 0.0, 0.0
	for _, p := range fakehw.Processors() {
		for use := 0.1; use < 0.95; use += 0.1 {
			part := (p.Power(use)-p.Idle())/(p.Max()-p.Idle()) - rise(use)
			allowed := curveDoubt * math.Sqrt(use*(1-use))
			above, below = max(above, part/allowed), max(below, -part/allowed)
		}
	}
	for _, reached := range []float64{above, below} {
		if reached < 0.9 || reached > 1.02 {
			t.Errorf("the curves lie up to %.2f × the bound above and %.2f × below", above, below)
		}
	}
}

// Without any figure, what threads of very different processors are known to use lies
// within the bound. The figures are of whole machines, so that processors use less: Cloud
// Carbon Footprint's coefficients from SPECpower (ccf-coefficients, 2026), W per thread at
// rest and at full use.
func TestAssumedFiguresCoverKnownProcessors(t *testing.T) {
	threads := map[string][2]float64{
		"Sandy Bridge": {2.21, 8.63}, "Ivy Bridge": {1.71, 5.56}, "Haswell": {1.86, 5.60}, "Broadwell": {0.71, 3.69},
		"Skylake": {0.61, 4.10}, "Cascade Lake": {0.69, 4.06}, "Coffee Lake": {1.14, 5.42}, "Ice Lake": {0.77, 3.76},
		"Sapphire Rapids": {1.04, 4.16}, "Emerald Rapids": {0.81, 4.48}, "Granite Rapids": {0.58, 2.53},
		"EPYC 1": {0.85, 2.60}, "EPYC 2": {0.47, 1.69}, "EPYC 3": {0.46, 1.96}, "EPYC 4": {0.74, 2.28},
	}
	loads := schedules(20)
	inside, cases := 0, 0
	for _, load := range loads {
		joules, bound, _ := estimates(t, load, []EstimatorConfig{{}})[0].bounds()
		for name, watts := range threads {
			p := fakehw.Processor{Name: name, Watts: []float64{8 * watts[0], 8 * watts[1]}}
			cases++
			if math.Abs(joules-used(p, load)) <= bound {
				inside++
			}
		}
	}
	if percent := 100 * float64(inside) / float64(cases); percent < 95 {
		t.Errorf("%.1f %% of %d cases are covered", percent, cases)
	}
}
