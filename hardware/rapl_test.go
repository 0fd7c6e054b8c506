package hardware

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

func openRAPL(t testing.TB, tree *fakehw.Tree) *RAPL {
	t.Helper()
	rapl, err := OpenRAPL(tree.Sys())
	must(t, err)
	t.Cleanup(func() { rapl.Close() })
	return rapl
}

type treeChange func(*fakehw.Tree, map[string]*fakehw.Zone) error

// topologies are machines and what happens to their counters. Each has a golden file with its
// zones, the faults of its reads half a second apart, and the total.
var topologies = []struct {
	name  string
	zones []fakehw.ZoneConfig
	// before OpenRAPL, before the read at 0.5 s, and before the read at 1 s.
	before, during, after treeChange
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
	{name: "zone_removed", zones: twoSockets,
		during: func(_ *fakehw.Tree, zones map[string]*fakehw.Zone) error { return zones["intel-rapl:1"].Remove() }},
	{name: "zone_removed_and_restored", zones: twoSockets,
		during: func(_ *fakehw.Tree, zones map[string]*fakehw.Zone) error { return zones["intel-rapl:1"].Remove() },
		after:  func(_ *fakehw.Tree, zones map[string]*fakehw.Zone) error { return zones["intel-rapl:1"].Restore() }},
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

func TestRAPLTopologies(t *testing.T) {
	for _, test := range topologies {
		t.Run(test.name, func(t *testing.T) {
			tree, zones := newTree(t, test.zones...)
			apply := func(change treeChange) {
				t.Helper()
				if change != nil {
					must(t, change(tree, zones))
				}
			}
			apply(test.before)
			var text strings.Builder
			defer func() { golden(t, test.name, strings.ReplaceAll(text.String(), tree.Sys(), "/sys")) }()
			rapl, err := OpenRAPL(tree.Sys())
			if err != nil {
				fmt.Fprintln(&text, "no source:", err)
				return
			}
			defer rapl.Close()
			describeZones(t, &text, rapl)
			rapl.now = treeClock(tree)
			ledger := energy.NewLedger()
			read := func(at time.Duration) {
				readings, faults := record(t, ledger, rapl)
				for _, fault := range faults {
					fmt.Fprintf(&text, "at %v: %s: %s\n", at, fault.Zone.Name, fault.Err)
				}
				if len(readings)+len(faults) != len(rapl.Zones()) {
					t.Errorf("at %v: got %d readings and %d faults of %d zones", at, len(readings), len(faults), len(rapl.Zones()))
				}
			}
			read(0)
			ledger.Open("job", rapl.now())
			advance(t, tree, time.Second/2)
			apply(test.during)
			read(time.Second / 2)
			apply(test.after)
			advance(t, tree, time.Second)
			read(time.Second)
			describeTotal(&text, ledger.Close("job", rapl.now()).Machine)
		})
	}
}

// A bind mount into a container may copy the directories without the links.
func TestRAPLZonesWithoutLinks(t *testing.T) {
	tree, _ := newTree(t)
	writeSysfs(t, tree, map[string]string{
		"class/powercap/intel-rapl/intel-rapl:0/name":                     "package-0",
		"class/powercap/intel-rapl/intel-rapl:0/energy_uj":                "123",
		"class/powercap/intel-rapl/intel-rapl:0/max_energy_range_uj":      "garbage",
		"class/powercap/intel-rapl/intel-rapl:0/intel-rapl:0:0/name":      "dram",
		"class/powercap/intel-rapl/intel-rapl:0/intel-rapl:0:0/energy_uj": "456",
		"class/powercap/dtpm/dtpm:0/name":                                 "another control type",
	})
	must(t, os.Symlink("nowhere", tree.Sys("class", "powercap", "intel-rapl:7")))
	readings, faults := openRAPL(t, tree).Read()
	if len(readings) != 2 || len(faults) != 0 || readings[0].Counter != 123 || readings[1].Counter != 456 || readings[0].Zone.Range != 0 {
		t.Errorf("got readings %+v and faults %+v, want 123 and 456 µJ without a range", readings, faults)
	}
}

func TestOpenRAPLWithoutCounters(t *testing.T) {
	empty, _ := newTree(t)
	platform, _ := newTree(t, zone("intel-rapl:0", "psys"))
	for name, sysfs := range map[string]string{
		"no zones": empty.Sys(), "no sysfs": filepath.Join(t.TempDir(), "none"), "psys only": platform.Sys(),
	} {
		if _, err := OpenRAPL(sysfs); !errors.Is(err, ErrNoRAPL) {
			t.Errorf("%s: got error %v, want ErrNoRAPL", name, err)
		}
	}
}

func TestFaultOfOneZoneLeavesTheOthers(t *testing.T) {
	tree, zones := newTree(t, zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "dram"))
	rapl := openRAPL(t, tree)
	dram := zones["intel-rapl:0:0"]
	expect := func(state string, readable bool) {
		t.Helper()
		readings, faults := rapl.Read()
		if readings[0].Zone.Name != "package-0" {
			t.Fatalf("%s: got readings %+v, want package-0 first", state, readings)
		}
		if readable != (len(readings) == 2) || readable != (len(faults) == 0) {
			t.Fatalf("%s: got readings %+v and faults %+v, want dram readable: %v", state, readings, faults, readable)
		}
		if !readable && (faults[0].Zone.Name != "dram" || faults[0].Err == "" || faults[0].At.IsZero()) {
			t.Fatalf("%s: got fault %+v, want one of dram", state, faults)
		}
	}
	expect("at first", true)
	must(t, dram.Break())
	expect("broken", false)
	expect("still broken", false)
	must(t, dram.Repair())
	expect("mended", true)
	must(t, dram.Remove())
	expect("removed", false)
	expect("still removed", false)
	must(t, dram.Restore())
	expect("restored", true)
	for _, garbage := range []string{"", "N/A\n", "-5\n", "1e9\n", "99999999999999999999\n", strings.Repeat("7", 100)} {
		must(t, tree.Write(dram.Path(), garbage))
		expect(fmt.Sprintf("garbage %q", garbage), false)
	}
	must(t, tree.Write(dram.Path(), "77\n"))
	expect("after garbage", true)
}

