package energy

import (
	"math"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// at is a moment some seconds after t0.
func at(seconds float64) time.Time { return t0.Add(time.Duration(seconds * 1e9)) }

func TestAccumulatorSteps(t *testing.T) {
	const unknown = 0
	type reading struct {
		at      float64
		counter Microjoules
	}
	tests := []struct {
		name     string
		limit    Microjoules // Range
		power    Watts       // MaxPower
		readings []reading
		total    Microjoules
		gaps     int
		why      string // in the last gap
	}{
		{"the first reading counts nothing", 1000e6, 200, []reading{{0, 500e6}}, 0, 0, ""},
		{"forward", 1000e6, 200, []reading{{0, 500e6}, {1, 600e6}, {2, 650e6}}, 150e6, 0, ""},
		{"standing still", 1000e6, 200, []reading{{0, 5}, {0.1, 5}}, 0, 0, ""},
		{"a wrap", 65536e6, 0, []reading{{0, 65530e6}, {1, 100e6}}, 106e6, 0, ""},
		{"many wraps", 1000e6, 400, []reading{{0, 0}, {1, 300e6}, {2, 600e6}, {3, 900e6}, {4, 200e6}, {5, 500e6}, {6, 800e6}, {7, 100e6}}, 2100e6, 0, ""},
		{"back with no known range", unknown, 0, []reading{{0, 500e6}, {1, 600e6}, {2, 10e6}, {3, 60e6}}, 150e6, 1, "range is not known"},
		{"a reset that is no wrap", 262144e6, 0, []reading{{0, 100000e6}, {1, 10e6}, {2, 60e6}}, 50e6, 1, "jumped"},
		{"an implausible jump", unknown, 300, []reading{{0, 0}, {1, 310e6}, {2, 400e6}}, 90e6, 1, "jumped"},
		{"the highest plausible step", unknown, 300, []reading{{0, 0}, {1, 306e6}}, 306e6, 0, ""},
		{"too long a silence to know the wraps", 1000e6, 100, []reading{{0, 0}, {5.1, 10e6}}, 0, 1, "silent"},
		{"a silence of half a wrap", 1000e6, 100, []reading{{0, 0}, {5, 499e6}}, 499e6, 0, ""},
		{"a long silence of a counter of unknown range", unknown, 0, []reading{{0, 0}, {3600, 360000e6}}, 360000e6, 0, ""},
		{"an older reading is dropped", 1000e6, 200, []reading{{0, 0}, {2, 200e6}, {1, 100e6}, {3, 300e6}}, 300e6, 0, ""},
		{"two readings at one moment", 1000e6, 200, []reading{{0, 0}, {1, 100e6}, {1, 150e6}, {2, 200e6}}, 200e6, 0, ""},
		{"a value beyond the range", 1000e6, 200, []reading{{0, 0}, {1, 100e6}, {2, 1001e6}, {3, 300e6}, {4, 400e6}}, 200e6, 1, "outside"},
		{"a value below zero", unknown, 0, []reading{{0, 100}, {1, -1}, {2, 300}, {3, 350}}, 50, 1, "outside"},
		{"nonsense from the start", 1000e6, 200, []reading{{0, 1001e6}, {1, 5e6}, {2, 10e6}}, 5e6, 0, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			zone := &Zone{ID: "z", Range: test.limit, MaxPower: test.power}
			var a Accumulator
			var sum Microjoules
			why := ""
			for _, r := range test.readings {
				step := a.Add(Reading{Zone: zone, At: at(r.at), Counter: r.counter})
				sum += step.Energy
				if step.Kind == Gap {
					why = step.Why
				}
			}
			if a.Total() != test.total || a.Gaps() != test.gaps {
				t.Errorf("got %d µJ with %d gaps, want %d with %d", a.Total(), a.Gaps(), test.total, test.gaps)
			}
			if sum != a.Total() {
				t.Errorf("steps add up to %d, total is %d", sum, a.Total())
			}
			if !strings.Contains(why, test.why) || (why == "") != (test.why == "") {
				t.Errorf("reason of the gap %q, want %q", why, test.why)
			}
		})
	}
}

// A suspend stops the clock that readings are stamped by: a step that looks like any other
// may be of hours.
func TestAccumulatorSuspend(t *testing.T) {
	for _, test := range []struct {
		slept time.Duration
		gaps  int
	}{{0, 0}, {sleepGrain, 0}, {-time.Second, 0}, {time.Second, 1}} {
		zone := &Zone{ID: "z", Range: 262144e6}
		var a Accumulator
		a.Add(Reading{Zone: zone, At: at(0), Counter: 5e6, Asleep: time.Hour})
		step := a.Add(Reading{Zone: zone, At: at(0.1), Counter: 15e6, Asleep: time.Hour + test.slept})
		a.Add(Reading{Zone: zone, At: at(0.2), Counter: 25e6, Asleep: time.Hour + test.slept})
		if a.Gaps() != test.gaps || a.Total() != Microjoules(20e6-10e6*test.gaps) || strings.Contains(step.Why, "suspended for 1s") != (test.gaps > 0) {
			t.Errorf("after %v asleep: %d µJ, %d gaps, %+v", test.slept, a.Total(), a.Gaps(), step)
		}
	}
}

func TestAccumulatorDefaultMaxPower(t *testing.T) {
	zone := &Zone{ID: "z"}
	for _, test := range []struct {
		power Watts
		gaps  int
	}{{1500, 0}, {2500, 1}} {
		var a Accumulator
		a.Add(Reading{Zone: zone, At: at(0), Counter: 0})
		a.Add(Reading{Zone: zone, At: at(1), Counter: Joules(test.power).Microjoules()})
		if a.Gaps() != test.gaps {
			t.Errorf("%v W of a zone that names no limit: %d gaps, want %d", test.power, a.Gaps(), test.gaps)
		}
	}
}

// Whatever a counter says, no step is negative, none is above what the zone can
// use, and the steps add up to the total.
func FuzzAccumulator(f *testing.F) {
	f.Add(int64(1000), int64(0), int64(10), int64(1e9), int64(5), int64(1e9))
	f.Add(int64(0), int64(500), int64(400), int64(1e8), int64(900), int64(1e8))
	f.Add(int64(65536e6), int64(65530e6), int64(5), int64(1e9), int64(math.MaxInt64), int64(-1))
	f.Fuzz(func(t *testing.T, limit, first, second, wait1, third, wait2 int64) {
		zone := &Zone{ID: "z", Range: Microjoules(limit), MaxPower: 300, Update: time.Millisecond}
		var a Accumulator
		now := t0
		var sum Microjoules
		for _, r := range []struct{ counter, wait int64 }{{first, 0}, {second, wait1}, {third, wait2}} {
			now = now.Add(time.Duration(r.wait))
			step := a.Add(Reading{Zone: zone, At: now, Counter: Microjoules(r.counter)})
			sum += step.Energy
			if step.Energy < 0 || (step.Kind != Counted && step.Energy != 0) {
				t.Fatalf("step %+v", step)
			}
			length := step.To.Sub(step.From)
			if step.Kind != NoStep && length <= 0 {
				t.Fatalf("a step of no length: %+v", step)
			}
			if most := 300e6 * (length + zone.Update + jitter).Seconds(); float64(step.Energy) > most*1.0001 {
				t.Fatalf("%d µJ in %v is above %v W", step.Energy, length, zone.MaxPower)
			}
		}
		if sum != a.Total() {
			t.Fatalf("steps add up to %d, total is %d", sum, a.Total())
		}
	})
}
