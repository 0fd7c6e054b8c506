package hardware

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

var update = flag.Bool("update", false, "write the golden files anew")

// machine is a fake one with zones; names by ID.
func machine(t testing.TB, zones ...fakehw.ZoneConfig) (*fakehw.Tree, map[string]*fakehw.Zone) {
	t.Helper()
	tree, err := fakehw.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	made := map[string]*fakehw.Zone{}
	for _, config := range zones {
		zone, err := tree.AddZone(config)
		if err != nil {
			t.Fatal(err)
		}
		made[config.ID] = zone
	}
	return tree, made
}

func openRAPL(t testing.TB, tree *fakehw.Tree) *RAPL {
	t.Helper()
	rapl, err := OpenRAPL(tree.Sys())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rapl.Close() })
	return rapl
}

func zone(id, name string) fakehw.ZoneConfig {
	return fakehw.ZoneConfig{ID: id, Name: name, Range: 262143328850, Start: 1000, Power: fakehw.Constant(10)}
}

// topologies are machines, and what befalls their counters. Each gives a golden file
// of its zones, of two looks half a second apart, and of the total's formula.
var topologies = []struct {
	name  string
	zones []fakehw.ZoneConfig
	// before the agent starts, between the looks, and before the job's end.
	before, during, after func(*fakehw.Tree, map[string]*fakehw.Zone) error
}{
	{name: "client_psys_mmio", zones: []fakehw.ZoneConfig{
		zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "core"), zone("intel-rapl:0:1", "uncore"),
		zone("intel-rapl:0:2", "dram"), zone("intel-rapl:1", "psys"), zone("intel-rapl-mmio:0", "package-0"),
	}},
	{name: "two_sockets_dram", zones: twoSockets},
	{name: "multi_die", zones: []fakehw.ZoneConfig{
		zone("intel-rapl:0", "package-0-die-0"), zone("intel-rapl:0:0", "dram"),
		zone("intel-rapl:1", "package-0-die-1"), zone("intel-rapl:1:0", "dram"),
		zone("intel-rapl:10", "package-1-die-1"), zone("intel-rapl:2", "package-1-die-0"),
	}},
	{name: "amd", zones: []fakehw.ZoneConfig{
		{ID: "intel-rapl:0", Name: "package-0", Range: 65532610987, Power: fakehw.Constant(10)},
		{ID: "intel-rapl:0:0", Name: "core", Range: 65532610987, Power: fakehw.Constant(4)},
	}},
	{name: "dies_and_mmio", zones: []fakehw.ZoneConfig{
		zone("intel-rapl:0", "package-0-die-0"), zone("intel-rapl:1", "package-0-die-1"),
		zone("intel-rapl-mmio:0", "package-0"), zone("intel-rapl-mmio:0:0", "dram"),
	}},
	{name: "virtual_machine"},
	{name: "unknown_maximum", zones: []fakehw.ZoneConfig{{ID: "intel-rapl:0", Name: "package-0", Power: fakehw.Constant(10)}}},
	{name: "unknown_maximum_reset", zones: []fakehw.ZoneConfig{{ID: "intel-rapl:0", Name: "package-0", Start: 1e9, Power: fakehw.Constant(10)}},
		during: func(_ *fakehw.Tree, zones map[string]*fakehw.Zone) error { return zones["intel-rapl:0"].Reset() }},
	{name: "package_twice", zones: []fakehw.ZoneConfig{
		zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "dram"),
		zone("intel-rapl:1", "package-0"), zone("intel-rapl:1:0", "dram"), zone("intel-rapl:1:1", "dram"),
	}},
	{name: "only_mmio", zones: []fakehw.ZoneConfig{
		zone("intel-rapl:0", "psys"), zone("intel-rapl-mmio:0", "package-0"), zone("intel-rapl-mmio:0:0", "dram"),
	}},
	{name: "only_psys", zones: []fakehw.ZoneConfig{zone("intel-rapl:0", "psys")}},
	{name: "broken_zone", zones: twoSockets,
		before: func(_ *fakehw.Tree, zones map[string]*fakehw.Zone) error { return zones["intel-rapl:1"].Break() }},
	{name: "zone_breaks", zones: twoSockets,
		during: func(_ *fakehw.Tree, zones map[string]*fakehw.Zone) error { return zones["intel-rapl:1:0"].Break() }},
	{name: "zone_vanishes", zones: twoSockets,
		during: func(_ *fakehw.Tree, zones map[string]*fakehw.Zone) error { return zones["intel-rapl:1"].Vanish() }},
	{name: "zone_vanishes_and_returns", zones: twoSockets,
		during: func(_ *fakehw.Tree, zones map[string]*fakehw.Zone) error { return zones["intel-rapl:1"].Vanish() },
		after:  func(_ *fakehw.Tree, zones map[string]*fakehw.Zone) error { return zones["intel-rapl:1"].Return() }},
	{name: "driver_removed_and_loaded", zones: twoSockets,
		during: func(tree *fakehw.Tree, _ map[string]*fakehw.Zone) error { return tree.UnloadPowercap() },
		after:  func(tree *fakehw.Tree, _ map[string]*fakehw.Zone) error { return tree.LoadPowercap() }},
	{name: "above_maximum", zones: []fakehw.ZoneConfig{zone("intel-rapl:0", "package-0")},
		during: func(tree *fakehw.Tree, zones map[string]*fakehw.Zone) error {
			return tree.Write(zones["intel-rapl:0"].Path(), "262143328851\n")
		}},
}

