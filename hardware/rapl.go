package hardware

import (
	"cmp"
	"errors"
	"fmt"
	"io"
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

// lookAgain is how often sensors look for what a driver that was loaded later has
// brought.
const lookAgain = time.Minute

// RAPL reads the energy counters of Intel's and AMD's processors through Linux's
// powercap tree.
type RAPL struct {
	class    string
	counters []*counter     // in the order of their zones' IDs
	zones    []*energy.Zone // theirs
	now      func() time.Time
	asleep   func() time.Duration
	looked   time.Time // when zones were last looked for; zero before the first Read
}

var _ PowerSensors = (*RAPL)(nil)

// OpenRAPL finds the zones below a /sys ("" is the real one) and opens those that
// can be read. It fails with ErrNoRAPL where there is none that covers a processor
// (psys alone, whose scale is the firmware's affair, is no source), and with an
// *UnreadableError where no zone that counts can be read.
func OpenRAPL(sysfsPath string) (*RAPL, error) {
	class := filepath.Join(orDefault(sysfsPath, "/sys"), "class", "powercap")
	counters, err := findZones(class)
	if err != nil {
		return nil, err
	}
	r := &RAPL{class: class, counters: counters, zones: zonesOf(counters), now: time.Now, asleep: asleep}
	var unreadable error
	readable := false
	for _, c := range counters {
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

func zonesOf(counters []*counter) []*energy.Zone {
	zones := make([]*energy.Zone, len(counters))
	for i, c := range counters {
		zones[i] = c.zone
	}
	return zones
}

// Read reads every zone. A zone that cannot be read is opened again at the next
// call, and once a minute those that have come since are taken in.
func (r *RAPL) Read() ([]energy.Reading, []energy.Fault) {
	r.lookForMore()
	readings, slept := make([]energy.Reading, 0, len(r.counters)), r.asleep()
	var faults []energy.Fault
	for _, c := range r.counters {
		value, at, err := c.readAt(r.now)
		if err != nil {
			faults = append(faults, energy.Fault{Zone: c.zone, At: at, Err: err.Error()})
			continue
		}
		readings = append(readings, energy.Reading{Zone: c.zone, At: at, Counter: energy.Microjoules(value), Suspended: slept})
	}
	return readings, faults
}

// lookForMore takes in zones that a driver has brought since the last look. What
// each zone counts for is decided anew then; one that is gone stays as it is, a
// fault at each reading.
func (r *RAPL) lookForMore() {
	now := r.now()
	if r.looked.IsZero() {
		r.looked = now
	}
	if now.Sub(r.looked) < lookAgain {
		return
	}
	r.looked = now
	found, err := findZones(r.class)
	if err != nil || len(found) <= len(r.counters) {
		return
	}
	known := map[string]*counter{}
	for _, c := range r.counters {
		known[c.path] = c
	}
	for _, c := range found {
		if old := known[c.path]; old != nil {
			c.file = old.file
			delete(known, c.path)
		}
	}
	if len(known) > 0 {
		return // some are gone: not the time to judge by what is left
	}
	r.counters, r.zones = found, zonesOf(found)
}

// Close closes the counters' files.
func (r *RAPL) Close() error {
	var errs []error
	for _, c := range r.counters {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

// counter is one zone's file with a number in it, such as energy_uj. It is kept open, since opening costs ten times
// what reading does, and closed after a failure.
type counter struct {
	zone *energy.Zone
	path string
	unit string // what the number is: energy in µJ
	file *os.File
	buf  [64]byte
}

// readAt reads a counter and says when. A reading during which the process was
// held up is made again, so that the time fits the value.
func (c *counter) readAt(now func() time.Time) (int64, time.Time, error) {
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

func (c *counter) read() (int64, error) {
	if c.file == nil {
		file, err := os.Open(c.path)
		if err != nil {
			return 0, withoutPath(err)
		}
		c.file = file
	}
	n, err := c.file.ReadAt(c.buf[:], 0)
	if n == 0 && err != nil && err != io.EOF {
		c.close()
		return 0, withoutPath(err)
	}
	text := strings.TrimSpace(string(c.buf[:n]))
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil || value < 0 {
		c.close()
		return 0, fmt.Errorf("%q is no %s", text, c.unit)
	}
	return value, nil
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

// RAPLZones counts the zones of a /sys ("" is the real one), those that nobody may read
// included: the kernel links each of them into one folder.
func RAPLZones(sysfsPath string) int {
	names, _ := filepath.Glob(filepath.Join(orDefault(sysfsPath, "/sys"), "class", "powercap", "intel-rapl*:*", "name"))
	return len(names)
}

// collect adds the zone that a directory is, if it is one, and those in it.
func collect(dir string, found map[string]*counter) {
	if found[dir] != nil {
		return
	}
	id := filepath.Base(dir)
	if name, err := os.ReadFile(filepath.Join(dir, "name")); err == nil && strings.Contains(id, ":") {
		found[dir] = &counter{
			path: filepath.Join(dir, "energy_uj"), unit: "energy in µJ",
			zone: &energy.Zone{
				ID: id, Name: strings.TrimSpace(string(name)),
				Source: energy.Measured, Method: "rapl",
				Range: readRange(dir), UpdateInterval: raplUpdate,
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
	trusted, counted := countedControl(counters), map[string]bool{}
	for _, c := range counters {
		zone, name := c.zone, c.zone.Name
		control, numbers, _ := strings.Cut(zone.ID, ":")
		zone.Domain, zone.Counted = role(name)
		zone.Counted = zone.Counted && control == trusted
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
	numberTwins(counters)
}

// numberTwins adds the ID to names that are still not unique.
func numberTwins(counters []*counter) {
	seen := map[string]bool{}
	for _, c := range counters {
		if seen[c.zone.Name] {
			c.zone.Name += "@" + c.zone.ID
		}
		seen[c.zone.Name] = true
	}
}

// countedControl is the interface whose zones make up the total. The others show the
// same processor a second time: intel-rapl-mmio reads package-0 from memory-mapped
// registers. It is the source where intel-rapl, which reads model-specific registers,
// shows no package.
func countedControl(counters []*counter) string {
	best := "intel-rapl"
	for i := len(counters) - 1; i >= 0; i-- {
		control, _, _ := strings.Cut(counters[i].zone.ID, ":")
		if isPackage(counters[i].zone.Name) {
			best = control
			if control == "intel-rapl" {
				break
			}
		}
	}
	return best
}

func isPackage(name string) bool { return strings.HasPrefix(name, "package") }

// role of a zone by the kernel's name for it, and whether such a zone may be part of
// the total. package holds core and uncore; dram lies outside it; psys is the whole
// machine.
func role(name string) (energy.Domain, bool) {
	switch {
	case name == "dram":
		return energy.DomainDRAM, true
	case isPackage(name):
		return energy.DomainCPU, true
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
