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

// Ranges of counters as processors have them, in µJ.
const (
	rangeServer = 262_143_328_850
	rangeClient = 65_712_999_613
)

// scenario is a machine of known power and what happens to it. A new one is an entry of
// the lists below.
type scenario struct {
	name  string
	zones []fakehw.ZoneConfig
	adds  []string // IDs of the zones that make up the total

	idle float64 // W of all that adds without work
	// restless is by how much a baseline may be off, in W.
	restless float64
	others   fakehw.Curve // threads used by no job
	// length of the random job; 0: 2 s to 5 s.
	length  time.Duration
	windows int // how often it is played, each time with other edges; 0: many

	faults []mishap
	// asleep is when nothing is read, since the job's start.
	asleep [2]time.Duration
	// lost is what the sensors cannot tell of a window, in J.
	lost func(*run) float64
	// said checks what the meter says of what is missing.
	said func(energy.Account) []string
	// unpromised: the figure's own bound is shown and not judged, as note says.
	unpromised bool
	note       string
}

// mishap befalls the counters at a time after the first job's start.
type mishap struct {
	after time.Duration
	what  func(map[string]*fakehw.Zone) error
}

// counted is the power of the zones that add.
func (s *scenario) counted() fakehw.Curve {
	var curves []fakehw.Curve
	for _, z := range s.zones {
		for _, id := range s.adds {
			if z.ID == id {
				curves = append(curves, z.Power)
			}
		}
	}
	return sum(curves...)
}

// of makes the zones of a machine with one package.
func pkg(power fakehw.Curve) []fakehw.ZoneConfig {
	return []fakehw.ZoneConfig{{ID: "intel-rapl:0", Name: "package-0", Power: power, Range: rangeServer, Start: 77e9}}
}

var (
	onePackage = []string{"intel-rapl:0"}
	bursts     = fakehw.Bursts(15, 280, 50*time.Millisecond, 370*time.Millisecond)
)

// twoSockets have memory beside the packages, cores in them, and two views of the whole
// that must not be added.
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