var twoSockets = []fakehw.ZoneConfig{
	zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "dram"),
	zone("intel-rapl:1", "package-1"), zone("intel-rapl:1:0", "dram"),
}

func TestEveryTopology(t *testing.T) {
	for _, test := range topologies {
		t.Run(test.name, func(t *testing.T) {
			tree, zones := machine(t, test.zones...)
			befall := func(f func(*fakehw.Tree, map[string]*fakehw.Zone) error) {
				t.Helper()
				if f == nil {
					return
				}
				if err := f(tree, zones); err != nil {
					t.Fatal(err)
				}
			}
			befall(test.before)
			var text strings.Builder
			defer func() {
				anywhere := strings.ReplaceAll(text.String(), tree.Sys(), "/sys")
				golden(t, filepath.Join("testdata", test.name+".golden"), anywhere)
			}()
			rapl, err := OpenRAPL(tree.Sys())
			if err != nil {
				fmt.Fprintln(&text, "no source:", err)
				return
			}
			defer rapl.Close()
			describeZones(t, &text, rapl)
			begin := time.Now()
			rapl.now = func() time.Time { return begin.Add(tree.Now()) }
			ledger := energy.NewLedger()
			look := func(at time.Duration) {
				readings, faults := record(t, ledger, rapl)
				for _, fault := range faults {
					fmt.Fprintf(&text, "at %v: %s: %s\n", at, fault.Zone.Name, fault.Err)
				}
				if len(readings)+len(faults) != len(rapl.Zones()) {
					t.Errorf("at %v: %d readings and %d faults of %d zones", at, len(readings), len(faults), len(rapl.Zones()))
				}
			}
			look(0)
			ledger.Open("job", rapl.now())
			step(t, tree, time.Second/2)
			befall(test.during)
			look(time.Second / 2)
			befall(test.after)
			step(t, tree, time.Second)
			look(time.Second)
			account := ledger.Close("job", rapl.now())
			describeTotal(&text, account.Machine)
		})
	}
}

