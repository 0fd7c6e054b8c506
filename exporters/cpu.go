package exporters

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/hardware/energy"
)

// CPUConfig configures the CPU collector.
type CPUConfig struct {
	Version string // of the agent
	// StaleAfter returns the age at which a zone's last reading is too old to export its
	// power. It must be well above the sampling interval. nil means 3 minutes.
	StaleAfter func() time.Duration
	// CountRAPLZones returns the number of RAPL zones on this machine, including those
	// that this process may not read: the ledger omits zones that could never be opened.
	// nil counts the ledger's zones only.
	CountRAPLZones func() int
}

// cpuCollector exports the power and energy of CPUs and memory. The metrics rapl_… are
// RAPL counters only. Other sensors are cpu_sensor_…, and estimates cpu_estimated_…, so
// that an estimate cannot be mistaken for a measurement.
type cpuCollector struct {
	snapshot func() *energy.Snapshot
	cfg      CPUConfig

	info, available, discovered *prometheus.Desc
	zone, readable              *prometheus.Desc
	gaps, faults                *prometheus.Desc
	idle, idleSpread, idleAge   *prometheus.Desc
	rapl, sensor, estimate      powerDescs
}

// powerDescs describes the power and energy of zones with the same kind of source.
type powerDescs struct{ power, energy *prometheus.Desc }

// NewCPU returns the collector of port 9510. snapshot returns the latest snapshot of the
// energy ledger, or nil if there is none yet.
func NewCPU(snapshot func() *energy.Snapshot, cfg CPUConfig) prometheus.Collector {
	if cfg.StaleAfter == nil {
		cfg.StaleAfter = func() time.Duration { return defaultStaleAfter }
	}
	var d describer
	c := &cpuCollector{
		snapshot: snapshot, cfg: cfg,
		info: d.desc("cpu_exporter_info", "A metric with a constant value of 1, labeled with the agent's version and whether CPU energy is measured, estimated or unavailable.",
			"version", "source"),
		available:  d.desc("rapl_available", "Whether any RAPL zone can currently be read."),
		discovered: d.desc("rapl_zones_discovered", "Number of RAPL zones on this machine, readable or not."),
		zone: d.desc("cpu_energy_zone_info", "An energy zone: its ID in the system, domain, method of measurement, and whether it counts toward the machine's total (zones inside another zone do not).",
			"zone", "id", "domain", "method", "counted"),
		readable:   d.desc("cpu_energy_zone_readable", "Whether the zone can currently be read.", "zone"),
		gaps:       d.desc("cpu_energy_gaps_total", "Times the energy between two readings of the zone could not be determined.", "zone"),
		faults:     d.desc("cpu_energy_faults_total", "Failed readings of the zone.", "zone"),
		idle:       d.desc("energy_baseline_power_watts", "Learned idle baseline: total power of the counted zones while the machine is idle."),
		idleSpread: d.desc("energy_baseline_spread_watts", "Half the distance between the 10th and 90th percentile of the idle samples."),
		idleAge:    d.desc("energy_baseline_age_seconds", "Time since the idle baseline was last updated."),
		rapl: powerDescs{
			d.desc("rapl_power_watts", "Power of the RAPL zone over its latest readings.", "zone"),
			d.desc("rapl_energy_joules_total", "Energy of the RAPL zone since the agent started, corrected for counter wraps.", "zone"),
		},
		sensor: powerDescs{
			d.desc("cpu_sensor_power_watts", "Power measured by a sensor other than RAPL, over its latest readings.", "zone", "method"),
			d.desc("cpu_sensor_energy_joules_total", "Energy measured by a sensor other than RAPL since the agent started.", "zone", "method"),
		},
		estimate: powerDescs{
			d.desc("cpu_estimated_power_watts", "Power estimated by a model, not measured.", "zone", "method"),
			d.desc("cpu_estimated_energy_joules_total", "Energy estimated by a model since the agent started, not measured.", "zone", "method"),
		},
	}
	return newCollector("cpu", d.all, c.update)
}

func (c *cpuCollector) update(m *metrics) {
	source, zones, available := energy.Unavailable, 0, false
	snapshot := c.snapshot()
	if snapshot != nil {
		names := zoneNames(snapshot)
		for i := range snapshot.Zones {
			z := &snapshot.Zones[i]
			if z.Domain == energy.DomainGPU {
				continue
			}
			readable := z.Healthy() && time.Since(z.LastReading) < c.cfg.StaleAfter()
			c.updateZone(m, z, names[i], readable)
			if isRAPL(z) {
				zones++
				available = available || readable
			}
			if readable && z.Counted && source != energy.Estimated {
				source = z.Source
			}
		}
		if b := snapshot.Baseline; b != nil {
			m.gauge(c.idle, float64(b.Power))
			m.gauge(c.idleSpread, float64(b.Spread))
			m.gauge(c.idleAge, max(0, time.Since(b.LearnedAt)).Seconds())
		}
	}
	if c.cfg.CountRAPLZones != nil {
		zones = max(zones, c.cfg.CountRAPLZones())
	}
	if snapshot != nil || zones > 0 {
		m.gauge(c.discovered, float64(zones))
	}
	m.flag(c.available, available)
	m.gauge(c.info, 1, c.cfg.Version, string(source))
}

// zoneNames returns a unique label for each zone. If firmware gives several zones the
// same name, the later ones get their ID appended, and a number if that is not unique.
func zoneNames(s *energy.Snapshot) []string {
	names := make([]string, len(s.Zones))
	taken := map[string]bool{}
	for i := range s.Zones {
		name := validUTF8(s.Zones[i].Name)
		if taken[name] {
			name += "@" + validUTF8(s.Zones[i].ID)
		}
		for base, n := name, 2; taken[name]; n++ {
			name = fmt.Sprintf("%s#%d", base, n)
		}
		taken[name] = true
		names[i] = name
	}
	return names
}

func (c *cpuCollector) updateZone(m *metrics, z *energy.ZoneState, name string, readable bool) {
	counted := "false"
	if z.Counted {
		counted = "true"
	}
	m.gauge(c.zone, 1, name, z.ID, string(z.Domain), z.Method, counted)
	m.flag(c.readable, readable, name)
	m.counter(c.gaps, float64(z.Gaps), name)
	m.counter(c.faults, float64(z.Faults), name)

	descs, labels := c.powerDescs(z, name)
	if readable && z.Power != nil {
		m.gauge(descs.power, float64(*z.Power), labels...)
	}
	if everRead(z) {
		m.counter(descs.energy, float64(z.Energy.Joules()), labels...)
	}
}

// everRead reports whether the zone's energy is known, even if it is 0.
func everRead(z *energy.ZoneState) bool { return z.Energy > 0 || !z.LastReading.IsZero() }

// powerDescs returns the descriptions and labels for a zone's power and energy.
func (c *cpuCollector) powerDescs(z *energy.ZoneState, name string) (powerDescs, []string) {
	switch {
	case isRAPL(z):
		return c.rapl, []string{name}
	case z.Source == energy.Measured:
		return c.sensor, []string{name, z.Method}
	}
	return c.estimate, []string{name, z.Method}
}

func isRAPL(z *energy.ZoneState) bool { return z.Method == "rapl" && z.Source == energy.Measured }
