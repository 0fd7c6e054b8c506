package hardware

import (
	"errors"
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

var topologies = []struct {
	name  string
	zones []fakehw.ZoneConfig
}{
	{"client_psys_mmio", []fakehw.ZoneConfig{
		zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "core"), zone("intel-rapl:0:1", "uncore"),
		zone("intel-rapl:0:2", "dram"), zone("intel-rapl:1", "psys"), zone("intel-rapl-mmio:0", "package-0"),
	}},
	{"two_sockets_dram", []fakehw.ZoneConfig{
		zone("intel-rapl:0", "package-0"), zone("intel-rapl:0:0", "dram"),
		zone("intel-rapl:1", "package-1"), zone("intel-rapl:1:0", "dram"),
	}},
	{"multi_die", []fakehw.ZoneConfig{
		zone("intel-rapl:0", "package-0-die-0"), zone("intel-rapl:0:0", "dram"),
		zone("intel-rapl:1", "package-0-die-1"), zone("intel-rapl:1:0", "dram"),
		zone("intel-rapl:10", "package-1-die-1"), zone("intel-rapl:2", "package-1-die-0"),
	}},
	{"amd", []fakehw.ZoneConfig{
		{ID: "intel-rapl:0", Name: "package-0", Range: 65532610987}, {ID: "intel-rapl:0:0", Name: "core", Range: 65532610987},
	}},
	{"unknown_maximum", []fakehw.ZoneConfig{{ID: "intel-rapl:0", Name: "package-0"}}},
	{"package_twice", []fakehw.ZoneConfig{zone("intel-rapl:0", "package-0"), zone("intel-rapl:1", "package-0")}},
}

func TestZonesOfEveryTopology(t *testing.T) {
	for _, test := range topologies {
		t.Run(test.name, func(t *testing.T) {
			tree, _ := machine(t, test.zones...)
			rapl := openRAPL(t, tree)
			var text strings.Builder
			ledger := energy.NewLedger(energy.LedgerConfig{})
			names := map[string]bool{}
			for _, z := range rapl.Zones() {
				fmt.Fprintf(&text, "%-18s %-18s %-9s counted=%-5t range=%d %s %s update=%v\n",
					z.ID, z.Name, z.Domain, z.Counted, z.Range, z.Source, z.Method, z.Update)
				if names[z.Name] {
					t.Errorf("two zones are called %s", z.Name)
				}
				names[z.Name] = true
			}
			begin := time.Now()
			rapl.now = func() time.Time { return begin.Add(tree.Now()) }
			record(t, ledger, rapl)
			ledger.Open("job", rapl.now())
			step(t, tree, time.Second/2)
			record(t, ledger, rapl)
			account := ledger.Close("job", rapl.now())
			fmt.Fprintln(&text, "total =", account.Total.Method)
			golden(t, filepath.Join("testdata", test.name+".golden"), text.String())
		})
	}
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
	mmio, _ := machine(t, zone("intel-rapl-mmio:0", "package-0"))
	if _, err := OpenRAPL(mmio.Sys()); !errors.Is(err, ErrNoRAPL) {
		t.Errorf("nothing but the mmio view: %v", err)
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
	if _, err := OpenRAPL(tree.Sys()); !errors.As(err, &unreadable) {
		t.Errorf("nothing that counts can be read: %v", err)
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
