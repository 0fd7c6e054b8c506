package exporters_test

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"ffmpeg-agent/exporters"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
)

// text generates names as firmware or drivers may return them: often duplicates, or texts
// that differ only in invalid UTF-8.
var text = rapid.OneOf(
	rapid.SampledFrom([]string{"package-0", "dram", "a", "b", "package-0@b", "package-0@b#2", "", "\xff", "\xfe", "package-0@\xff", "\"\n\\{}"}),
	rapid.String(),
	rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 6), func(b []byte) string { return string(b) }),
)

var oddNumber = rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64}))

// odd generates a value that may be nil or not finite.
func odd(t *rapid.T, label string) *float64 { return rapid.Ptr(oddNumber, true).Draw(t, label) }

func anyZone(t *rapid.T) energy.ZoneState {
	z := energy.ZoneState{
		Zone: &energy.Zone{
			ID: text.Draw(t, "id"), Name: text.Draw(t, "name"), Counted: rapid.Bool().Draw(t, "counted"),
			Domain: rapid.SampledFrom([]energy.Domain{energy.DomainCPU, energy.DomainDRAM, energy.DomainGPU, energy.DomainPlatform}).Draw(t, "domain"),
			Source: rapid.SampledFrom([]energy.Source{energy.Measured, energy.Estimated}).Draw(t, "source"),
			Method: rapid.SampledFrom([]string{"rapl", "hwmon", "nvml", "estimate"}).Draw(t, "method"),
		},
		Energy: energy.Microjoules(rapid.Int64Min(0).Draw(t, "energy")),
	}
	if power := odd(t, "power"); power != nil {
		z.Power = pointer(energy.Watts(*power))
	}
	if rapid.Bool().Draw(t, "read") {
		z.LastReading = time.Now()
	}
	return z
}

func anyCard(t *rapid.T) energy.GPU {
	return energy.GPU{
		At: time.Now(), Index: rapid.IntRange(0, 2).Draw(t, "index"), Name: text.Draw(t, "model"), UUID: text.Draw(t, "uuid"),
		Driver: text.Draw(t, "driver"), MIG: rapid.Bool().Draw(t, "mig"), ThrottleReasons: rapid.SliceOfN(text, 0, 3).Draw(t, "throttles"),
		TemperatureCelsius: odd(t, "temperature"), UtilizationPercent: odd(t, "use"), EncoderUtilizationPercent: odd(t, "encoder"), ClockSMMHz: odd(t, "clock"),
		Fault: rapid.SampledFrom([]string{"", "lost"}).Draw(t, "fault"),
	}
}

// gather collects through a pedantic registry, which fails on duplicate or undescribed
// series, and returns the number of series by metric name. It also fails on values that
// are not finite.
func gather(t *rapid.T, c prometheus.Collector) map[string]int {
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]int{}
	for _, f := range families {
		series[f.GetName()] = len(f.GetMetric())
		for _, m := range f.GetMetric() {
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue()
			if math.IsNaN(value) || math.IsInf(value, 0) {
				t.Fatalf("%s: got %v, want a finite value", f.GetName(), value)
			}
			if f.GetName() == "exporter_collector_success" && value != 1 {
				t.Fatal("the collection failed")
			}
		}
	}
	return series
}

// Each zone has its own series, whatever names the firmware gives them.
func TestZoneLabelsAreUnique(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &energy.Snapshot{Zones: rapid.SliceOfN(rapid.Custom(anyZone), 0, 8).Draw(t, "zones")}
		snapshot := func() *energy.Snapshot { return s }
		exported, read := 0, 0
		for i := range s.Zones {
			z := &s.Zones[i]
			if z.Domain == energy.DomainGPU {
				continue
			}
			exported++
			if z.Energy > 0 || !z.LastReading.IsZero() {
				read++
			}
		}
		cpu := gather(t, exporters.NewCPU(snapshot, exporters.CPUConfig{}))
		if got := cpu["cpu_energy_zone_info"]; got != exported {
			t.Errorf("got cpu_energy_zone_info for %d zones, want %d", got, exported)
		}
		joules := cpu["rapl_energy_joules_total"] + cpu["cpu_sensor_energy_joules_total"] + cpu["cpu_estimated_energy_joules_total"]
		if joules != read {
			t.Errorf("got energy of %d zones, want %d", joules, read)
		}
		agent := gather(t, exporters.NewAgent(func() messages.Status { return status() }, snapshot, exporters.BuildInfo{}))
		if got := agent["ffmpeg_agent_energy_gaps_total"]; got != len(s.Zones) {
			t.Errorf("got ffmpeg_agent_energy_gaps_total for %d zones, want %d", got, len(s.Zones))
		}
	})
}

// Each card is exported once, even if cards share a name or index, or a card is listed twice.
func TestCardLabelsAreUnique(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cards := rapid.SliceOfN(rapid.Custom(anyCard), 0, 6).Draw(t, "cards")
		s := &energy.Snapshot{Zones: rapid.SliceOfN(rapid.Custom(anyZone), 0, 6).Draw(t, "zones")}
		uuids, readable := map[string]bool{}, 0
		for _, c := range cards {
			uuid := strings.ToValidUTF8(c.UUID, "\uFFFD")
			if !uuids[uuid] && c.Fault == "" {
				readable++
			}
			uuids[uuid] = true
		}
		series := gather(t, exporters.NewGPU(func() []energy.GPU { return cards }, func() *energy.Snapshot { return s }, exporters.GPUConfig{}))
		if got := series["gpu_exporter_info"]; got != len(uuids) {
			t.Errorf("got gpu_exporter_info for %d cards, want one each for %q", got, slices.Collect(maps.Keys(uuids)))
		}
		if got := series["gpu_mig_enabled"]; got != readable {
			t.Errorf("got gpu_mig_enabled for %d cards, want %d", got, readable)
		}
	})
}