func TestOpenRAPLWithBrokenZones(t *testing.T) {
	tree, zones := newTree(t, zone("intel-rapl:0", "package-0"), zone("intel-rapl:1", "package-1"))
	must(t, zones["intel-rapl:0"].Break())
	rapl := openRAPL(t, tree)
	readings, faults := rapl.Read()
	if len(readings) != 1 || len(faults) != 1 || len(rapl.Zones()) != 2 {
		t.Errorf("got readings %+v and faults %+v, want one of each", readings, faults)
	}
	must(t, zones["intel-rapl:1"].Break())
	var unreadable *UnreadableError
	if _, err := OpenRAPL(tree.Sys()); !errors.As(err, &unreadable) || !errors.Is(err, syscall.EIO) {
		t.Errorf("with both zones broken: got error %v, want an UnreadableError with EIO", err)
	}
}

func TestRescanAddsZonesOfALaterDriver(t *testing.T) {
	tree, _ := newTree(t, zone("intel-rapl-mmio:0", "package-0"))
	rapl := openRAPL(t, tree)
	begin := time.Now()
	var elapsed time.Duration
	rapl.now = func() time.Time { return begin.Add(elapsed) }
	expectCounted := func(want ...string) {
		t.Helper()
		readings, faults := rapl.Read()
		var got []string
		for _, r := range readings {
			if r.Zone.Counted {
				got = append(got, r.Zone.ID)
			}
		}
		if !slices.Equal(got, want) || len(faults) > 0 {
			t.Errorf("after %v: got counted zones %v and faults %+v, want %v", elapsed, got, faults, want)
		}
	}
	expectCounted("intel-rapl-mmio:0")
	for _, config := range []fakehw.ZoneConfig{zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "dram")} {
		_, err := tree.AddZone(config)
		must(t, err)
	}
	elapsed = rescanInterval - 1
	expectCounted("intel-rapl-mmio:0")
	elapsed = rescanInterval
	expectCounted("intel-rapl:0", "intel-rapl:0:0")
	if got := len(rapl.Zones()); got != 3 {
		t.Errorf("got %d zones, want 3", got)
	}
}

func TestRescanKeepsTheTotalWhileZonesAreMissing(t *testing.T) {
	tree, zones := newTree(t, zone("intel-rapl:0", "package-0"), zone("intel-rapl:1", "package-0"))
	rapl := openRAPL(t, tree)
	begin := time.Now()
	var elapsed time.Duration
	rapl.now = func() time.Time { return begin.Add(elapsed) }
	rapl.Read()
	must(t, zones["intel-rapl:0"].Remove())
	for _, config := range []fakehw.ZoneConfig{zone("intel-rapl:2", "package-1"), zone("intel-rapl:3", "package-2")} {
		_, err := tree.AddZone(config)
		must(t, err)
	}
	elapsed = rescanInterval
	readings, faults := rapl.Read()
	if len(readings) != 1 || readings[0].Zone.Counted || len(faults) != 1 || !faults[0].Zone.Counted {
		t.Fatalf("got readings %+v and faults %+v, want a fault of the counted zone", readings, faults)
	}
	must(t, zones["intel-rapl:0"].Restore())
	elapsed = 2 * rescanInterval
	if readings, faults = rapl.Read(); len(readings) != 4 || len(faults) != 0 {
		t.Fatalf("got readings %+v and faults %+v, want 4 readings", readings, faults)
	}
}

func TestHundredsOfRAPLZones(t *testing.T) {
	var configs []fakehw.ZoneConfig
	const packages = 300
	for i := range packages {
		id := fmt.Sprintf("intel-rapl:%d", i)
		configs = append(configs, zone(id, fmt.Sprintf("package-%d", i)), zone(id+":0", "dram"))
	}
	tree, _ := newTree(t, configs...)
	readings, faults := openRAPL(t, tree).Read()
	names := map[string]bool{}
	for _, r := range readings {
		names[r.Zone.Name] = true
		if !r.Zone.Counted {
			t.Errorf("%s is not counted", r.Zone.Name)
		}
	}
	if len(readings) != 2*packages || len(names) != len(readings) || len(faults) > 0 {
		t.Errorf("got %d readings, %d names and faults %+v, want %d readings of as many names", len(readings), len(names), faults, 2*packages)
	}
	if first, last := readings[0].Zone.ID, readings[2*packages-1].Zone.ID; first != "intel-rapl:0" || last != "intel-rapl:299:0" {
		t.Errorf("got zones from %s to %s, want intel-rapl:0 to intel-rapl:299:0", first, last)
	}
}

func ExampleOpenRAPL() {
	_, err := OpenRAPL("/nowhere")
	fmt.Println(err)
	// Output: no RAPL counters in /nowhere/class/powercap
}

func BenchmarkRAPLRead(b *testing.B) {
	tree, _ := newTree(b, topologies[0].zones...)
	rapl := openRAPL(b, tree)
	b.ReportAllocs()
	for b.Loop() {
		if readings, _ := rapl.Read(); len(readings) != 6 {
			b.Fatal(readings)
		}
	}
}
