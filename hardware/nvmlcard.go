package hardware

import (
	"time"

	"ffmpeg-agent/hardware/energy"
)

const (
	// nvmlUpdateInterval is the longest time between updates of a card's sensors; it is 20 to
	// 100 ms, depending on the model (Yang, Adamek, Armour: "Accurate and Convenient Energy
	// Measurements for GPUs", SC24, arXiv:2312.02741).
	nvmlUpdateInterval = 100 * time.Millisecond
	// nvmlUncertainty is NVIDIA's figure for the power reading: "accurate to within +/- 5% of
	// current power draw" (nvml.h, nvmlDeviceGetPowerUsage, for Fermi and Kepler). Nothing is
	// documented for later cards, on which the paper above found errors up to the same size.
	nvmlUncertainty = 0.05
	// nvmlPowerWindow is the time over which cards since Ampere average their power (nvml.h,
	// nvmlDeviceGetPowerUsage). Older cards report instantaneous power.
	nvmlPowerWindow = time.Second
	// maxPowerMargin allows for short peaks above the highest power limit.
	maxPowerMargin = 2
	// maxPowerGap is the longest time without a power value across which power is integrated.
	maxPowerGap = 2 * time.Second
)

// nvmlCard is the parent's state of one card.
type nvmlCard struct {
	details    energy.GPU   // as of the last response with details
	current    energy.GPU   // for Cards
	zone       *energy.Zone // nil: the card reports neither energy nor power
	hasCounter bool         // the zone's readings are the energy counter, else integrated power
	maxPower   energy.Watts
	power      powerIntegral
	missed     bool // no power value since the last one
	processes  processTotals
}

func newNVMLCard(procfs string) *nvmlCard {
	return &nvmlCard{
		power:     powerIntegral{updateInterval: nvmlUpdateInterval, energy: integralStart},
		processes: processTotals{procfs: procfs},
	}
}

// setDetails stores the details of a response.
func (c *nvmlCard) setDetails(values *nvmlValues, child *nvmlChild) {
	if values.Details != nil {
		c.details = *values.Details
		c.details.ProcessesAt = fromMonotonic(values.At)
		if c.details.Processes = c.processes.add(child, values.Processes); c.details.Processes != nil {
			c.details.ProcessesAt = time.Now()
		}
	}
	if values.MaxPower != nil {
		c.maxPower = max(c.maxPower, milliwatts(*values.MaxPower))
	}
}

// setPower stores the current power and returns the integrated power; nil if the power is
// unknown.
func (c *nvmlCard) setPower(values *nvmlValues) *energy.Microjoules {
	at := fromMonotonic(values.At)
	c.current = c.details
	c.current.At = at
	c.current.Power, c.current.PowerInstant = watts(values.Power), watts(values.Instant)
	return c.integrate(at, watts(values.power()))
}

// integrate adds a power value and returns the integral; nil if the power is unknown.
func (c *nvmlCard) integrate(at time.Time, power *energy.Watts) *energy.Microjoules {
	if power == nil {
		c.missed = true
		return nil
	}
	if c.missed && at.Sub(c.power.at) > maxPowerGap {
		c.power.markGap()
	}
	c.missed = false
	c.power.add(float64(*power), at)
	counter := c.power.counter()
	return &counter
}

// newZone returns the card's zone, whose name and method never change.
func (c *nvmlCard) newZone(name string) *energy.Zone {
	zone := &energy.Zone{
		ID: c.details.UUID, Name: name, Domain: energy.DomainGPU, Counted: true,
		Source: energy.Measured, Method: "nvml power", AveragedOver: nvmlPowerWindow,
		UpdateInterval: nvmlUpdateInterval, Uncertainty: nvmlUncertainty, MaxPower: maxPowerMargin * c.maxPower,
	}
	if c.hasCounter {
		zone.Method, zone.AveragedOver = "nvml", 0
	}
	return zone
}

// reading returns the zone's reading, or the reason why there is none.
func (c *nvmlCard) reading(values *nvmlValues, integrated *energy.Microjoules) (energy.Reading, string) {
	reading := energy.Reading{Zone: c.zone, At: c.current.At, Utilization: maxUtilization(&c.details), Suspended: suspended()}
	switch {
	case c.zone == nil:
	case c.hasCounter && values.Energy == nil, !c.hasCounter && integrated == nil:
		c.current.Fault = "the card no longer reports its power"
		return energy.Reading{}, c.current.Fault
	case c.hasCounter:
		reading.Counter, reading.CrossCheck = energy.Microjoules(*values.Energy)*1000, integrated
	default:
		reading.Counter = *integrated
	}
	return reading, ""
}

// fail marks the card as unreadable, which invalidates all values but its identity.
func (c *nvmlCard) fail(reason string) []energy.Fault {
	d, now := c.details, time.Now()
	c.current = energy.GPU{At: now, Index: d.Index, Name: d.Name, UUID: d.UUID, Driver: d.Driver, MIG: d.MIG, Fault: reason}
	c.missed = true
	if c.zone == nil {
		return nil
	}
	return []energy.Fault{{Zone: c.zone, At: now, Err: reason}}
}

// maxUtilization returns the utilization of a card's busiest engine, 0 to 1; nil if unknown.
func maxUtilization(card *energy.GPU) *float64 {
	var highest *float64
	for _, percent := range []*float64{card.UtilizationPercent, card.EncoderUtilizationPercent, card.DecoderUtilizationPercent} {
		if percent != nil && (highest == nil || *percent/100 > *highest) {
			utilization := *percent / 100
			highest = &utilization
		}
	}
	return highest
}

func watts(mw *uint64) *energy.Watts {
	if mw == nil {
		return nil
	}
	w := milliwatts(*mw)
	return &w
}

func milliwatts(mw uint64) energy.Watts { return energy.Watts(float64(mw) / 1000) }
