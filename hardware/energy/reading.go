package energy

import "time"

// Source says how a figure was come by.
type Source string

const (
	// Measured: read from a sensor of the machine.
	Measured Source = "measured"
	// Estimated: computed from a model. Never shown as measured.
	Estimated Source = "estimated"
	// Unavailable: not known. Such a figure has no value.
	Unavailable Source = "unavailable"
)

// Domain is the part of a machine that a zone measures.
type Domain string

const (
	DomainCPU      Domain = "cpu"      // a processor package, its cores and caches included
	DomainDRAM     Domain = "dram"     // memory, where it lies outside the package
	DomainGPU      Domain = "gpu"      // a whole card
	DomainPlatform Domain = "platform" // the machine at its supply (psys)
)

// Zone is one energy counter of the machine. Zones are immutable once read from.
type Zone struct {
	// ID is unique on the machine and stable across restarts: a powercap
	// zone's directory name, a card's UUID, "estimate:cpu".
	ID string `json:"id"`
	// Name is what people call it: package-0, core, dram, psys.
	Name   string `json:"name"`
	Domain Domain `json:"domain"`
	// Counted: part of the machine's total. A zone inside another (core, uncore)
	// or beside it (psys, intel-rapl-mmio) is reported and never added.
	Counted bool   `json:"counted"`
	Source  Source `json:"source"` // Measured or Estimated
	Method  string `json:"method"` // rapl, hwmon, nvml, estimate
	// Model is the formula with its figures where energy is estimated; empty
	// for a sensor.
	Model string `json:"model,omitempty"`
	// Range is the counter's highest value before it starts again at 0; 0 when
	// that is not known, and then a step back is a gap.
	Range Microjoules `json:"range_microjoules,omitempty"`
	// Update is how often the sensor itself renews its value; it bounds the
	// error at a window's two edges.
	Update time.Duration `json:"-"`
	// Uncertainty is the sensor's own relative error at most: 0.4 is ±40 %. 0 where
	// none is documented.
	Uncertainty float64 `json:"uncertainty,omitempty"`
	// Averaged is how much of the past the sensor's power is the mean of, where that is
	// integrated for want of a counter.
	Averaged time.Duration `json:"-"`
	// MaxPower is the highest power that can be true of this zone; a step above
	// it is a gap. 0 takes the default: see DefaultMaxPower.
	MaxPower Watts `json:"max_power_watts,omitempty"`
}

// Reading is what a zone's counter said at a moment. At carries Go's monotonic
// clock, which durations are taken from.
type Reading struct {
	Zone    *Zone
	At      time.Time
	Counter Microjoules
	// Cross is a second opinion on the counter, such as integrated power: only its
	// differences count. nil: there is none.
	Cross *Microjoules
	// Doubt is how far the counter may be off by what the sensor leaves open, such as
	// power between two readings: only its differences count, in place of the zone's
	// Uncertainty. nil: that holds.
	Doubt *Microjoules
	// Usage says who has used what the zone powers so far; nil: not known. It is
	// not written to once the reading has been handed over.
	Usage *Usage
	// Busy is the part of what the zone powers that was in use around that moment, by
	// whomever, 0 to 1; nil: not known. It tells idleness where Usage does not.
	Busy *float64
	// Asleep is how long the machine has been suspended since it booted: only
	// differences count. Go's monotonic clock stands still meanwhile, counters may not.
	Asleep time.Duration
}

// Usage is how long something was used, by whom, up to a moment: CPU time, or a
// card's busy time.
type Usage struct {
	Method string // "cpu time", "gpu use"
	// Jobs tells each running job's use, by the key it was opened with in the Ledger; a
	// job missing here is not known at this moment.
	Jobs map[string]time.Duration
	// Busy is everybody's use, the jobs' included, and Capacity the most that could
	// have been used: threads × time. Both 0: not known.
	Busy, Capacity time.Duration
}

// Fault is a zone that could not be read.
type Fault struct {
	Zone *Zone
	At   time.Time
	Err  string
}

// Sample is one look at the zones of one sampler.
type Sample struct {
	Sampler  string
	At       time.Time
	Readings []Reading
	Faults   []Fault
}
