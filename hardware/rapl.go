package hardware

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// ErrNoRAPL: the machine has no RAPL counters, as most virtual and many Arm
// machines.
var ErrNoRAPL = errors.New("no RAPL counters")

// UnreadableError: the machine has RAPL counters that this process cannot read.
type UnreadableError struct {
	Path string // of the first counter
	Err  error
}

func (e *UnreadableError) Error() string {
	text := fmt.Sprintf("reading RAPL counter %s: %v", e.Path, e.Err)
	if errors.Is(e.Err, fs.ErrPermission) {
		text += fmt.Sprintf("; counters are root's own since CVE-2020-8694: give the agent's group access "+
			"(deployment has a udev rule for it; until the next boot: chgrp ffmpeg %[1]s && chmod g+r %[1]s)", e.Path)
	}
	return text
}

func (e *UnreadableError) Unwrap() error { return e.Err }

// raplUpdate is how often the processor renews its counters
// (Intel SDM volume 3B, section 16.10.1).
const raplUpdate = time.Millisecond

// RAPL reads the energy counters of Intel's and AMD's processors through Linux's
// powercap tree.
type RAPL struct {
	counters []*counter
	zones    []*energy.Zone
	now      func() time.Time
}

var _ PowerSensors = (*RAPL)(nil)

// OpenRAPL finds the zones below a /sys ("" is the real one) and opens those that
// can be read. It fails with ErrNoRAPL where there is none, and with an
// *UnreadableError where no zone that counts can be read.
func OpenRAPL(sysfsPath string) (*RAPL, error) {
	counters, err := findZones(filepath.Join(orDefault(sysfsPath, "/sys"), "class", "powercap"))
	if err != nil {
		return nil, err
	}
	r := &RAPL{counters: counters, now: time.Now}
	var unreadable error
	readable := false
	for _, c := range counters {
		r.zones = append(r.zones, c.zone)
		_, err := c.read()
		switch {
		case !c.zone.Counted:
		case err == nil:
			readable = true
		case unreadable == nil:
			unreadable = &UnreadableError{Path: c.path, Err: err}
		}
	}
	if readable {
		return r, nil
	}
	r.Close()
	if unreadable != nil {
		return nil, unreadable
	}
	return nil, fmt.Errorf("%w that cover a whole processor", ErrNoRAPL)
}

// Name is rapl.
func (r *RAPL) Name() string { return "rapl" }

// Because is nil: there are no better sensors than these.
func (r *RAPL) Because() error { return nil }

// Zones in the order of their IDs.
func (r *RAPL) Zones() []*energy.Zone { return slices.Clone(r.zones) }

// Read reads every zone. A zone that cannot be read is opened again at the next
// call.
func (r *RAPL) Read() ([]energy.Reading, []energy.Fault) {
	readings := make([]energy.Reading, 0, len(r.counters))
	var faults []energy.Fault
	for _, c := range r.counters {
		value, at, err := c.readAt(r.now)
		if err != nil {
			faults = append(faults, energy.Fault{Zone: c.zone, At: at, Err: err.Error()})
			continue
		}
		readings = append(readings, energy.Reading{Zone: c.zone, At: at, Counter: value})
	}
	return readings, faults
}

// Close closes the counters' files.
func (r *RAPL) Close() error {
	var errs []error
	for _, c := range r.counters {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

// counter is one zone's energy_uj. It is kept open, since opening costs ten times
// what reading does, and closed after a failure.
type counter struct {
	zone *energy.Zone
	path string
	file *os.File
	buf  [64]byte
}

// readAt reads a counter and says when. A reading during which the process was
// held up is made again, so that the time fits the value.
func (c *counter) readAt(now func() time.Time) (energy.Microjoules, time.Time, error) {
	const heldUp, attempts = 2 * time.Millisecond, 3
	for attempt := 1; ; attempt++ {
		begin := now()
		value, err := c.read()
		took := now().Sub(begin)
		if err != nil || took < heldUp || attempt == attempts {
			return value, begin.Add(took / 2), err
		}
	}
}

func (c *counter) read() (energy.Microjoules, error) {
	if c.file == nil {
		file, err := os.Open(c.path)
		if err != nil {
			return 0, withoutPath(err)
		}
		c.file = file
	}
	n, err := c.file.ReadAt(c.buf[:], 0)
	if n == 0 && err != nil {
		c.close()
		return 0, withoutPath(err)
	}
	text := strings.TrimSpace(string(c.buf[:n]))
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil || value < 0 {
		c.close()
		return 0, fmt.Errorf("%q is no energy in µJ", text)
	}
	return energy.Microjoules(value), nil
}

func (c *counter) close() error {
	if c.file == nil {
		return nil
	}
	err := c.file.Close()
	c.file = nil
	return err
}

// withoutPath is what went wrong with a file whose name is known.
func withoutPath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// findZones lists the zones once: entries of the class directory are links to
// directories that also lie inside each other, so that each is met more than
// once and told apart by its real path.
func findZones(class string) ([]*counter, error) {
	entries, err := os.ReadDir(class)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing power zones: %w", err)
	}
	found := map[string]*counter{}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "intel-rapl") {
			continue
		}
		dir, err := filepath.EvalSymlinks(filepath.Join(class, entry.Name()))
		if err != nil {
			continue // a link to a zone that is gone
		}
		collect(dir, found)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w in %s", ErrNoRAPL, class)
	}
	counters := make([]*counter, 0, len(found))
	for _, c := range found {
		counters = append(counters, c)
	}
	slices.SortFunc(counters, func(a, b *counter) int { return compareIDs(a.zone.ID, b.zone.ID) })
	assignRoles(counters)
	return counters, nil
}

