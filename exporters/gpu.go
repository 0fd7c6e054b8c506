package exporters

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/hardware/energy"
)

// GPUConfig configures the GPU collector.
type GPUConfig struct {
	Version string // of the agent
	// StaleAfter returns the age at which a card's last reading is too old to export. It
	// must be well above the sampling interval. nil means 3 minutes.
	StaleAfter func() time.Duration
}

// gpuCollector exports NVIDIA GPUs. A value that a card does not support, or that cannot
// currently be read, has no series.
type gpuCollector struct {
	cards    func() []energy.GPU
	snapshot func() *energy.Snapshot
	cfg      GPUConfig

	alive, count, info, readable, mig, throttled *prometheus.Desc
	gauges                                       []gpuGauge
	joules, gaps, faults                         *prometheus.Desc
}

// gpuGauge is a gauge of a card; value returns nil if it is unknown.
type gpuGauge struct {
	desc  *prometheus.Desc
	value func(*energy.GPU) *float64
}

// gpuLabels identify the card in each of its series.
var gpuLabels = []string{"gpu_id", "gpu_name", "gpu_uuid"}

// NewGPU returns the collector of port 9511. cards returns the latest reading of each card,
// snapshot the latest snapshot of the energy ledger; either may be nil.
func NewGPU(cards func() []energy.GPU, snapshot func() *energy.Snapshot, cfg GPUConfig) prometheus.Collector {
	if cfg.StaleAfter == nil {
		cfg.StaleAfter = func() time.Duration { return defaultStaleAfter }
	}
	var d describer
	card := func(name, help string, more ...string) *prometheus.Desc {
		return d.desc(name, help, append(slices.Clone(gpuLabels), more...)...)
	}
	gauge := func(name, help string, value func(*energy.GPU) *float64) gpuGauge {
		return gpuGauge{card(name, help), value}
	}
	c := &gpuCollector{
		cards: cards, snapshot: snapshot, cfg: cfg,
		alive:     d.desc("gpu_exporter_alive", "Whether any card can currently be read."),
		count:     d.desc("gpu_count", "Number of cards on this machine, readable or not."),
		info:      card("gpu_exporter_info", "A metric with a constant value of 1 for each card, labeled with the versions of the agent and the driver.", "version", "driver_version"),
		readable:  card("gpu_readable", "Whether the card can currently be read."),
		mig:       card("gpu_mig_enabled", "Whether MIG mode is enabled, in which encoder utilization is not reported."),
		throttled: card("gpu_throttled", "Current reasons for reduced clocks: 1 for each active NVML throttle reason, or other.", "reason"),
		joules:    card("gpu_energy_joules_total", "Energy used by the card since the agent started, corrected for counter resets.", "method"),
		gaps:      card("gpu_energy_gaps_total", "Times the energy between two readings of the card could not be determined."),
		faults:    card("gpu_energy_faults_total", "Failed readings of the card."),
	}
	c.gauges = []gpuGauge{
		gauge("gpu_power_draw_watts", "Power draw, averaged by the driver: over one second on most cards since Ampere.", func(g *energy.GPU) *float64 { return number(g.Power) }),
		gauge("gpu_power_instant_watts", "Instantaneous power draw, if supported by the card.", func(g *energy.GPU) *float64 { return number(g.PowerInstant) }),
		gauge("gpu_power_limit_watts", "Enforced power limit.", func(g *energy.GPU) *float64 { return number(g.PowerLimit) }),
		gauge("gpu_temperature_celsius", "GPU temperature.", func(g *energy.GPU) *float64 { return g.TemperatureCelsius }),
		gauge("gpu_utilization_percent", "Percentage of time during which a kernel was running.", func(g *energy.GPU) *float64 { return g.UtilizationPercent }),
		gauge("gpu_memory_utilization_percent", "Percentage of time during which memory was being read or written.", func(g *energy.GPU) *float64 { return g.MemoryUtilizationPercent }),
		gauge("gpu_encoder_utilization_percent", "Utilization of the video encoder.", func(g *energy.GPU) *float64 { return g.EncoderUtilizationPercent }),
		gauge("gpu_decoder_utilization_percent", "Utilization of the video decoder.", func(g *energy.GPU) *float64 { return g.DecoderUtilizationPercent }),
		gauge("gpu_memory_used_bytes", "Used GPU memory.", func(g *energy.GPU) *float64 { return number(g.MemoryUsed) }),
		gauge("gpu_memory_total_bytes", "Total GPU memory.", func(g *energy.GPU) *float64 { return number(g.MemoryTotal) }),
		gauge("gpu_clocks_graphics_mhz", "Graphics clock.", func(g *energy.GPU) *float64 { return g.ClockGraphicsMHz }),
		gauge("gpu_clocks_sm_mhz", "Streaming multiprocessor clock.", func(g *energy.GPU) *float64 { return g.ClockSMMHz }),
		gauge("gpu_clocks_memory_mhz", "Memory clock.", func(g *energy.GPU) *float64 { return g.ClockMemoryMHz }),
	}
	return newCollector("gpu", d.all, c.update)
}

