package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

const second = time.Second

// Counter ranges of real processors, in µJ.
const (
	rangeServer = 262_143_328_850
	rangeClient = 65_712_999_613
)

// scenario is a machine of known power, and faults of its sensors.
type scenario struct {
	name    string
	zones   []fakehw.ZoneConfig
	counted []string // IDs of the zones that make up the total

	idle         float64       // power of the counted zones without work, in W
	idleSwing    float64       // amplitude of the idle power, in W: the error allowed for a baseline
	otherThreads fakehw.Curve  // threads used outside jobs
	length       time.Duration // minimum length of the job; 0: 2 s to 5 s
	windows      int           // upper limit of runs; 0: none

	faults []sensorFault
	// suspended is the period without readings, relative to the job's start.
	suspended [2]time.Duration
	// unmeasured returns the energy in the window that no sensor can report, in J.
	unmeasured func(*run) float64
	// expect returns the errors in the gaps and coverage that the meter reports.
	expect func(energy.Account) []string
	// boundUnchecked: the reported error bound is shown but not checked; note says why.
	boundUnchecked bool
	note           string
}

// sensorFault is injected into the counters at a time after the first job's start.
type sensorFault struct {
	after  time.Duration
	inject func(map[string]*fakehw.Zone) error
}

// countedPower returns the power of the counted zones.
func (s *scenario) countedPower() fakehw.Curve {
	var curves []fakehw.Curve
	for _, z := range s.zones {
		for _, id := range s.counted {
			if z.ID == id {
				curves = append(curves, z.Power)
			}
		}
	}
	return sum(curves...)
}

// packageZone returns the zones of a machine with one package.
func packageZone(power fakehw.Curve) []fakehw.ZoneConfig {
	return []fakehw.ZoneConfig{{ID: "intel-rapl:0", Name: "package-0", Power: power, Range: rangeServer, Start: 77e9}}
}

var (
	onePackage = []string{"intel-rapl:0"}
	bursts     = fakehw.Bursts(15, 280, 50*time.Millisecond, 370*time.Millisecond)
)

// twoSockets returns packages, memory, and zones that overlap them and must not be counted:
// cores, psys and the MMIO duplicate.
func twoSockets() []fakehw.ZoneConfig {
	zone := func(id, name string, power fakehw.Curve) fakehw.ZoneConfig {
		return fakehw.ZoneConfig{ID: id, Name: name, Power: power, Range: rangeServer, Start: 261e9}
	}
	return []fakehw.ZoneConfig{
		zone("intel-rapl:0", "package-0", fakehw.Sine(140, 60, 1700*time.Millisecond)),
		zone("intel-rapl:0:0", "core", fakehw.Sine(90, 60, 1700*time.Millisecond)),
		zone("intel-rapl:0:1", "dram", fakehw.Sine(9, 4, 900*time.Millisecond)),
		zone("intel-rapl:1", "package-1", fakehw.Bursts(60, 180, 400*time.Millisecond, 1100*time.Millisecond)),
		zone("intel-rapl:1:0", "core", fakehw.Constant(70)),
		zone("intel-rapl:1:1", "dram", fakehw.Constant(7)),
		zone("intel-rapl:2", "psys", fakehw.Constant(520)),
		zone("intel-rapl-mmio:0", "package-0", fakehw.Sine(140, 60, 1700*time.Millisecond)),
	}
}

var bothSockets = []string{"intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1", "intel-rapl:1:1"}

func fourDies() []fakehw.ZoneConfig {
	var zones []fakehw.ZoneConfig
	for i, name := range []string{"package-0-die-0", "package-0-die-1", "package-1-die-0", "package-1-die-1"} {
		zones = append(zones, fakehw.ZoneConfig{
			ID: fmt.Sprintf("intel-rapl:%d", i), Name: name, Range: rangeClient, Start: rangeClient - 10e6,
			Power: fakehw.Sine(50+10*float64(i), 20, time.Duration(700+300*i)*time.Millisecond),
		})
	}
	return append(zones, fakehw.ZoneConfig{ID: "intel-rapl:0:0", Name: "dram", Range: rangeClient, Power: fakehw.Constant(6)})
}

var allDies = []string{"intel-rapl:0", "intel-rapl:1", "intel-rapl:2", "intel-rapl:3", "intel-rapl:0:0"}

