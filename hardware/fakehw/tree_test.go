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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newTree(t *testing.T) *Tree {
	t.Helper()
	tree, err := New(t.TempDir())
	must(t, err)
	t.Cleanup(func() { tree.Close() })
	return tree
}

func add(t *testing.T, tree *Tree, config ZoneConfig) *Zone {
	t.Helper()
	zone, err := tree.AddZone(config)
	must(t, err)
	return zone
}

func TestPowercapLayout(t *testing.T) {
	tree := newTree(t)
	add(t, tree, ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Range: 1000})
	add(t, tree, ZoneConfig{ID: "intel-rapl:0:1", Name: "dram"})
	class := tree.Sys("class", "powercap")
	entries, err := os.ReadDir(class)
	must(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
		if entry.Type()&fs.ModeSymlink == 0 {
			t.Errorf("%s is not a link", entry.Name())
		}
	}
	if want := []string{"intel-rapl", "intel-rapl:0", "intel-rapl:0:1"}; !slices.Equal(names, want) {
		t.Errorf("got entries %v, want %v", names, want)
	}
	flat, err := filepath.EvalSymlinks(filepath.Join(class, "intel-rapl:0:1"))
	must(t, err)
	nested, err := filepath.EvalSymlinks(filepath.Join(class, "intel-rapl", "intel-rapl:0", "intel-rapl:0:1"))
	if err != nil || flat != nested {
		t.Errorf("got %s and %s (error %v), want the same directory", flat, nested, err)
	}
	if _, err := os.Stat(filepath.Join(flat, "max_energy_range_uj")); err == nil {
		t.Error("a zone without a range has max_energy_range_uj")
	}
}

func readCounter(t *testing.T, file *os.File) int64 {
	t.Helper()
	buf := make([]byte, 64)
	n, _ := file.ReadAt(buf, 0)
	value, err := strconv.ParseInt(strings.TrimSpace(string(buf[:n])), 10, 64)
	must(t, err)
	return value
}

func TestCounterIsUpdatedInPlaceAndWraps(t *testing.T) {
	tree := newTree(t)
	zone := add(t, tree, ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: Constant(100), Range: 250e6, Start: 200e6})
	file, err := os.Open(zone.Path())
	must(t, err)
	defer file.Close()
	for _, want := range []struct {
		at      time.Duration
		counter int64
	}{{0, 200e6}, {100 * time.Millisecond, 210e6}, {time.Second, 50e6}, {3 * time.Second, 0}} {
		must(t, tree.AdvanceTo(want.at))
		if got := readCounter(t, file); math.Abs(float64(got-want.counter)) > 2 && got < 250e6-2 {
			t.Errorf("at %v: got %d µJ, want %d µJ", want.at, got, want.counter)
		}
	}
	must(t, zone.Reset())
	if got := readCounter(t, file); got != 0 {
		t.Errorf("after a reset: got %d µJ, want 0", got)
	}
	if got := zone.Joules(0, 3*time.Second); math.Abs(got-300) > 1e-6 {
		t.Errorf("got true energy %v J, want 300 J", got)
	}
}

func TestCPUTimes(t *testing.T) {
	tree := newTree(t)
	must(t, tree.SetCPU(CPUConfig{Model: "Fake", Threads: 4, Busy: Constant(0.5), Stolen: Constant(0.25), MemoryTotal: 1 << 30, MemoryAvailable: 1 << 29}))
	must(t, tree.AdvanceTo(10*time.Second))
	text, err := os.ReadFile(tree.Proc("stat"))
	must(t, err)
	var ticks []int
	for _, field := range strings.Fields(strings.SplitN(string(text), "\n", 2)[0])[1:] {
		n, err := strconv.Atoi(field)
		must(t, err)
		ticks = append(ticks, n)
	}
	// 40 s of CPU time: half busy, a quarter stolen, a quarter idle.
	busy, idle, steal := ticks[0]+ticks[2], ticks[3], ticks[7]
	if abs(busy-2000) > 2 || abs(idle-1000) > 2 || abs(steal-1000) > 2 {
		t.Errorf("got ticks %v, want 2000 busy, 1000 idle, 1000 stolen", ticks)
	}
}

func abs(n int) int { return max(n, -n) }
