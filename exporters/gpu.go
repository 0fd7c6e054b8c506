package exporters

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/hardware/energy"
)

// GPUSettings describe the GPU exporter.
type GPUSettings struct {
	Version string // of the agent
	// StaleAfter is the age at which what a card told last is no longer shown; well above
	// the interval between readings. 0 is 3 minutes.
	StaleAfter time.Duration
}

// gpuCollector exports NVIDIA's cards. What a card does not tell, or not now, has no
// series.
type gpuCollector struct {
	cards    func() []energy.GPU
	snapshot func() *energy.Snapshot
	settings GPUSettings

	alive, count, info, readable, mig, throttled *prometheus.Desc
	figures                                      []gpuFigure
	joules, gaps, faults                         *prometheus.Desc
}

// gpuFigure is one gauge of a card.
type gpuFigure struct {
	desc  *prometheus.Desc
	value func(*energy.GPU) *float64
}

// gpuLabels are those of each card's series.
var gpuLabels = []string{"gpu_id", "gpu_name", "gpu_uuid"}

// NewGPU collects for port 9511 from the cards as they were last seen and the energy
// ledger's latest snapshot; either may be nil while there is none.
func NewGPU(cards func() []energy.GPU, snapshot func() *energy.Snapshot, settings GPUSettings) prometheus.Collector {
	if settings.StaleAfter <= 0 {
		settings.StaleAfter = 3 * time.Minute
	}
	var d describer
	card := func(name, help string, more ...string) *prometheus.Desc {
		return d.desc(name, help, append(slices.Clone(gpuLabels), more...)...)
	}
	figure := func(name, help string, value func(*energy.GPU) *float64) gpuFigure {
		return gpuFigure{card(name, help), value}
	}
	c := &gpuCollector{
		cards: cards, snapshot: snapshot, settings: settings,
		alive:     d.desc("gpu_exporter_alive", "Whether a card of this machine can be read now."),
		count:     d.desc("gpu_count", "Cards found on this machine, readable or not."),
		info:      card("gpu_exporter_info", "A card: the agent's version and the driver's.", "version", "driver_version"),
		readable:  card("gpu_readable", "Whether the card can be read now."),
		mig:       card("gpu_mig_enabled", "Whether the card is divided into instances; then its encoder's use is not told."),
		throttled: card("gpu_throttled", "Why the card's clocks are held down now: 1 for each reason, named as NVML does, or other.", "reason"),
		joules:    card("gpu_energy_joules_total", "Energy that the card has used since the agent started, resets of its counter left out.", "method"),
		gaps:      card("gpu_energy_gaps_total", "Times that the energy used between two readings of the card could not be told."),
		faults:    card("gpu_energy_faults_total", "Readings of the card that failed."),
	}
	c.figures = []gpuFigure{
		figure("gpu_power_draw_watts", "Power, as the driver averages it: over a second on most cards since Ampere.", func(g *energy.GPU) *float64 { return number(g.Power) }),
		figure("gpu_power_instant_watts", "Power at this moment, where the card tells it.", func(g *energy.GPU) *float64 { return number(g.PowerInstant) }),
		figure("gpu_power_limit_watts", "Power limit in force.", func(g *energy.GPU) *float64 { return number(g.PowerLimit) }),
		figure("gpu_temperature_celsius", "Temperature of the chip.", func(g *energy.GPU) *float64 { return g.TemperatureCelsius }),
		figure("gpu_utilization_percent", "Part of the time that any kernel ran.", func(g *energy.GPU) *float64 { return g.UtilizationPercent }),
		figure("gpu_memory_utilization_percent", "Part of the time that memory was read or written.", func(g *energy.GPU) *float64 { return g.MemoryUtilizationPercent }),
		figure("gpu_encoder_utilization_percent", "Use of the video encoders.", func(g *energy.GPU) *float64 { return g.EncoderUtilizationPercent }),
		figure("gpu_decoder_utilization_percent", "Use of the video decoders.", func(g *energy.GPU) *float64 { return g.DecoderUtilizationPercent }),
		figure("gpu_memory_used_bytes", "Memory in use.", func(g *energy.GPU) *float64 { return number(g.MemoryUsed) }),
		figure("gpu_memory_total_bytes", "Memory of the card.", func(g *energy.GPU) *float64 { return number(g.MemoryTotal) }),
		figure("gpu_clocks_graphics_mhz", "Clock of the graphics engine.", func(g *energy.GPU) *float64 { return g.ClockGraphicsMHz }),
		figure("gpu_clocks_sm_mhz", "Clock of the multiprocessors.", func(g *energy.GPU) *float64 { return g.ClockSMMHz }),
		figure("gpu_clocks_memory_mhz", "Clock of the memory.", func(g *energy.GPU) *float64 { return g.ClockMemoryMHz }),
	}
	return newCollector("gpu", d.all, c.update)
}

// number is a figure as a float64; nil stays nil.
func number[T ~float64 | ~uint64](figure *T) *float64 {
	if figure == nil {
		return nil
	}
	f := float64(*figure)
	return &f
}

func (c *gpuCollector) update(m *metrics) {
	cards := c.cards()
	alive := false
	seen := map[string]bool{}
	for i := range cards {
		card := &cards[i]
		uuid := valid(card.UUID)
		if seen[uuid] {
			continue
		}
		seen[uuid] = true
		readable := card.Fault == "" && time.Since(card.At) < c.settings.StaleAfter
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
	m.gauge(c.info, 1, labels(c.settings.Version, card.Driver)...)
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
	for _, f := range c.figures {
		if value := f.value(card); value != nil {
			m.gauge(f.desc, *value, labels()...)
		}
	}
	for _, reason := range reasons(card.ThrottleReasons) {
		m.gauge(c.throttled, 1, labels(reason)...)
	}
}

// throttleReasons are those of nvml.h that hold a card's clocks down, by its names.
var throttleReasons = []string{
	"applications_clocks_setting", "sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal_slowdown",
	"hw_thermal_slowdown", "hw_power_brake_slowdown", "display_clock_setting", "board_limit", "reliability",
}

// reasons as labels, each once. What is not known here is "other", so that no driver makes
// series without end.
func reasons(told []string) []string {
	named := map[string]bool{}
	for _, reason := range told {
		if !slices.Contains(throttleReasons, reason) {
			reason = "other"
		}
		named[reason] = true
	}
	return slices.Sorted(maps.Keys(named))
}

// zone of a card in the ledger; nil where it has none.
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
