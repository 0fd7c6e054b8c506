package energy

import (
	"math"
	"testing"
	"time"
)

func TestAccumulator(t *testing.T) {
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
	}{
		{"first reading", 1000e6, 200, []reading{{0, 500e6}}, 0, 0},
		{"forward", 1000e6, 200, []reading{{0, 500e6}, {1, 600e6}, {2, 650e6}}, 150e6, 0},
		{"no change", 1000e6, 200, []reading{{0, 5}, {0.1, 5}}, 0, 0},
		{"to the end of the range", 1000e6, 2000, []reading{{0, 600e6}, {0.2, 1000e6}, {0.3, 100e6}}, 500e6, 0},
		{"a wrap", 65536e6, 0, []reading{{0, 65530e6}, {1, 100e6}}, 106e6, 0},
		{"many wraps", 1000e6, 400, []reading{{0, 0}, {1, 300e6}, {2, 600e6}, {3, 900e6}, {4, 200e6}, {5, 500e6}, {6, 800e6}, {7, 100e6}}, 2100e6, 0},
		{"back with unknown range", unknown, 0, []reading{{0, 500e6}, {1, 600e6}, {2, 10e6}, {3, 60e6}}, 150e6, 1},
		{"a reset is no wrap", 262144e6, 0, []reading{{0, 100000e6}, {1, 10e6}, {2, 60e6}}, 50e6, 1},
		{"an implausible jump", unknown, 300, []reading{{0, 0}, {1, 310e6}, {2, 400e6}}, 90e6, 1},
		{"the largest plausible delta", unknown, 300, []reading{{0, 0}, {1, 306.3e6}}, 306.3e6, 0},
		{"just above it", unknown, 300, []reading{{0, 0}, {1, 306.3e6 + 1}}, 0, 1},
		{"silent for more than half a wrap", 1000e6, 100, []reading{{0, 0}, {5.1, 10e6}}, 0, 1},
		{"silent for half a wrap", 1000e6, 100, []reading{{0, 0}, {5, 499e6}}, 499e6, 0},
		{"silent for long with unknown range", unknown, 0, []reading{{0, 0}, {3600, 360000e6}}, 360000e6, 0},
		{"an older reading is dropped", 1000e6, 200, []reading{{0, 0}, {2, 200e6}, {1, 100e6}, {3, 300e6}}, 300e6, 0},
		{"two readings at one moment", 1000e6, 200, []reading{{0, 0}, {1, 100e6}, {1, 150e6}, {2, 200e6}}, 200e6, 0},
		{"above the range", 1000e6, 200, []reading{{0, 0}, {1, 100e6}, {2, 1001e6}, {3, 300e6}, {4, 400e6}}, 200e6, 1},
		{"above the range at one moment", 1000e6, 200, []reading{{0, 0}, {1, 100e6}, {1, 1001e6}, {2, 200e6}}, 200e6, 0},
		{"below zero", unknown, 0, []reading{{0, 100}, {1, -1}, {2, 300}, {3, 350}}, 50, 1},
		{"plausible but above the range", 1000e6, 200, []reading{{0, 990e6}, {0.1, 1001e6}, {0.2, 5e6}}, 0, 1},
		{"above a range of 1", 1, 5e-7, []reading{{0, 0}, {0.1, 2}}, 0, 1},
		{"silent with a range of 3", 3, 1000, []reading{{0, 0}, {1, 1}}, 0, 1},
		{"a nanosecond later", unknown, 0, []reading{{0, 0}, {1e-9, 5}}, 5, 0},
		{"out of range twice", 1000e6, 200, []reading{{0, 0}, {1, 1001e6}, {2, 1001e6}, {3, 5e6}}, 0, 1},
		{"out of range from the start", 1000e6, 200, []reading{{0, 1001e6}, {1, 5e6}, {2, 10e6}}, 5e6, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			zone := &Zone{ID: "z", Range: test.limit, MaxPower: test.power, UpdateInterval: time.Millisecond}
			var a Accumulator
			var sum Microjoules
			gaps := 0
			for _, r := range test.readings {
				delta := a.Add(Reading{Zone: zone, At: at(r.at), Counter: r.counter})
				sum += delta.Energy
				if delta.Gap {
					gaps++
				}
				if want := delta != (Delta{}) && !delta.Gap; delta.Known() != want {
					t.Errorf("delta %+v: got known %v, want %v", delta, delta.Known(), want)
				}
			}
			if a.Total() != test.total || a.Gaps() != test.gaps {
				t.Errorf("got %d µJ with %d gaps, want %d with %d", a.Total(), a.Gaps(), test.total, test.gaps)
			}
			if sum != a.Total() || gaps != a.Gaps() {
				t.Errorf("deltas: %d µJ with %d gaps, total: %d with %d", sum, gaps, a.Total(), a.Gaps())
			}
		})
	}
}

func TestTotalNeverOverflows(t *testing.T) {
	zone := &Zone{ID: "z", MaxPower: math.MaxInt64}
	var a Accumulator
	a.Add(Reading{Zone: zone, At: at(0)})
	a.Add(Reading{Zone: zone, At: at(1), Counter: math.MaxInt64 - 2})
	a.Add(Reading{Zone: zone, At: at(2), Counter: 0}) // a reset
	a.Add(Reading{Zone: zone, At: at(3), Counter: 2})
	if a.Total() != math.MaxInt64 || a.Gaps() != 1 {
		t.Errorf("got %d µJ with %d gaps, want %d with 1", a.Total(), a.Gaps(), int64(math.MaxInt64))
	}
	a.Add(Reading{Zone: zone, At: at(4), Counter: 3})
	if a.Total() != math.MaxInt64 || a.Gaps() != 2 {
		t.Errorf("got %d µJ with %d gaps, want %d with 2", a.Total(), a.Gaps(), int64(math.MaxInt64))
	}
}

