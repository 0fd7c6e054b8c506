package energy

import (
	"math"
	"time"
)

// Source is the provenance of a figure.
type Source string

const (
	Measured    Source = "measured"    // read from a sensor of the machine
	Estimated   Source = "estimated"   // computed from a model
	Unavailable Source = "unavailable" // unknown; such a figure has no value
)

// Domain is the part of a machine that a zone measures.
type Domain string

const (
	DomainCPU      Domain = "cpu"      // a processor package with its cores and caches
	DomainDRAM     Domain = "dram"     // memory, where it is not part of the package
	DomainGPU      Domain = "gpu"      // a whole card
	DomainPlatform Domain = "platform" // the machine at its power supply (psys)
)

// Zone is one energy counter of the machine. A Zone must not change after its first reading; to
// change it, a sampler replaces it by another with the same ID.
type Zone struct {
	// ID is unique on the machine and stable across restarts: a powercap zone's directory
	// name, a card's UUID, "estimate:cpu".
	ID string `json:"id"`
	// Name is the display name: package-0, core, dram, psys.
	Name   string `json:"name"`
	Domain Domain `json:"domain"`
	// Counted zones add up to the machine's total. A zone inside another (core, uncore) or one
	// that overlaps others (psys, intel-rapl-mmio) is only reported.
	Counted bool   `json:"counted"`
	Source  Source `json:"source"` // Measured or Estimated
	Method  string `json:"method"` // rapl, hwmon, nvml, estimate
	// Model is the formula of an estimate with its parameters; empty for a sensor.
	Model string `json:"model,omitempty"`
	// Range is the highest value of the counter before it wraps to 0. 0 means unknown; then a
	// decrease of the counter is a gap.
	Range Microjoules `json:"range_microjoules,omitempty"`
	// UpdateInterval is how often the sensor updates its value. It bounds the error at the two
	// edges of a window.
	UpdateInterval time.Duration `json:"-"`
	// Uncertainty is the largest relative error of the sensor: 0.4 is ±40 %. 0 if none is
	// documented.
	Uncertainty float64 `json:"uncertainty,omitempty"`
	// AveragedOver is the length of the moving average in which a sensor without a counter
	// reports power, which is integrated. 0 if it is not averaged, or there is a counter.
	AveragedOver time.Duration `json:"-"`
	// MaxPower is the highest plausible power; a delta above it is a gap. 0 means
	// DefaultMaxPower.
	MaxPower Watts `json:"max_power_watts,omitempty"`
}

// MaxInterval returns the longest safe time between two readings of the zone: the time for a
// quarter of the counter's range at MaxPower. 0 means no limit.
func (z *Zone) MaxInterval() time.Duration { return z.halfWrap() / 2 }

// halfWrap returns the time for half of the counter's range at MaxPower, or 0 if the range is
// unknown or so large that the counter never wraps.
func (z *Zone) halfWrap() time.Duration {
	seconds := float64(z.Range) / 2 / 1e6 / float64(z.maxPower())
	if seconds <= 0 || seconds > math.MaxInt64/1e9/2 {
		return 0
	}
	return time.Duration(seconds * 1e9)
}

func (z *Zone) maxPower() Watts {
	if z.MaxPower > 0 {
		return z.MaxPower
	}
	return DefaultMaxPower
}

// Reading is the value of a zone's counter at a time.
type Reading struct {
	Zone    *Zone
	At      time.Time // with a monotonic clock reading, from which durations are computed
	Counter Microjoules
	// CrossCheck is a second counter of the same energy, such as integrated power. Only its
	// differences count. nil: there is none.
	CrossCheck *Microjoules
	// ErrorBound is a counter of the sensor's error, for example due to the unknown power between
	// two of its updates. Its differences replace the zone's Uncertainty. nil: Uncertainty
	// applies.
	ErrorBound *Microjoules
	// Usage attributes the use of the zone's hardware to jobs; nil: unknown. It must not be
	// modified after the reading has been handed over.
	Usage *Usage
	// Utilization of the zone's hardware around this time, by all processes, 0 to 1. It shows
	// whether a zone is idle if Usage is unknown. nil: unknown.
	Utilization *float64
	// Suspended is how long the machine has been suspended since it booted. Only its
	// differences count. Go's monotonic clock stops during a suspend, counters may not.
	Suspended time.Duration
}

// Usage is the cumulative use of a zone's hardware: CPU time, or a card's busy time.
type Usage struct {
	Method string // "cpu time", "gpu use"
	// Jobs is the use by each running job, by the name of the job in the Ledger. The use of a
	// job without an entry is unknown.
	Jobs map[string]time.Duration
	// Busy is the use by all processes, those of jobs included, and Capacity the maximum
	// possible use: threads × time. Both 0: unknown.
	Busy, Capacity time.Duration
}

// Fault is a failed read of a zone.
type Fault struct {
	Zone *Zone
	At   time.Time
	Err  string
}

// Sample is the result of reading all zones of a sampler once.
type Sample struct {
	Sampler  string
	At       time.Time
	Readings []Reading
	Faults   []Fault
}
