package fakehw

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestBrokenZoneFailsWithEIO(t *testing.T) {
	tree := newTree(t)
	zone := add(t, tree, ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: Constant(1)})
	must(t, zone.Break())
	if _, err := os.ReadFile(zone.Path()); !errors.Is(err, syscall.EIO) {
		t.Errorf("broken: got error %v, want EIO", err)
	}
	must(t, zone.Repair())
	must(t, tree.AdvanceTo(time.Second))
	file, err := os.Open(zone.Path())
	must(t, err)
	defer file.Close()
	if got := readCounter(t, file); got < 1e6-1 || got > 1e6 {
		t.Errorf("repaired: got %d µJ, want 1 J", got)
	}
}

func TestCountersAdvanceWhilePowercapIsUnloaded(t *testing.T) {
	tree := newTree(t)
	zone := add(t, tree, ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: Constant(1)})
	inner := add(t, tree, ZoneConfig{ID: "intel-rapl:0:0", Name: "core", Power: Constant(2)})
	must(t, tree.UnloadPowercap())
	if _, err := os.Stat(tree.Sys("class", "powercap")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unloaded: got error %v, want no class directory", err)
	}
	must(t, tree.AdvanceTo(time.Second))
	must(t, tree.LoadPowercap())
	must(t, zone.Remove())
	if _, err := os.Stat(inner.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("zone in a removed one: got error %v, want it removed", err)
	}
	must(t, zone.Restore())
	for path, want := range map[string]int64{"intel-rapl:0": 1e6, "intel-rapl:0:0": 2e6} {
		file, err := os.Open(tree.Sys("class", "powercap", path, "energy_uj"))
		must(t, err)
		if got := readCounter(t, file); got < want-1 || got > want {
			t.Errorf("%s: got %d µJ, want %d µJ", path, got, want)
		}
		file.Close()
	}
}