// curveScenarios vary the power curve and the topology, without faults.
func curveScenarios() []scenario {
	return []scenario{
		{name: "constant 120 W", zones: packageZone(fakehw.Constant(120)), counted: onePackage},
		{name: "ramp 10 → 300 W in 6 s", zones: packageZone(fakehw.Ramp(10, 300, 6*second)), counted: onePackage},
		{name: "steps 20/250 W", zones: packageZone(fakehw.Bursts(20, 250, 700*time.Millisecond, 1300*time.Millisecond)), counted: onePackage},
		{name: "sine 100 ± 80 W, 1.3 s", zones: packageZone(fakehw.Sine(100, 80, 1300*time.Millisecond)), counted: onePackage},
		{name: "sine 100 ± 80 W, 90 ms", zones: packageZone(fakehw.Sine(100, 80, 90*time.Millisecond)), counted: onePackage},
		{name: "bursts 280 W, 50 of 370 ms", zones: packageZone(bursts), counted: onePackage},
		{name: "bursts 280 W, 50 of 1000 ms", zones: packageZone(fakehw.Bursts(15, 280, 50*time.Millisecond, second)), counted: onePackage},
		{name: "bursts 280 W, 5 of 100 ms", zones: packageZone(fakehw.Bursts(15, 280, 5*time.Millisecond, 100*time.Millisecond)), counted: onePackage, boundUnchecked: true,
			note: "the reported bound is not checked: it assumes that power never exceeds the highest mean between two readings"},
		{name: "job of 0.15 to 0.3 s", zones: packageZone(fakehw.Sine(100, 80, 400*time.Millisecond)), counted: onePackage, length: 150 * time.Millisecond},
		{name: "100 wraps", windows: 1, length: 520 * second, counted: onePackage,
			zones: []fakehw.ZoneConfig{{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Bursts(150, 250, second, 2*second), Range: 1_000_000_000, Start: 990_000_000}},
			note:  "the counter wraps every 5 s, at 200 W"},
		{name: "two sockets, dram", zones: twoSockets(), counted: bothSockets, note: "core, psys and mmio exist and are not counted"},
		{name: "two sockets of two dies", zones: fourDies(), counted: allDies, note: "five counted zones; four wrap in the window or before it"},
	}
}

// faultScenarios interrupt a counter in the window.
func faultScenarios() []scenario {
	return []scenario{
		{name: "counter reset", zones: packageZone(fakehw.Sine(100, 80, 1300*time.Millisecond)), counted: onePackage, length: 4 * second,
			faults:     []sensorFault{{1730 * time.Millisecond, resetZone("intel-rapl:0")}},
			unmeasured: unmeasuredAround("intel-rapl:0", 1730*time.Millisecond), expect: expectReport(1, 96, 98.9, "")},
		{name: "zone missing for 1.5 s", zones: twoSockets(), counted: bothSockets, length: 4 * second,
			faults: []sensorFault{{second, removeZone("intel-rapl:1")}, {2500 * time.Millisecond, restoreZone("intel-rapl:1")}},
			expect: expectReport(0, 100, 100, ""), note: "its counter continued, so no energy is lost"},
		{name: "zone removed", zones: twoSockets(), counted: bothSockets, length: 4 * second,
			faults:     []sensorFault{{second, removeZone("intel-rapl:1")}},
			unmeasured: unmeasuredSince(second, "intel-rapl:1", "intel-rapl:1:1"), expect: expectReport(2, 10, 52, ""),
			note: "package-1 and its dram are missing after the first second"},
		{name: "zone unreadable", zones: twoSockets(), counted: bothSockets, length: 4 * second,
			faults:     []sensorFault{{-second, breakZone("intel-rapl:1")}},
			unmeasured: unmeasuredSince(-second, "intel-rapl:1"), expect: expectReport(0, 0, 0, "without package-1"),
			note: "package-1 cannot be read at any time in the window"},
		{name: "suspended for 2 min", zones: packageZone(fakehw.Sine(100, 80, 1300*time.Millisecond)), counted: onePackage, length: 130 * second, windows: 3,
			suspended: [2]time.Duration{3 * second, 123 * second}, unmeasured: unmeasuredBetween(3*second, 123*second), expect: expectReport(1, 5, 10, ""),
			note: "longer than half a wrap at full power: the number of wraps is unknown"},
	}
}

func resetZone(id string) func(map[string]*fakehw.Zone) error {
	return func(zones map[string]*fakehw.Zone) error { return zones[id].Reset() }
}

func removeZone(id string) func(map[string]*fakehw.Zone) error {
	return func(zones map[string]*fakehw.Zone) error { return zones[id].Remove() }
}

func restoreZone(id string) func(map[string]*fakehw.Zone) error {
	return func(zones map[string]*fakehw.Zone) error { return zones[id].Restore() }
}

func breakZone(id string) func(map[string]*fakehw.Zone) error {
	return func(zones map[string]*fakehw.Zone) error { return zones[id].Break() }
}

// unmeasuredAround returns the energy of a zone between the readings before and after a moment.
func unmeasuredAround(id string, after time.Duration) func(*run) float64 {
	return func(r *run) float64 {
		from, to := r.readsAround(r.load.jobs[0].from + after)
		return r.zones[id].Joules(from, to)
	}
}

