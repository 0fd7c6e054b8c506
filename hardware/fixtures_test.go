package hardware

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newTree returns a fake machine with RAPL zones, and its zones by ID.
func newTree(t testing.TB, zones ...fakehw.ZoneConfig) (*fakehw.Tree, map[string]*fakehw.Zone) {
	t.Helper()
	tree, err := fakehw.New(t.TempDir())
	must(t, err)
	t.Cleanup(func() { tree.Close() })
	byID := map[string]*fakehw.Zone{}
	for _, config := range zones {
		byID[config.ID], err = tree.AddZone(config)
		must(t, err)
	}
	return tree, byID
}

// newCPUTree returns a fake machine with 8 threads, whose utilization is busy.
func newCPUTree(t testing.TB, busy, stolen fakehw.Curve) *fakehw.Tree {
	t.Helper()
	tree, _ := newTree(t)
	must(t, tree.SetCPU(fakehw.CPUConfig{
		Model: "Fake  CPU @ 3.00GHz", Threads: 8, Busy: busy, Stolen: stolen,
		MemoryTotal: 16 << 30, MemoryAvailable: 5 << 30,
	}))
	return tree
}

// zone has a constant power of 10 W.
func zone(id, name string) fakehw.ZoneConfig {
	return fakehw.ZoneConfig{ID: id, Name: name, Range: 262143328850, Start: 1000, Power: fakehw.Constant(10)}
}

// writeSysfs writes files below the fake sysfs.
func writeSysfs(t testing.TB, tree *fakehw.Tree, files map[string]string) {
	t.Helper()
	for path, content := range files {
		must(t, tree.Write(tree.Sys(path), content+"\n"))
	}
}

// advance moves the tree's time to a time since its start.
func advance(t testing.TB, tree *fakehw.Tree, to time.Duration) {
	t.Helper()
	must(t, tree.AdvanceTo(to))
}

// treeClock returns a clock that follows the tree's time.
func treeClock(tree *fakehw.Tree) func() time.Time {
	begin := time.Now()
	return func() time.Time { return begin.Add(tree.Now()) }
}

// record reads the sensors into a ledger.
func record(t testing.TB, ledger *energy.Ledger, sensors PowerSensors) ([]energy.Reading, []energy.Fault) {
	t.Helper()
	readings, faults := sensors.Read()
	s := energy.Sample{Sampler: sensors.Name(), Readings: readings, Faults: faults}
	switch {
	case len(readings) > 0:
		s.At = readings[0].At
	case len(faults) > 0:
		s.At = faults[0].At
	}
	ledger.Record(s)
	return readings, faults
}

// describeZones writes the zones for a golden file. Their names must be unique.
func describeZones(t testing.TB, text *strings.Builder, sensors PowerSensors) {
	t.Helper()
	names := map[string]bool{}
	for _, z := range sensors.Zones() {
		fmt.Fprintf(text, "%-18s %-18s %-9s counted=%-5t range=%d %s %s update=%v\n",
			z.ID, z.Name, z.Domain, z.Counted, z.Range, z.Source, z.Method, z.UpdateInterval)
		if names[z.Name] {
			t.Errorf("two zones have the name %s", z.Name)
		}
		names[z.Name] = true
	}
}

func describeTotal(text *strings.Builder, total energy.Figure) {
	fmt.Fprintln(text, "total =", total.Method)
	if total.Energy == nil {
		fmt.Fprintln(text, total.Source)
		return
	}
	fmt.Fprintf(text, "%.6f J %s, coverage %g %%, gaps %d\n", *total.Energy, total.Source, total.CoveragePercent, total.Gaps)
}

// golden compares a text with testdata/<name>.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		must(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}