// collect adds the zone that a directory is, if it is one, and those in it.
func collect(dir string, found map[string]*counter) {
	if found[dir] != nil {
		return
	}
	id := filepath.Base(dir)
	if name, err := os.ReadFile(filepath.Join(dir, "name")); err == nil && strings.Contains(id, ":") {
		found[dir] = &counter{
			path: filepath.Join(dir, "energy_uj"),
			zone: &energy.Zone{
				ID: id, Name: strings.TrimSpace(string(name)),
				Source: energy.Measured, Method: "rapl",
				Range: readRange(dir), Update: raplUpdate,
			},
		}
	}
	children, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, child := range children {
		if child.IsDir() && strings.HasPrefix(child.Name(), id+":") {
			collect(filepath.Join(dir, child.Name()), found)
		}
	}
}

// readRange is the highest value of a zone's counter, or 0 when it is not known.
func readRange(dir string) energy.Microjoules {
	text, err := os.ReadFile(filepath.Join(dir, "max_energy_range_uj"))
	if err != nil {
		return 0
	}
	value, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || value < 0 {
		return 0
	}
	return energy.Microjoules(value)
}

// assignRoles decides what each zone measures and which ones make up the total,
// and tells zones of one name apart.
func assignRoles(counters []*counter) {
	parents, names := map[string]string{}, map[string]int{}
	for _, c := range counters {
		parents[c.zone.ID] = c.zone.Name
		names[c.zone.Name]++
	}
	counted := map[string]bool{}
	for _, c := range counters {
		zone, name := c.zone, c.zone.Name
		control, numbers, _ := strings.Cut(zone.ID, ":")
		zone.Domain, zone.Counted = role(control, name)
		parent, isChild := "", strings.Contains(numbers, ":")
		if isChild {
			parent = parents[zone.ID[:strings.LastIndex(zone.ID, ":")]]
		}
		// One processor that appears twice is added once.
		key := parent + "/" + name
		zone.Counted = zone.Counted && !counted[key]
		counted[key] = counted[key] || zone.Counted
		if names[name] > 1 {
			zone.Name = uniqueName(zone, control, parent)
		}
	}
}

// role of a zone by the kernel's name for it. package holds core and uncore;
// dram lies outside it; psys is the whole machine; intel-rapl-mmio shows
// package-0 a second time.
func role(control, name string) (energy.Domain, bool) {
	own := control == "intel-rapl"
	switch {
	case name == "dram":
		return energy.DomainDRAM, own
	case strings.HasPrefix(name, "package"):
		return energy.DomainCPU, own
	case name == "psys":
		return energy.DomainPlatform, false
	}
	return energy.DomainCPU, false
}

// uniqueName of a zone that shares its name with another: package-1-dram,
// mmio-package-0, and with the ID's number where that does not help.
func uniqueName(zone *energy.Zone, control, parent string) string {
	prefix := strings.TrimPrefix(strings.TrimPrefix(control, "intel-rapl"), "-")
	if parent != "" {
		prefix = strings.TrimPrefix(prefix+"-"+parent, "-")
	}
	switch {
	case prefix != "":
		return prefix + "-" + zone.Name
	case zone.Counted:
		return zone.Name
	}
	return zone.Name + "@" + zone.ID
}

// compareIDs orders intel-rapl:2 before intel-rapl:10.
func compareIDs(a, b string) int {
	as, bs := strings.Split(a, ":"), strings.Split(b, ":")
	if order := cmp.Compare(as[0], bs[0]); order != 0 {
		return order
	}
	return slices.CompareFunc(as[1:], bs[1:], func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
}
