package fakehw

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func newTree(t *testing.T) *Tree {
	t.Helper()
	tree, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func add(t *testing.T, tree *Tree, config ZoneConfig) *Zone {
	t.Helper()
	zone, err := tree.AddZone(config)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// The integrals against those of the formulas, by hand.
func TestIntegralsOfCurves(t *testing.T) {
	const second = time.Second
	tests := []struct {
		name     string
		curve    Curve
		from, to time.Duration
		want     float64
	}{
		{"constant", Constant(80), second, 3 * second, 160},
		{"ramp", Ramp(0, 100, 10*second), 0, 10 * second, 500},
		{"after the ramp", Ramp(0, 100, 10*second), 20 * second, 21 * second, 100},
		{"a whole sine", Sine(100, 50, 2*second), 0, 2 * second, 200},
		{"half a sine", Sine(100, 50, 2*second), 0, second, 100 + 100/math.Pi},
		{"bursts", Bursts(10, 110, 50*time.Millisecond, 200*time.Millisecond), 0, 2 * second, 20 + 50},
		{"part of a burst", Bursts(0, 100, 50*time.Millisecond, 200*time.Millisecond), 25050 * time.Microsecond, 40 * time.Millisecond, 1.495},
		{"nothing", Constant(80), second, second, 0},
	}
	for _, test := range tests {
		if got := test.curve.Joules(test.from, test.to); math.Abs(got-test.want) > 1e-6 {
			t.Errorf("%s: %v J, want %v J", test.name, got, test.want)
		}
	}
}

func TestNeighbouringIntegralsAddUp(t *testing.T) {
	curve := Sine(100, 90, 777*time.Millisecond)
	whole, sum := curve.Joules(0, time.Second), 0.0
	for at := time.Duration(0); at < time.Second; at += 12345678 {
		sum += curve.Joules(at, min(time.Second, at+12345678))
	}
	if math.Abs(whole-sum) > 1e-6 {
		t.Errorf("%v J in parts, %v J at once", sum, whole)
	}
}

func TestTreeIsLaidOutAsLinuxDoes(t *testing.T) {
	tree := newTree(t)
	add(t, tree, ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Range: 1000})
	add(t, tree, ZoneConfig{ID: "intel-rapl:0:1", Name: "dram"})
	class := tree.Sys("class", "powercap")
	entries, err := os.ReadDir(class)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
		if entry.Type()&fs.ModeSymlink == 0 {
			t.Errorf("%s is no link", entry.Name())
		}
	}
	if want := []string{"intel-rapl", "intel-rapl:0", "intel-rapl:0:1"}; !slices.Equal(names, want) {
		t.Errorf("entries %v, want %v", names, want)
	}
	flat, err := filepath.EvalSymlinks(filepath.Join(class, "intel-rapl:0:1"))
	if err != nil {
		t.Fatal(err)
	}
	nested, err := filepath.EvalSymlinks(filepath.Join(class, "intel-rapl", "intel-rapl:0", "intel-rapl:0:1"))
	if err != nil || flat != nested {
		t.Errorf("%s and %s (%v)", flat, nested, err)
	}
	if _, err := os.Stat(filepath.Join(flat, "max_energy_range_uj")); err == nil {
		t.Error("a maximum that is not known is there")
	}
}

func readCounter(t *testing.T, file *os.File) int64 {
	t.Helper()
	buf := make([]byte, 64)
	n, _ := file.ReadAt(buf, 0)
	value, err := strconv.ParseInt(strings.TrimSpace(string(buf[:n])), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestCounterIsRenewedInPlaceAndWraps(t *testing.T) {
	tree := newTree(t)
	zone := add(t, tree, ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: Constant(100), Range: 250e6, Start: 200e6})
	file, err := os.Open(zone.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, want := range []struct {
		at      time.Duration
		counter int64
	}{{0, 200e6}, {100 * time.Millisecond, 210e6}, {time.Second, 50e6}, {3 * time.Second, 0}} {
		if err := tree.Step(want.at); err != nil {
			t.Fatal(err)
		}
		if got := readCounter(t, file); math.Abs(float64(got-want.counter)) > 2 && got < 250e6-2 {
			t.Errorf("at %v: %d, want %d", want.at, got, want.counter)
		}
	}
	if err := zone.Reset(); err != nil {
		t.Fatal(err)
	}
	if got := readCounter(t, file); got != 0 {
		t.Errorf("after a reset: %d", got)
	}
	if got := zone.Joules(0, 3*time.Second); math.Abs(got-300) > 1e-6 {
		t.Errorf("truth %v J", got)
	}
}

func TestProcessorUse(t *testing.T) {
	tree := newTree(t)
	err := tree.SetCPU(CPUConfig{Model: "Fake", Threads: 4, Busy: Constant(0.5), Stolen: Constant(0.25), MemoryTotal: 1 << 30, MemoryAvailable: 1 << 29})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Step(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(tree.Proc("stat"))
	if err != nil {
		t.Fatal(err)
	}
	var ticks []int
	for _, field := range strings.Fields(strings.SplitN(string(text), "\n", 2)[0])[1:] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks = append(ticks, n)
	}
	// 40 thread seconds: half busy, a quarter stolen, a quarter idle.
	busy, idle, steal := ticks[0]+ticks[2], ticks[3], ticks[7]
	if abs(busy-2000) > 2 || abs(idle-1000) > 2 || abs(steal-1000) > 2 {
		t.Errorf("%v", ticks)
	}
}

func abs(n int) int { return max(n, -n) }
