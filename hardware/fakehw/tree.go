package fakehw

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Tree is one fake machine. Its methods may be called from several goroutines.
type Tree struct {
	dir string

	mu    sync.Mutex
	now   time.Duration // since the tree began
	epoch time.Time     // when Run began
	zones []*Zone
	chips []*Chip
	cpu   *cpu
}

// New makes an empty machine below a directory: sys and proc, without any
// sensor.
func New(dir string) (*Tree, error) {
	t := &Tree{dir: dir}
	for _, d := range []string{t.Sys("class"), t.Sys("devices", "virtual"), t.Proc()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("making a fake machine: %w", err)
		}
	}
	return t, nil
}

// Sys is the path of the fake /sys, or of something in it.
func (t *Tree) Sys(elem ...string) string {
	return filepath.Join(append([]string{t.dir, "sys"}, elem...)...)
}

// Proc is the path of the fake /proc, or of something in it.
func (t *Tree) Proc(elem ...string) string {
	return filepath.Join(append([]string{t.dir, "proc"}, elem...)...)
}

// Write puts a file of any content into the tree, below Sys or Proc.
func (t *Tree) Write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// Now is the time since the tree began up to which its counters are written.
func (t *Tree) Now() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// Step lets time pass up to a moment since the tree began and renews every
// counter.
func (t *Tree) Step(to time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, z := range t.zones {
		errs = append(errs, z.step(t.now, to))
	}
	for _, c := range t.chips {
		errs = append(errs, c.step(t.now, to))
	}
	if t.cpu != nil {
		errs = append(errs, t.cpu.step(t.now, to))
	}
	t.now = to
	return errors.Join(errs...)
}

// Run lets time pass as it does, renewing the counters once an interval (real
// ones do it each millisecond), until the context ends.
func (t *Tree) Run(ctx context.Context, interval time.Duration) error {
	t.mu.Lock()
	t.epoch = time.Now().Add(-t.now)
	t.mu.Unlock()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			if err := t.Step(now.Sub(t.epoch)); err != nil {
				return err
			}
		}
	}
}

// Since puts a moment of a running tree on its own clock, for Zone.Joules.
func (t *Tree) Since(moment time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return moment.Sub(t.epoch)
}

// Close closes the counters' files, which stay where they are.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, z := range t.zones {
		if z.file != nil {
			errs = append(errs, z.file.Close())
			z.file = nil
		}
	}
	for _, c := range t.chips {
		errs = append(errs, c.close())
	}
	if t.cpu != nil {
		errs = append(errs, t.cpu.file.Close())
	}
	t.zones, t.chips, t.cpu = nil, nil, nil
	return errors.Join(errs...)
}

// ZoneConfig describes one powercap zone.
type ZoneConfig struct {
	ID    string // directory: intel-rapl:0, intel-rapl:0:1, intel-rapl-mmio:0
	Name  string // package-0, core, dram, psys
	Power Curve  // nil: none
	Range int64  // µJ, after which the counter starts at 0 again; 0 leaves max_energy_range_uj out
	Start int64  // µJ on the counter when the tree begins
}

// Zone is one fake counter.
type Zone struct {
	config  ZoneConfig
	tree    *Tree
	dir     string
	file    *os.File // nil while the zone is gone or broken
	used    float64  // J since the tree began
	shifted int64    // µJ that resets added to the counter
}

// AddZone adds a zone: a directory inside its parent's and, as on a real machine,
// a link to it from /sys/class/powercap.
func (t *Tree) AddZone(config ZoneConfig) (*Zone, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if config.Power == nil {
		config.Power = Constant(0)
	}
	path := zonePath(config.ID)
	z := &Zone{config: config, tree: t, dir: t.Sys("devices", "virtual", "powercap", path)}
	if err := z.create(); err != nil {
		return nil, fmt.Errorf("making zone %s: %w", config.ID, err)
	}
	if err := z.link(); err != nil {
		return nil, fmt.Errorf("making zone %s: %w", config.ID, err)
	}
	t.zones = append(t.zones, z)
	return z, nil
}

