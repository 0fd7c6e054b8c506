package exporters

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/hardware/energy"
)

// CPUSettings describe the CPU exporter.
type CPUSettings struct {
	Version string // of the agent
	// StaleAfter is the age at which a zone's last reading no longer tells its
	// power; well above the interval between readings. 0 is 3 minutes.
	StaleAfter time.Duration
	// Discovered counts the machine's RAPL zones, those that this process may not read
	// included: the ledger does not know of zones that none of could be opened. nil counts
	// the ledger's.
	Discovered func() int
}

// cpuCollector exports the power and energy of processors and memory. Names that
// begin with rapl_ are of RAPL's own counters alone; other sensors are cpu_sensor_…,
// and a model's figures cpu_estimated_…, so that none passes for what it is not.
type cpuCollector struct {
	snapshot func() *energy.Snapshot
	settings CPUSettings

	info, available, discovered *prometheus.Desc
	zone, readable              *prometheus.Desc
	gaps, faults                *prometheus.Desc
	idle, idleSpread, idleAge   *prometheus.Desc
	rapl, sensor, estimate      powerDescs
}

// powerDescs are the two figures of a zone, by how they were come by.
type powerDescs struct{ power, energy *prometheus.Desc }

// NewCPU collects for port 9510 from the energy ledger's latest snapshot, which may
// be nil while there is none.
func NewCPU(snapshot func() *energy.Snapshot, settings CPUSettings) prometheus.Collector {
	if settings.StaleAfter <= 0 {
		settings.StaleAfter = 3 * time.Minute
	}
	var d describer
	c := &cpuCollector{
		snapshot: snapshot, settings: settings,
		info: d.desc("cpu_exporter_info", "The exporter: the agent's version, and whether this machine's CPU energy is measured, estimated or unavailable.",
			"version", "source"),
		available:  d.desc("rapl_available", "Whether a RAPL zone of this machine can be read now."),
		discovered: d.desc("rapl_zones_discovered", "RAPL zones found on this machine, readable or not."),
		zone: d.desc("cpu_energy_zone_info", "A zone: the system's own id of it, what it measures, how, and whether it counts towards the machine's total (a zone that lies inside another does not).",
			"zone", "id", "domain", "method", "counted"),
		readable:   d.desc("cpu_energy_zone_readable", "Whether the zone can be read now.", "zone"),
		gaps:       d.desc("cpu_energy_gaps_total", "Times that the energy used between two readings of the zone could not be told.", "zone"),
		faults:     d.desc("cpu_energy_faults_total", "Readings of the zone that failed.", "zone"),
		idle:       d.desc("energy_baseline_power_watts", "What the counted zones use together while the machine is idle, as the agent learned it."),
		idleSpread: d.desc("energy_baseline_spread_watts", "Half of the distance between the 10th and the 90th percentile of what was learned of idleness."),
		idleAge:    d.desc("energy_baseline_age_seconds", "How long ago the machine was last seen idle."),
		rapl: powerDescs{
			d.desc("rapl_power_watts", "Power of the RAPL zone over its last readings.", "zone"),
			d.desc("rapl_energy_joules_total", "Energy used in the RAPL zone since the agent started, wraps of its counter undone.", "zone"),
		},
		sensor: powerDescs{
			d.desc("cpu_sensor_power_watts", "Power by a sensor other than RAPL, over its last readings.", "zone", "method"),
			d.desc("cpu_sensor_energy_joules_total", "Energy by a sensor other than RAPL since the agent started.", "zone", "method"),
		},
		estimate: powerDescs{
			d.desc("cpu_estimated_power_watts", "Power as a model has it. Not measured.", "zone", "method"),
			d.desc("cpu_estimated_energy_joules_total", "Energy as a model has it since the agent started. Not measured.", "zone", "method"),
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
			readable := z.Healthy() && time.Since(z.LastReading) < c.settings.StaleAfter
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
	if c.settings.Discovered != nil {
		zones = max(zones, c.settings.Discovered())
	}
	if snapshot != nil || zones > 0 {
		m.gauge(c.discovered, float64(zones))
	}
	m.flag(c.available, available)
	m.gauge(c.info, 1, c.settings.Version, string(source))
}

// zoneNames are the zones' labels, in their order, no two alike: where firmware gives one
// name twice, the later one's id is added, and a number where that does not help.
func zoneNames(s *energy.Snapshot) []string {
	names := make([]string, len(s.Zones))
	taken := map[string]bool{}
	for i := range s.Zones {
		name := valid(s.Zones[i].Name)
		if taken[name] {
			name += "@" + valid(s.Zones[i].ID)
		}
		for same, n := name, 2; taken[name]; n++ {
			name = fmt.Sprintf("%s#%d", same, n)
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

	descs, labels := c.figuresOf(z, name)
	if readable && z.Power != nil {
		m.gauge(descs.power, float64(*z.Power), labels...)
	}
	if everRead(z) {
		m.counter(descs.energy, float64(z.Energy.Joules()), labels...)
	}
}

// everRead: the zone's energy is known, be it 0.
func everRead(z *energy.ZoneState) bool { return z.Energy > 0 || !z.LastReading.IsZero() }

// figuresOf says under which names a zone's figures go.
func (c *cpuCollector) figuresOf(z *energy.ZoneState, name string) (powerDescs, []string) {
	switch {
	case isRAPL(z):
		return c.rapl, []string{name}
	case z.Source == energy.Measured:
		return c.sensor, []string{name, z.Method}
	}
	return c.estimate, []string{name, z.Method}
}

func isRAPL(z *energy.ZoneState) bool { return z.Method == "rapl" && z.Source == energy.Measured }