// unmeasuredSince returns the energy of zones from the last reading before a moment to the
// job's end.
func unmeasuredSince(after time.Duration, ids ...string) func(*run) float64 {
	return func(r *run) float64 {
		job := r.load.jobs[0]
		from, _ := r.readsAround(job.from + after)
		unmeasured := 0.0
		for _, id := range ids {
			unmeasured += r.zones[id].Joules(max(from, job.from), job.to)
		}
		return unmeasured
	}
}

// unmeasuredBetween returns the energy between the readings before and after a period.
func unmeasuredBetween(from, to time.Duration) func(*run) float64 {
	return func(r *run) float64 {
		start := r.load.jobs[0].from
		before, _ := r.readsAround(start + from)
		_, after := r.readsAround(start + to)
		return r.load.power.Joules(before, after)
	}
}

// expectReport checks the number of gaps, the coverage in percent and a part of the method.
func expectReport(gaps int, least, most float64, method string) func(energy.Account) []string {
	return func(a energy.Account) []string {
		var wrong []string
		if a.Total.Gaps != gaps {
			wrong = append(wrong, fmt.Sprintf("reports %d gaps, want %d", a.Total.Gaps, gaps))
		}
		if c := a.Total.CoveragePercent; c < least || c > most {
			wrong = append(wrong, fmt.Sprintf("reports %.1f %% coverage, want %g to %g %%", c, least, most))
		}
		if !strings.Contains(a.Total.Method, method) {
			wrong = append(wrong, fmt.Sprintf("method %q does not contain %q", a.Total.Method, method))
		}
		return wrong
	}
}

// measureTotal runs a scenario with different window edges and returns its worst row.
func measureTotal(s scenario, o *options) (row, error) {
	var worst *row
	windows := o.windows
	if s.windows > 0 {
		windows = min(windows, s.windows)
	}
	for i := range windows {
		rnd := rand.New(rand.NewPCG(o.seed, uint64(i)))
		r, err := simulate(&s, []work{s.placeJob(rnd)}, rnd)
		if err != nil {
			return row{}, fmt.Errorf("%s: %w", s.name, err)
		}
		worst = worse(worst, r.total(0))
	}
	worst.Windows = windows
	if s.note != "" {
		worst.Notes = append(worst.Notes, s.note)
	}
	return *worst, nil
}

// placeJob returns a job with random edges, in general between two readings.
func (s *scenario) placeJob(rnd *rand.Rand) work {
	random := func(low, high time.Duration) time.Duration {
		return (low + time.Duration(rnd.Int64N(int64(high-low)))).Truncate(truthStep)
	}
	from := random(second, 2*second)
	length := random(2*second, 5*second)
	if s.length > 0 {
		length = random(s.length, s.length+min(s.length, second))
	}
	return work{from: from, to: from + length, threads: fakehw.Constant(4)}
}

// total compares the total energy of a job that ran alone.
func (r *run) total(i int) *row {
	a, job := r.accounts[i], r.load.jobs[i]
	row := &row{
		Section: sectionTotals, Scenario: r.scenario.name, True: r.load.power.Joules(job.from, job.to),
		Measured: value(a.Total), Reported: bound(a.Total), Edge: r.edge(job), Relative: 0.001,
	}
	if r.scenario.unmeasured != nil {
		unmeasured := r.scenario.unmeasured(r)
		row.True -= unmeasured
		row.Notes = append(row.Notes, fmt.Sprintf("true J excludes %.1f J that no sensor could report; the meter reports %d gaps, %.1f %% covered",
			unmeasured, a.Total.Gaps, a.Total.CoveragePercent))
	} else if a.Total.CoveragePercent != 100 || a.Total.Gaps != 0 {
		row.Violations = append(row.Violations, fmt.Sprintf("%d gaps, %.2f %% covered", a.Total.Gaps, a.Total.CoveragePercent))
	}
	if r.scenario.expect != nil {
		row.Violations = append(row.Violations, r.scenario.expect(a)...)
	}
	row.ReportedUnchecked = r.scenario.boundUnchecked
	row.check()
	return row
}

// edge returns the error in J allowed for the window's edges; see row.Edge.
func (r *run) edge(job work) float64 {
	const late = counterUpdate + readJitter
	return peak(r.load.power, job.from-late, job.to+late) * 2 * late.Seconds()
}

func value(f energy.Figure) number {
	if f.Energy == nil {
		return number(math.NaN())
	}
	return number(*f.Energy)
}

func bound(f energy.Figure) *float64 {
	if f.ErrorBound == nil {
		return nil
	}
	b := float64(*f.ErrorBound)
	return &b
}