// link makes the class directory's links to the zone and to its control type.
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

// UnloadPowercap takes every zone away, as removing the kernel's module does; the
// processor goes on counting.
func (t *Tree) UnloadPowercap() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, z := range t.zones {
		errs = append(errs, z.empty())
	}
	return errors.Join(append(errs, os.RemoveAll(t.Sys("class", "powercap")), os.RemoveAll(t.Sys("devices", "virtual", "powercap")))...)
}

// LoadPowercap brings back what UnloadPowercap took away.
func (t *Tree) LoadPowercap() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, z := range t.zones {
		errs = append(errs, z.create(), z.link())
	}
	return errors.Join(errs...)
}

// zonePath is where a zone lies below the powercap devices:
// intel-rapl:0:1 in intel-rapl/intel-rapl:0/intel-rapl:0:1.
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

// Path of the zone's energy_uj.
func (z *Zone) Path() string { return filepath.Join(z.dir, "energy_uj") }

// Joules is what the zone truly used between two moments since the tree began.
func (z *Zone) Joules(from, to time.Duration) float64 { return z.config.Power.Joules(from, to) }

// step adds what was used and renews the counter.
func (z *Zone) step(from, to time.Duration) error {
	z.used += z.config.Power.Joules(from, to)
	if z.file == nil {
		return nil
	}
	return z.write()
}

func (z *Zone) write() error {
	counter := z.config.Start + z.shifted + int64(math.Floor(z.used*1e6))
	if z.config.Range > 0 {
		counter %= z.config.Range
	}
	return pwrite(z.file, fmt.Sprint(counter))
}

// Reset starts the counter at 0, as a driver that is loaded again does.
func (z *Zone) Reset() error {
	z.tree.mu.Lock()
	defer z.tree.mu.Unlock()
	z.shifted = -z.config.Start - int64(math.Floor(z.used*1e6))
	return z.write()
}

// Vanish takes the zone away, and those in it. Readers with an open descriptor get
// nothing more out of it.
func (z *Zone) Vanish() error {
	z.tree.mu.Lock()
	defer z.tree.mu.Unlock()
	var errs []error
	for _, inner := range z.family() {
		errs = append(errs, inner.empty())
	}
	return errors.Join(append(errs, os.RemoveAll(z.dir))...)
}

// Return brings back a zone that vanished, and those in it.
func (z *Zone) Return() error {
	z.tree.mu.Lock()
	defer z.tree.mu.Unlock()
	var errs []error
	for _, inner := range z.family() {
		errs = append(errs, inner.create())
	}
	return errors.Join(errs...)
}

// family is the zone and those in it.
func (z *Zone) family() []*Zone {
	var all []*Zone
	for _, other := range z.tree.zones {
		if other == z || strings.HasPrefix(other.config.ID, z.config.ID+":") {
			all = append(all, other)
		}
	}
	return all
}

// empty takes the counter from its readers.
func (z *Zone) empty() error {
	if z.file == nil {
		return nil
	}
	err := errors.Join(z.file.Truncate(0), z.file.Close())
	z.file = nil
	return err
}

// Break makes every read of the counter fail with EIO, on Linux, until Mend: the file
// becomes the reader's own memory, of which the first page is nobody's.
func (z *Zone) Break() error {
	z.tree.mu.Lock()
	defer z.tree.mu.Unlock()
	return errors.Join(z.empty(), os.Remove(z.Path()), os.Symlink("/proc/self/mem", z.Path()))
}

// Mend undoes Break.
func (z *Zone) Mend() error {
	z.tree.mu.Lock()
	defer z.tree.mu.Unlock()
	if err := os.Remove(z.Path()); err != nil {
		return err
	}
	return z.create()
}

// pwrite renews a file's whole content at once, padded with line ends to a
// length that never shrinks.
func pwrite(file *os.File, text string) error {
	const width = 24
	for len(text) < width {
		text += "\n"
	}
	_, err := file.WriteAt([]byte(text), 0)
	return err
}
