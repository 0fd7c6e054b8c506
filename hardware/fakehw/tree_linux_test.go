package fakehw

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"
)

// What breaks is truly broken, by the kernel's own word.
func TestBrokenZone(t *testing.T) {
	tree := newTree(t)
	zone := add(t, tree, ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: Constant(1)})
	if err := zone.Break(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(zone.Path()); !errors.Is(err, syscall.EIO) {
		t.Errorf("broken: %v", err)
	}
	if err := zone.Mend(); err != nil {
		t.Fatal(err)
	}
	stepTo(t, tree, time.Second)
	if got := counterOf(t, zone); got < 1e6-1 || got > 1e6 {
		t.Errorf("mended: %d µJ", got)
	}
}

// The counters go on while no driver shows them.
func TestDriverRemovedAndLoaded(t *testing.T) {
	tree := newTree(t)
	zone := add(t, tree, ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: Constant(1)})
	inner := add(t, tree, ZoneConfig{ID: "intel-rapl:0:0", Name: "core", Power: Constant(2)})
	if err := tree.UnloadPowercap(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tree.Sys("class", "powercap")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unloaded: %v", err)
	}
	stepTo(t, tree, time.Second)
	if err := tree.LoadPowercap(); err != nil {
		t.Fatal(err)
	}
	if err := zone.Vanish(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(inner.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a zone within one that is gone: %v", err)
	}
	if err := zone.Return(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int64{"intel-rapl:0": 1e6, "intel-rapl:0:0": 2e6} {
		file, err := os.Open(tree.Sys("class", "powercap", path, "energy_uj"))
		if err != nil {
			t.Fatal(err)
		}
		if got := readCounter(t, file); got < want-1 || got > want {
			t.Errorf("%s: %d µJ, want %d", path, got, want)
		}
		file.Close()
	}
}

func counterOf(t *testing.T, zone *Zone) int64 {
	t.Helper()
	file, err := os.Open(zone.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return readCounter(t, file)
}
