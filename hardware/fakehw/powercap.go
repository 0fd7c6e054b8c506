package fakehw

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ZoneConfig describes one powercap zone.
type ZoneConfig struct {
	ID    string // directory name: intel-rapl:0, intel-rapl:0:1, intel-rapl-mmio:0
	Name  string // package-0, core, dram, psys
	Power Curve  // nil: 0 W
	Range int64  // µJ at which the counter wraps; 0: unlimited, without max_energy_range_uj
	Start int64  // µJ on the counter at the tree's start
}

// Zone is one fake counter.
type Zone struct {
	config ZoneConfig
	tree   *Tree
	dir    string
	file   *os.File // nil while the zone is removed or broken
	energy float64  // J since the tree's start
	offset int64    // µJ that resets added to the counter
}

// AddZone adds a zone: a directory in that of its parent and a link to it in
// /sys/class/powercap.
func (t *Tree) AddZone(config ZoneConfig) (*Zone, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if config.Power == nil {
		config.Power = Constant(0)
	}
	path := zonePath(config.ID)
	z := &Zone{config: config, tree: t, dir: t.Sys("devices", "virtual", "powercap", path)}
	if err := z.create(); err != nil {
		return nil, fmt.Errorf("creating zone %s: %w", config.ID, err)
	}
	if err := z.link(); err != nil {
		return nil, fmt.Errorf("creating zone %s: %w", config.ID, err)
	}
	t.zones = append(t.zones, z)
	return z, nil
}

// link creates the class directory's links to the zone and to its control type.
func (z *Zone) link() error {
	path := zonePath(z.config.ID)
	control, _, _ := strings.Cut(path, string(filepath.Separator))
	for name, target := range map[string]string{control: control, z.config.ID: path} {
		link := z.tree.Sys("class", "powercap", name)
		err := os.Symlink(filepath.Join("..", "..", "devices", "virtual", "powercap", target), link)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// UnloadPowercap removes every zone, as unloading the kernel module does. The counters advance
// meanwhile.
func (t *Tree) UnloadPowercap() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, z := range t.zones {
		errs = append(errs, z.truncate())
	}
	return errors.Join(append(errs, os.RemoveAll(t.Sys("class", "powercap")), os.RemoveAll(t.Sys("devices", "virtual", "powercap")))...)
}

// LoadPowercap restores the zones that UnloadPowercap removed.
func (t *Tree) LoadPowercap() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, z := range t.zones {
		errs = append(errs, z.create(), z.link())
	}
	return errors.Join(errs...)
}

// zonePath returns a zone's directory below the powercap devices: intel-rapl:0:1 is
// intel-rapl/intel-rapl:0/intel-rapl:0:1.
func zonePath(id string) string {
	control, numbers, _ := strings.Cut(id, ":")
	path, name := control, control
	for number := range strings.SplitSeq(numbers, ":") {
		name += ":" + number
		path = filepath.Join(path, name)
	}
	return path
}

// create writes the zone's directory and files.
func (z *Zone) create() error {
	if err := os.MkdirAll(z.dir, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(z.tree.Sys("class", "powercap"), 0o755); err != nil {
		return err
	}
	if err := z.tree.Write(filepath.Join(z.dir, "name"), z.config.Name+"\n"); err != nil {
		return err
	}
	if z.config.Range > 0 {
		text := fmt.Sprintln(z.config.Range)
		if err := z.tree.Write(filepath.Join(z.dir, "max_energy_range_uj"), text); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(z.Path(), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	z.file = file
	return z.write()
}

// Path returns the path of the zone's energy_uj.
func (z *Zone) Path() string { return filepath.Join(z.dir, "energy_uj") }

// Joules returns the true energy between two times of the tree.
func (z *Zone) Joules(from, to time.Duration) float64 { return z.config.Power.Joules(from, to) }

// advance updates the counter.
func (z *Zone) advance(from, to time.Duration) error {
	z.energy += z.config.Power.Joules(from, to)
	if z.file == nil {
		return nil
	}
	return z.write()
}

func (z *Zone) write() error {
	counter := z.config.Start + z.offset + int64(math.Floor(z.energy*1e6))
	if z.config.Range > 0 {
		counter %= z.config.Range
	}
	return pwrite(z.file, fmt.Sprint(counter))
}

// Reset sets the counter to 0.
func (z *Zone) Reset() error {
	z.tree.mu.Lock()
	defer z.tree.mu.Unlock()
	z.offset = -z.config.Start - int64(math.Floor(z.energy*1e6))
	return z.write()
}

// Remove removes the zone and those in it. Reads through an open descriptor fail.
func (z *Zone) Remove() error {
	z.tree.mu.Lock()
	defer z.tree.mu.Unlock()
	var errs []error
	for _, inner := range z.withChildren() {
		errs = append(errs, inner.truncate())
	}
	return errors.Join(append(errs, os.RemoveAll(z.dir))...)
}

// Restore restores a removed zone and those in it.
func (z *Zone) Restore() error {
	z.tree.mu.Lock()
	defer z.tree.mu.Unlock()
	var errs []error
	for _, inner := range z.withChildren() {
		errs = append(errs, inner.create())
	}
	return errors.Join(errs...)
}

// withChildren returns the zone and those in it.
func (z *Zone) withChildren() []*Zone {
	var all []*Zone
	for _, other := range z.tree.zones {
		if other == z || strings.HasPrefix(other.config.ID, z.config.ID+":") {
			all = append(all, other)
		}
	}
	return all
}

// truncate empties and closes the counter's file.
func (z *Zone) truncate() error {
	if z.file == nil {
		return nil
	}
	err := errors.Join(z.file.Truncate(0), z.file.Close())
	z.file = nil
	return err
}

// Break makes every read of the counter fail with EIO, on Linux, until Repair: the file becomes a
// link to the reader's own memory, whose first page is not mapped.
func (z *Zone) Break() error {
	z.tree.mu.Lock()
	defer z.tree.mu.Unlock()
	return errors.Join(z.truncate(), os.Remove(z.Path()), os.Symlink("/proc/self/mem", z.Path()))
}

// Repair undoes Break.
func (z *Zone) Repair() error {
	z.tree.mu.Lock()
	defer z.tree.mu.Unlock()
	if err := os.Remove(z.Path()); err != nil {
		return err
	}
	return z.create()
}