// number converts a value to float64; nil stays nil.
func number[T ~float64 | ~uint64](value *T) *float64 {
	if value == nil {
		return nil
	}
	f := float64(*value)
	return &f
}

func (c *gpuCollector) update(m *metrics) {
	cards := c.cards()
	alive := false
	seen := map[string]bool{}
	for i := range cards {
		card := &cards[i]
		uuid := validUTF8(card.UUID)
		if seen[uuid] {
			continue
		}
		seen[uuid] = true
		readable := card.Fault == "" && time.Since(card.At) < c.cfg.StaleAfter()
		alive = alive || readable
		c.updateCard(m, card, readable)
	}
	m.flag(c.alive, alive)
	m.gauge(c.count, float64(len(seen)))
}

func (c *gpuCollector) updateCard(m *metrics, card *energy.GPU, readable bool) {
	labels := func(more ...string) []string {
		return append([]string{strconv.Itoa(card.Index), card.Name, card.UUID}, more...)
	}
	m.gauge(c.info, 1, labels(c.cfg.Version, card.Driver)...)
	m.flag(c.readable, readable, labels()...)
	if zone := c.zone(card.UUID); zone != nil {
		if everRead(zone) {
			m.counter(c.joules, float64(zone.Energy.Joules()), labels(zone.Method)...)
		}
		m.counter(c.gaps, float64(zone.Gaps), labels()...)
		m.counter(c.faults, float64(zone.Faults), labels()...)
	}
	if !readable {
		return
	}
	m.flag(c.mig, card.MIG, labels()...)
	for _, g := range c.gauges {
		if value := g.value(card); value != nil {
			m.gauge(g.desc, *value, labels()...)
		}
	}
	for _, reason := range reasonLabels(card.ThrottleReasons) {
		m.gauge(c.throttled, 1, labels(reason)...)
	}
}

// throttleReasons are the clock throttle reasons defined in nvml.h that reduce clocks.
var throttleReasons = []string{
	"applications_clocks_setting", "sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal_slowdown",
	"hw_thermal_slowdown", "hw_power_brake_slowdown", "display_clock_setting", "board_limit", "reliability",
}

// reasonLabels returns each reason once, with "other" for unknown ones, which bounds the
// number of series.
func reasonLabels(reasons []string) []string {
	labels := map[string]bool{}
	for _, reason := range reasons {
		if !slices.Contains(throttleReasons, reason) {
			reason = "other"
		}
		labels[reason] = true
	}
	return slices.Sorted(maps.Keys(labels))
}

// zone returns the card's zone in the energy ledger, or nil if it has none.
func (c *gpuCollector) zone(uuid string) *energy.ZoneState {
	snapshot := c.snapshot()
	if snapshot == nil {
		return nil
	}
	for i := range snapshot.Zones {
		if z := &snapshot.Zones[i]; z.ID == uuid && z.Domain == energy.DomainGPU {
			return z
		}
	}
	return nil
}