func dies() []fakehw.ZoneConfig {
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

// shapes are curves and topologies, each measured in windows at random places.
func shapes() []scenario {
	return []scenario{
		{name: "constant 120 W", zones: pkg(fakehw.Constant(120)), adds: onePackage},
		{name: "ramp 10 → 300 W in 6 s", zones: pkg(fakehw.Ramp(10, 300, 6*second)), adds: onePackage},
		{name: "steps 20/250 W", zones: pkg(fakehw.Bursts(20, 250, 700*time.Millisecond, 1300*time.Millisecond)), adds: onePackage},
		{name: "sine 100 ± 80 W, 1.3 s", zones: pkg(fakehw.Sine(100, 80, 1300*time.Millisecond)), adds: onePackage},
		{name: "sine 100 ± 80 W, 90 ms", zones: pkg(fakehw.Sine(100, 80, 90*time.Millisecond)), adds: onePackage},
		{name: "bursts 280 W, 50 of 370 ms", zones: pkg(bursts), adds: onePackage},
		{name: "bursts 280 W, 50 of 1000 ms", zones: pkg(fakehw.Bursts(15, 280, 50*time.Millisecond, second)), adds: onePackage},
		{name: "bursts 280 W, 5 of 100 ms", zones: pkg(fakehw.Bursts(15, 280, 5*time.Millisecond, 100*time.Millisecond)), adds: onePackage, unpromised: true,
			note: "the promise is not judged here: it takes no power for higher than the highest mean between two readings"},
		{name: "a job of 0.15 to 0.3 s", zones: pkg(fakehw.Sine(100, 80, 400*time.Millisecond)), adds: onePackage, length: 150 * time.Millisecond},
		{name: "100 wraps", windows: 1, length: 520 * second, adds: onePackage,
			zones: []fakehw.ZoneConfig{{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Bursts(150, 250, second, 2*second), Range: 1_000_000_000, Start: 990_000_000}},
			note:  "its counter turns round every 5 s, at 200 W"},
		{name: "two sockets, dram", zones: twoSockets(), adds: bothSockets, note: "core, psys and mmio are there and not added"},
		{name: "two sockets of two dies", zones: dies(), adds: allDies, note: "five zones add, four of them wrap in the window or before"},
	}
}

// mishaps are windows in which a counter breaks off.
func mishaps() []scenario {
	return []scenario{
		{name: "reset of a counter", zones: pkg(fakehw.Sine(100, 80, 1300*time.Millisecond)), adds: onePackage, length: 4 * second,
			faults: []mishap{{1730 * time.Millisecond, reset("intel-rapl:0")}},
			lost:   lostAround("intel-rapl:0", 1730*time.Millisecond), said: says(1, 96, 98.9, "")},
		{name: "a zone gone for 1.5 s", zones: twoSockets(), adds: bothSockets, length: 4 * second,
			faults: []mishap{{second, vanish("intel-rapl:1")}, {2500 * time.Millisecond, comeBack("intel-rapl:1")}},
			said:   says(0, 100, 100, ""), note: "its counter went on: nothing is lost"},
		{name: "a zone gone for good", zones: twoSockets(), adds: bothSockets, length: 4 * second,
			faults: []mishap{{second, vanish("intel-rapl:1")}},
			lost:   lostSince(second, "intel-rapl:1", "intel-rapl:1:1"), said: says(2, 10, 52, ""),
			note: "package-1 and its dram are missing from the 2nd second on"},
		{name: "a zone broken from the start", zones: twoSockets(), adds: bothSockets, length: 4 * second,
			faults: []mishap{{-second, broken("intel-rapl:1")}},
			lost:   lostSince(-second, "intel-rapl:1"), said: says(0, 0, 0, "without package-1"),
			note: "package-1 cannot be read in the window at all"},
		{name: "asleep for 2 min", zones: pkg(fakehw.Sine(100, 80, 1300*time.Millisecond)), adds: onePackage, length: 130 * second, windows: 3,
			asleep: [2]time.Duration{3 * second, 123 * second}, lost: lostBetween(3*second, 123*second), said: says(1, 5, 10, ""),
			note: "longer than half a turn at full power: how often the counter turned is not known"},
	}
}

func reset(id string) func(map[string]*fakehw.Zone) error {
	return func(zones map[string]*fakehw.Zone) error { return zones[id].Reset() }
}

func vanish(id string) func(map[string]*fakehw.Zone) error {
	return func(zones map[string]*fakehw.Zone) error { return zones[id].Remove() }
}

func comeBack(id string) func(map[string]*fakehw.Zone) error {
	return func(zones map[string]*fakehw.Zone) error { return zones[id].Restore() }
}

func broken(id string) func(map[string]*fakehw.Zone) error {
	return func(zones map[string]*fakehw.Zone) error { return zones[id].Break() }
}

// lostAround is what a zone used between the readings on both sides of a moment.
func lostAround(id string, after time.Duration) func(*run) float64 {
	return func(r *run) float64 {
		from, to := r.around(r.load.jobs[0].from + after)
		return r.zones[id].Joules(from, to)
	}
}

// lostSince is what zones used from the last reading before a moment to the job's end.
func lostSince(after time.Duration, ids ...string) func(*run) float64 {
	return func(r *run) float64 {
		job := r.load.jobs[0]
		from, _ := r.around(job.from + after)
		lost := 0.0
		for _, id := range ids {
			lost += r.zones[id].Joules(max(from, job.from), job.to)
		}
		return lost
	}
}

// lostBetween is what was used between the readings before and after a length of time.
func lostBetween(from, to time.Duration) func(*run) float64 {
	return func(r *run) float64 {
		start := r.load.jobs[0].from
		before, _ := r.around(start + from)
		_, after := r.around(start + to)
		return r.load.power.Joules(before, after)
	}
}

// says checks gaps, coverage in percent and a part of the method.
func says(gaps int, least, most float64, method string) func(energy.Account) []string {
	return func(a energy.Account) []string {
		var faults []string
		if a.Total.Gaps != gaps {
			faults = append(faults, fmt.Sprintf("it says %d gaps, not %d", a.Total.Gaps, gaps))
		}
		if c := a.Total.CoveragePercent; c < least || c > most {
			faults = append(faults, fmt.Sprintf("it says that %.1f %% is covered, not %g to %g %%", c, least, most))
		}
		if !strings.Contains(a.Total.Method, method) {
			faults = append(faults, fmt.Sprintf("its method %q does not say %q", a.Total.Method, method))
		}
		return faults
	}
}

// measureTotal plays a scenario and gives its worst window.
func measureTotal(s scenario, o *options) (row, error) {
	var worst *row
	windows := o.windows
	if s.windows > 0 {
		windows = min(windows, s.windows)
	}
	for i := range windows {
		rnd := rand.New(rand.NewPCG(o.seed, uint64(i)))
		r, err := perform(&s, []work{s.place(rnd)}, rnd)
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

// place a job at random, its edges between the readings.
func (s *scenario) place(rnd *rand.Rand) work {
	any := func(low, high time.Duration) time.Duration {
		return (low + time.Duration(rnd.Int64N(int64(high-low)))).Truncate(truthStep)
	}
	from := any(second, 2*second)
	length := any(2*second, 5*second)
	if s.length > 0 {
		length = any(s.length, s.length+min(s.length, second))
	}
	return work{from: from, to: from + length, threads: fakehw.Constant(4)}
}

// total compares a job that ran alone.
func (r *run) total(i int) *row {
	a, job := r.accounts[i], r.load.jobs[i]
	row := &row{
		Section: sectionTotals, Scenario: r.scenario.name, True: r.load.power.Joules(job.from, job.to),
		Ours: value(a.Total), Promised: bound(a.Total), Edge: r.edge(job), Relative: 0.001,
	}
	if r.scenario.lost != nil {
		lost := r.scenario.lost(r)
		row.True -= lost
		row.Notes = append(row.Notes, fmt.Sprintf("true J is without the %.1f J that no sensor could tell; the figure says: %d gaps, %.1f %% covered",
			lost, a.Total.Gaps, a.Total.CoveragePercent))
	} else if a.Total.CoveragePercent != 100 || a.Total.Gaps != 0 {
		row.Faults = append(row.Faults, fmt.Sprintf("%d gaps, %.2f %% covered", a.Total.Gaps, a.Total.CoveragePercent))
	}
	if r.scenario.said != nil {
		row.Faults = append(row.Faults, r.scenario.said(a)...)
	}
	row.Unjudged = r.scenario.unpromised
	row.judge()
	return row
}

// edge is power × 2 × (update + read jitter), with the highest power in the window.
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
