package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// What an agent at rest may hold above its first rest.
const (
	maxExtraGoroutines  = 6
	maxExtraDescriptors = 6
	maxExtraThreads     = 20
	maxExtraHeap        = 24 << 20
	maxExtraResident    = 64 << 20
	maxExtraDisk        = 16 << 20
)

// checkUsage: an agent at rest holds no more than when it first rested, and nothing that
// only a job needs.
func (h *History) checkUsage() Finding {
	f := Finding{Invariant: "what the agent holds returns to its level"}
	first, last := map[int]Usage{}, map[int]Usage{}
	var most Usage
	for _, sensors := range h.UnreadSensors {
		f.violate("not read again after the last fault: %s", sensors)
	}
	for _, l := range h.IdleUsage {
		last[l.Agent] = l
		if len(l.Leftovers) > 0 {
			f.violate("agent %d, process #%d, at rest at %s: %s", l.Agent, l.Process, timestamp(l.At), strings.Join(l.Leftovers, ", "))
		}
		base, known := first[l.Agent]
		if !known {
			first[l.Agent] = l
			continue
		}
		for _, c := range []struct {
			what          string
			base, now     int64
			allowed, unit int64
			most          *int64
		}{
			{"goroutines", int64(base.Goroutines), int64(l.Goroutines), maxExtraGoroutines, 1, nil},
			{"descriptors", int64(base.Descriptors), int64(l.Descriptors), maxExtraDescriptors, 1, nil},
			{"threads", int64(base.Threads), int64(l.Threads), maxExtraThreads, 1, nil},
			{"KiB of heap", base.HeapBytes, l.HeapBytes, maxExtraHeap, 1 << 10, nil},
			{"KiB resident", base.ResidentBytes, l.ResidentBytes, maxExtraResident, 1 << 10, nil},
			{"KiB of disk", base.DiskBytes, l.DiskBytes, maxExtraDisk, 1 << 10, nil},
		} {
			f.Checked++
			if c.now > c.base+c.allowed {
				f.violate("agent %d, process #%d, at rest at %s: %d %s, at first %d", l.Agent, l.Process, timestamp(l.At), c.now/c.unit, c.what, c.base/c.unit)
			}
		}
		most.Goroutines, most.Descriptors = max(most.Goroutines, l.Goroutines-base.Goroutines), max(most.Descriptors, l.Descriptors-base.Descriptors)
		most.Threads, most.ResidentBytes = max(most.Threads, l.Threads-base.Threads), max(most.ResidentBytes, l.ResidentBytes-base.ResidentBytes)
	}
	f.Note = fmt.Sprintf("at most %+d goroutines, %+d descriptors, %+d threads, %+d MiB", most.Goroutines, most.Descriptors, most.Threads, most.ResidentBytes>>20)
	for _, n := range slices.Sorted(maps.Keys(first)) {
		a, b := first[n], last[n]
		f.Note += fmt.Sprintf("; agent %d, first to last: %d → %d goroutines, %d → %d descriptors, %.1f → %.1f MiB of heap, %d → %d MiB resident",
			n, a.Goroutines, b.Goroutines, a.Descriptors, b.Descriptors, float64(a.HeapBytes)/(1<<20), float64(b.HeapBytes)/(1<<20), a.ResidentBytes>>20, b.ResidentBytes>>20)
	}
	return f
}
