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

	"ffmpeg-agent/hardware/energy"
)

// raplCounter is a powercap zone and its energy_uj.
type raplCounter struct {
	zone *energy.Zone
	file *numberFile
}

func zonesOf(counters []*raplCounter) []*energy.Zone {
	zones := make([]*energy.Zone, len(counters))
	for i, c := range counters {
		zones[i] = c.zone
	}
	return zones
}

// CountRAPLZones returns the number of zones below a sysfs ("" is /sys), including unreadable
// ones. The kernel links each of them into one directory.
func CountRAPLZones(sysfsPath string) int {
	names, _ := filepath.Glob(filepath.Join(orDefault(sysfsPath, "/sys"), "class", "powercap", "intel-rapl*:*", "name"))
	return len(names)
}

// findCounters lists each zone once. The entries of the class directory are links to
// directories that are also nested in each other, so zones are identified by their real path.
func findCounters(class string) ([]*raplCounter, error) {
	entries, err := os.ReadDir(class)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing RAPL zones: %w", err)
	}
	found := map[string]*raplCounter{}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "intel-rapl") {
			continue
		}
		dir, err := filepath.EvalSymlinks(filepath.Join(class, entry.Name()))
		if err != nil {
			continue // a dangling link
		}
		collectCounters(dir, found)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w in %s", ErrNoRAPL, class)
	}
	counters := make([]*raplCounter, 0, len(found))
	for _, c := range found {
		counters = append(counters, c)
	}
	slices.SortFunc(counters, func(a, b *raplCounter) int { return compareZoneIDs(a.zone.ID, b.zone.ID) })
	assignRoles(counters)
	return counters, nil
}

// collectCounters adds the zone in a directory, if there is one, and the zones nested in it.
func collectCounters(dir string, found map[string]*raplCounter) {
	if found[dir] != nil {
		return
	}
	id := filepath.Base(dir)
	if name, err := os.ReadFile(filepath.Join(dir, "name")); err == nil && strings.Contains(id, ":") {
		found[dir] = &raplCounter{
			file: &numberFile{path: filepath.Join(dir, "energy_uj"), quantity: "energy in µJ"},
			zone: &energy.Zone{
				ID: id, Name: strings.TrimSpace(string(name)),
				Source: energy.Measured, Method: "rapl",
				Range: readRange(dir), UpdateInterval: raplUpdateInterval,
			},
		}
	}
	children, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, child := range children {
		if child.IsDir() && strings.HasPrefix(child.Name(), id+":") {
			collectCounters(filepath.Join(dir, child.Name()), found)
		}
	}
}

// readRange returns the maximum of a zone's counter, or 0 where it is unknown.
func readRange(dir string) energy.Microjoules {
	value, err := strconv.ParseInt(readWord(dir, "max_energy_range_uj"), 10, 64)
	if err != nil || value < 0 {
		return 0
	}
	return energy.Microjoules(value)
}

// assignRoles sets what each zone measures and which zones make up the total, and makes names
// unique.
func assignRoles(counters []*raplCounter) {
	names, occurrences := map[string]string{}, map[string]int{}
	for _, c := range counters {
		names[c.zone.ID] = c.zone.Name
		occurrences[c.zone.Name]++
	}
	preferred, counted := preferredControlType(counters), map[string]bool{}
	for _, c := range counters {
		zone, name := c.zone, c.zone.Name
		controlType, numbers, _ := strings.Cut(zone.ID, ":")
		zone.Domain, zone.Counted = role(name)
		zone.Counted = zone.Counted && controlType == preferred
		parent := ""
		if strings.Contains(numbers, ":") {
			parent = names[zone.ID[:strings.LastIndex(zone.ID, ":")]]
		}
		// A processor that is listed twice is counted once.
		key := parent + "/" + name
		zone.Counted = zone.Counted && !counted[key]
		counted[key] = counted[key] || zone.Counted
		if occurrences[name] > 1 {
			zone.Name = qualifiedName(zone, controlType, parent)
		}
	}
	seen := map[string]bool{}
	for _, c := range counters {
		if seen[c.zone.Name] {
			c.zone.Name += "@" + c.zone.ID
		}
		seen[c.zone.Name] = true
	}
}

// preferredControlType returns the powercap control type whose zones make up the total. The
// others show the same processor again: intel-rapl-mmio reads package-0 from memory-mapped
// registers. It is preferred only if intel-rapl, which reads model-specific registers, has no
// package.
func preferredControlType(counters []*raplCounter) string {
	best := "intel-rapl"
	for i := len(counters) - 1; i >= 0; i-- {
		controlType, _, _ := strings.Cut(counters[i].zone.ID, ":")
		if isPackage(counters[i].zone.Name) {
			best = controlType
			if controlType == "intel-rapl" {
				break
			}
		}
	}
	return best
}

func isPackage(name string) bool { return strings.HasPrefix(name, "package") }

// role returns the domain of a zone by the kernel's name for it, and whether such a zone can be
// part of the total. package includes core and uncore, but not dram; psys is the whole machine.
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

// qualifiedName returns a name for a zone that shares its own with another: package-1-dram,
// mmio-package-0, or with the zone's ID.
func qualifiedName(zone *energy.Zone, controlType, parent string) string {
	prefix := strings.TrimPrefix(strings.TrimPrefix(controlType, "intel-rapl"), "-")
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

// compareZoneIDs orders intel-rapl:2 before intel-rapl:10.
func compareZoneIDs(a, b string) int {
	as, bs := strings.Split(a, ":"), strings.Split(b, ":")
	if order := cmp.Compare(as[0], bs[0]); order != 0 {
		return order
	}
	return slices.CompareFunc(as[1:], bs[1:], func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
}