func describeZones(t testing.TB, text *strings.Builder, sensors PowerSensors) {
	t.Helper()
	names := map[string]bool{}
	for _, z := range sensors.Zones() {
		fmt.Fprintf(text, "%-18s %-18s %-9s counted=%-5t range=%d %s %s update=%v\n",
			z.ID, z.Name, z.Domain, z.Counted, z.Range, z.Source, z.Method, z.UpdateInterval)
		if names[z.Name] {
			t.Errorf("two zones are called %s", z.Name)
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

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func step(t testing.TB, tree *fakehw.Tree, to time.Duration) {
	t.Helper()
	if err := tree.Step(to); err != nil {
		t.Fatal(err)
	}
}

// record hands one look at the sensors to a ledger.
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

// Directories copied without the links, as in a container's bind mount, and links
// that lead nowhere.
func TestZonesWithoutLinks(t *testing.T) {
	tree, _ := machine(t)
	for path, content := range map[string]string{
		"intel-rapl/intel-rapl:0/name":                     "package-0\n",
		"intel-rapl/intel-rapl:0/energy_uj":                "123\n",
		"intel-rapl/intel-rapl:0/max_energy_range_uj":      "garbage\n",
		"intel-rapl/intel-rapl:0/intel-rapl:0:0/name":      "dram\n",
		"intel-rapl/intel-rapl:0/intel-rapl:0:0/energy_uj": "456",
		"dtpm/dtpm:0/name":                                 "not ours\n",
	} {
		if err := tree.Write(tree.Sys("class", "powercap", path), content); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", tree.Sys("class", "powercap", "intel-rapl:7")); err != nil {
		t.Fatal(err)
	}
	readings, faults := openRAPL(t, tree).Read()
	if len(readings) != 2 || len(faults) != 0 || readings[0].Counter != 123 || readings[1].Counter != 456 || readings[0].Zone.Range != 0 {
		t.Errorf("readings %+v, faults %+v", readings, faults)
	}
}

func TestNoRAPL(t *testing.T) {
	empty, _ := machine(t)
	if _, err := OpenRAPL(empty.Sys()); !errors.Is(err, ErrNoRAPL) {
		t.Errorf("a machine with nothing: %v", err)
	}
	if _, err := OpenRAPL(filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrNoRAPL) {
		t.Errorf("no /sys at all: %v", err)
	}
	platform, _ := machine(t, zone("intel-rapl:0", "psys"))
	if _, err := OpenRAPL(platform.Sys()); !errors.Is(err, ErrNoRAPL) {
		t.Errorf("nothing but psys: %v", err)
	}
}

func TestFaultOfOneZoneIsItsOwn(t *testing.T) {
	tree, zones := machine(t, zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "dram"))
	rapl := openRAPL(t, tree)
	dram := zones["intel-rapl:0:0"]
	expect := func(state string, dramReads bool) {
		t.Helper()
		readings, faults := rapl.Read()
		if readings[0].Zone.Name != "package-0" {
			t.Fatalf("%s: package-0 is not read: %+v", state, readings)
		}
		if dramReads != (len(readings) == 2) || dramReads != (len(faults) == 0) {
			t.Fatalf("%s: readings %+v, faults %+v", state, readings, faults)
		}
		if !dramReads && (faults[0].Zone.Name != "dram" || faults[0].Err == "" || faults[0].At.IsZero()) {
			t.Fatalf("%s: %+v", state, faults)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect("at first", true)
	must(dram.Break())
	expect("broken", false)
	expect("still broken", false)
	must(dram.Mend())
	expect("mended", true)
	must(dram.Vanish())
	expect("gone", false)
	expect("still gone", false)
	must(dram.Return())
	expect("back", true)
	for _, garbage := range []string{"", "N/A\n", "-5\n", "1e9\n", "99999999999999999999\n", strings.Repeat("7", 100)} {
		must(tree.Write(dram.Path(), garbage))
		expect(fmt.Sprintf("garbage %q", garbage), false)
	}
	must(tree.Write(dram.Path(), "77\n"))
	expect("after garbage", true)
}

func TestZoneThatIsBrokenFromTheStartDoesNotHideTheOthers(t *testing.T) {
	tree, zones := machine(t, zone("intel-rapl:0", "package-0"), zone("intel-rapl:1", "package-1"))
	if err := zones["intel-rapl:0"].Break(); err != nil {
		t.Fatal(err)
	}
	rapl := openRAPL(t, tree)
	readings, faults := rapl.Read()
	if len(readings) != 1 || len(faults) != 1 || len(rapl.Zones()) != 2 {
		t.Errorf("readings %+v, faults %+v", readings, faults)
	}
	if err := zones["intel-rapl:1"].Break(); err != nil {
		t.Fatal(err)
	}
	var unreadable *UnreadableError
	_, err := OpenRAPL(tree.Sys())
	if !errors.As(err, &unreadable) {
		t.Errorf("nothing that counts can be read: %v", err)
	}
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("not what the kernel said: %v", err)
	}
}

// A driver that is loaded after the agent's start: the new zones are taken in, and
// what each counts for is decided anew.
func TestZonesThatComeLater(t *testing.T) {
	tree, _ := machine(t, zone("intel-rapl-mmio:0", "package-0"))
	rapl := openRAPL(t, tree)
	begin := time.Now()
	var passed time.Duration
	rapl.now = func() time.Time { return begin.Add(passed) }
	counted := func() string {
		readings, faults := rapl.Read()
		if len(faults) > 0 {
			t.Fatalf("%+v", faults)
		}
		var names []string
		for _, r := range readings {
			if r.Zone.Counted {
				names = append(names, r.Zone.ID)
			}
		}
		return strings.Join(names, " + ")
	}
	if got := counted(); got != "intel-rapl-mmio:0" {
		t.Fatalf("at first %s", got)
	}
	for _, config := range []fakehw.ZoneConfig{zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "dram")} {
		if _, err := tree.AddZone(config); err != nil {
			t.Fatal(err)
		}
	}
	passed = lookAgain - 1
	if got := counted(); got != "intel-rapl-mmio:0" {
		t.Errorf("before the minute was over %s", got)
	}
	passed = lookAgain
	if got := counted(); got != "intel-rapl:0 + intel-rapl:0:0" {
		t.Errorf("after it %s", got)
	}
	if got := len(rapl.Zones()); got != 3 {
		t.Errorf("%d zones", got)
	}
}

// A look for more while some are gone must not make what is left the whole.
func TestZonesThatAreGoneAreNotForgotten(t *testing.T) {
	tree, zones := machine(t, zone("intel-rapl:0", "package-0"), zone("intel-rapl:1", "package-0"))
	rapl := openRAPL(t, tree)
	begin := time.Now()
	var passed time.Duration
	rapl.now = func() time.Time { return begin.Add(passed) }
	rapl.Read()
	if err := zones["intel-rapl:0"].Vanish(); err != nil {
		t.Fatal(err)
	}
	for _, config := range []fakehw.ZoneConfig{zone("intel-rapl:2", "package-1"), zone("intel-rapl:3", "package-2")} {
		if _, err := tree.AddZone(config); err != nil {
			t.Fatal(err)
		}
	}
	passed = lookAgain
	readings, faults := rapl.Read()
	if len(readings) != 1 || readings[0].Zone.Counted || len(faults) != 1 || !faults[0].Zone.Counted {
		t.Fatalf("readings %+v, faults %+v", readings, faults)
	}
	if err := zones["intel-rapl:0"].Return(); err != nil {
		t.Fatal(err)
	}
	passed = 2 * lookAgain
	if readings, faults = rapl.Read(); len(readings) != 4 || len(faults) != 0 {
		t.Fatalf("readings %+v, faults %+v", readings, faults)
	}
}

func TestHundredsOfZones(t *testing.T) {
	var configs []fakehw.ZoneConfig
	const packages = 300
	for i := range packages {
		id := fmt.Sprintf("intel-rapl:%d", i)
		configs = append(configs, zone(id, fmt.Sprintf("package-%d", i)), zone(id+":0", "dram"))
	}
	tree, _ := machine(t, configs...)
	rapl := openRAPL(t, tree)
	readings, faults := rapl.Read()
	names := map[string]bool{}
	for _, r := range readings {
		names[r.Zone.Name] = true
		if !r.Zone.Counted {
			t.Errorf("%s does not count", r.Zone.Name)
		}
	}
	if len(readings) != 2*packages || len(names) != len(readings) || len(faults) > 0 {
		t.Errorf("%d readings of %d names, faults %+v", len(readings), len(names), faults)
	}
	if first, last := readings[0].Zone.ID, readings[2*packages-1].Zone.ID; first != "intel-rapl:0" || last != "intel-rapl:299:0" {
		t.Errorf("from %s to %s", first, last)
	}
}

func BenchmarkRAPLRead(b *testing.B) {
	tree, _ := machine(b, topologies[0].zones...)
	rapl := openRAPL(b, tree)
	b.ReportAllocs()
	for b.Loop() {
		if readings, _ := rapl.Read(); len(readings) != 6 {
			b.Fatal(readings)
		}
	}
}
