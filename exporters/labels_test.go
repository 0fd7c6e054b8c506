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

// text that firmware, a driver or whoever writes the files that we read may have made up;
// often the same twice, or the same but for bytes that are no text.
var text = rapid.OneOf(
	rapid.SampledFrom([]string{"package-0", "dram", "a", "b", "package-0@b", "package-0@b#2", "", "\xff", "\xfe", "package-0@\xff", "\"\n\\{}"}),
	rapid.String(),
	rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 6), func(b []byte) string { return string(b) }),
)

var oddNumber = rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64}))

// odd is a figure that may be absent, or none.
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

// gather is what a registry that checks everything gets of a collector: how many series, by
// name. It fails where two have the same labels, one is none of those described, or a figure
// is no finite number.
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
				t.Fatalf("%s is %v", f.GetName(), value)
			}
			if f.GetName() == "exporter_collector_success" && value != 1 {
				t.Fatal("the collection failed")
			}
		}
	}
	return series
}

// Whatever firmware calls its zones, no two of them share a series, and none is left out.
func TestZoneLabelsNeverCollide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &energy.Snapshot{Zones: rapid.SliceOfN(rapid.Custom(anyZone), 0, 8).Draw(t, "zones")}
		snapshot := func() *energy.Snapshot { return s }
		mine, read := 0, 0
		for i := range s.Zones {
			z := &s.Zones[i]
			if z.Domain == energy.DomainGPU {
				continue
			}
			mine++
			if z.Energy > 0 || !z.LastReading.IsZero() {
				read++
			}
		}
		cpu := gather(t, exporters.NewCPU(snapshot, exporters.CPUSettings{}))
		if got := cpu["cpu_energy_zone_info"]; got != mine {
			t.Errorf("%d zones told of %d", got, mine)
		}
		joules := cpu["rapl_energy_joules_total"] + cpu["cpu_sensor_energy_joules_total"] + cpu["cpu_estimated_energy_joules_total"]
		if joules != read {
			t.Errorf("energy of %d zones told, of %d that were read", joules, read)
		}
		agent := gather(t, exporters.NewAgent(func() messages.Status { return status() }, snapshot, exporters.BuildInfo{}))
		if got := agent["ffmpeg_agent_energy_gaps_total"]; got != len(s.Zones) {
			t.Errorf("%d zones told of %d", got, len(s.Zones))
		}
	})
}

// Two cards of one name and, in a moment of disorder, of one index, or the same card twice:
// each is told once.
func TestCardLabelsNeverCollide(t *testing.T) {
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
		told := gather(t, exporters.NewGPU(func() []energy.GPU { return cards }, func() *energy.Snapshot { return s }, exporters.GPUSettings{}))
		if got := told["gpu_exporter_info"]; got != len(uuids) {
			t.Errorf("%d cards told of %q", got, slices.Collect(maps.Keys(uuids)))
		}
		if got := told["gpu_mig_enabled"]; got != readable {
			t.Errorf("figures of %d cards told, of %d that can be read", got, readable)
		}
	})
}