// The clock of the time stamps stops during a suspend: a delta that looks plausible may be that
// of hours.
func TestSuspendIsAGap(t *testing.T) {
	for _, test := range []struct {
		suspended time.Duration
		gaps      int
	}{{0, 0}, {suspendTolerance, 0}, {-time.Second, 0}, {time.Second, 1}} {
		zone := &Zone{ID: "z", Range: 262144e6}
		var a Accumulator
		a.Add(Reading{Zone: zone, At: at(0), Counter: 5e6, Suspended: time.Hour})
		delta := a.Add(Reading{Zone: zone, At: at(0.1), Counter: 15e6, Suspended: time.Hour + test.suspended})
		a.Add(Reading{Zone: zone, At: at(0.2), Counter: 25e6, Suspended: time.Hour + test.suspended})
		if want := Microjoules(20e6 - 10e6*test.gaps); a.Gaps() != test.gaps || a.Total() != want || delta.Gap != (test.gaps > 0) {
			t.Errorf("suspended for %v: got %d µJ with %d gaps, delta %+v; want %d with %d", test.suspended, a.Total(), a.Gaps(), delta, want, test.gaps)
		}
	}
}

func TestDefaultMaxPower(t *testing.T) {
	zone := &Zone{ID: "z"}
	for _, test := range []struct {
		power Watts
		gaps  int
	}{{1500, 0}, {2500, 1}} {
		var a Accumulator
		a.Add(Reading{Zone: zone, At: at(0), Counter: 0})
		a.Add(Reading{Zone: zone, At: at(1), Counter: Joules(test.power).Microjoules()})
		if a.Gaps() != test.gaps {
			t.Errorf("%v W in a zone without a limit: got %d gaps, want %d", test.power, a.Gaps(), test.gaps)
		}
	}
}

func TestMaxIntervalIsAQuarterOfAWrap(t *testing.T) {
	for _, test := range []struct {
		zone Zone
		want time.Duration
	}{
		{Zone{Range: 262144e6, MaxPower: 1000}, 65536 * time.Millisecond},
		{Zone{Range: 262144e6}, 32768 * time.Millisecond},
		{Zone{Range: 1, MaxPower: 1000}, 0}, // less than a nanosecond
		{Zone{MaxPower: 1000}, 0},
		{Zone{Range: -1e9, MaxPower: 1000}, 0},
		{Zone{Range: 1e6, MaxPower: 0.5}, 500 * time.Millisecond},
		{Zone{Range: math.MaxInt64, MaxPower: 2000}, math.MaxInt64 / 8},
		{Zone{Range: math.MaxInt64, MaxPower: 1100}, math.MaxInt64 / 4400 * 1000},
		{Zone{Range: math.MaxInt64, MaxPower: 950}, 0}, // longer than a Duration holds
	} {
		if got := test.zone.MaxInterval(); (got - test.want).Abs() > test.want/1e6 {
			t.Errorf("%+v: got %v, want %v", test.zone, got, test.want)
		}
	}
}

// For any counter values, no delta is negative or above MaxPower, and the deltas add up to the
// total.
func FuzzAccumulator(f *testing.F) {
	for _, seed := range [][6]int64{
		{1000, 0, 10, 1e9, 5, 1e9},
		{0, 500, 400, 1e8, 900, 1e8},
		{65536e6, 65530e6, 5, 1e9, math.MaxInt64, -1},
		{977, 0, 85, 1e9, -20, 1e9},
		{65536e6, 65530e6, -83, 1e9, math.MaxInt64, -1},
		{0, 313, 400, 1e8, 900, 1e8},
		{97, 500, 343, 1e8, 947, 1e8},
		{977, -82, 181, 1e9, -101, 1e9},
		{65536e6, 65530e6, 36, 1e9, math.MaxInt64, 29},
		{1000, 27, -22, 1000000022, 5, 1e9},
		{977, -82, 164, 999999902, 32, 1e9},
		{977, 0, 85, 1e9, -101, 1e9},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4], seed[5])
	}
	f.Fuzz(func(t *testing.T, limit, first, second, wait1, third, wait2 int64) {
		zone := &Zone{ID: "z", Range: Microjoules(limit), MaxPower: 300, UpdateInterval: time.Millisecond}
		var a Accumulator
		now := t0
		var sum Microjoules
		for _, r := range []struct{ counter, wait int64 }{{first, 0}, {second, wait1}, {third, wait2}} {
			now = now.Add(time.Duration(r.wait))
			delta := a.Add(Reading{Zone: zone, At: now, Counter: Microjoules(r.counter)})
			sum += delta.Energy
			if delta.Energy < 0 || (!delta.Known() && delta.Energy != 0) {
				t.Fatalf("got delta %+v", delta)
			}
			if delta.Elapsed < 0 || (delta.Gap && delta.Elapsed == 0) {
				t.Fatalf("got a delta without a length: %+v", delta)
			}
			if most := 300e6 * (delta.Elapsed + zone.UpdateInterval + timestampJitter).Seconds(); float64(delta.Energy) > most*1.0001 {
				t.Fatalf("got %d µJ in %v, above %v W", delta.Energy, delta.Elapsed, zone.MaxPower)
			}
		}
		if sum != a.Total() {
			t.Fatalf("deltas add up to %d, total is %d", sum, a.Total())
		}
	})
}
