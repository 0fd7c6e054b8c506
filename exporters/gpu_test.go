package exporters_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/exporters"
	"ffmpeg-agent/hardware/energy"
)

// card returns a card that supports all values.
func card(index int, uuid string) energy.GPU {
	return energy.GPU{
		At: time.Now(), Index: index, Name: "NVIDIA L4", UUID: uuid, Driver: "550.1",
		Power: pointer(energy.Watts(60.5)), PowerInstant: pointer(energy.Watts(66)), PowerLimit: pointer(energy.Watts(72)),
		TemperatureCelsius: pointer(51.0), UtilizationPercent: pointer(40.0), MemoryUtilizationPercent: pointer(20.0),
		EncoderUtilizationPercent: pointer(70.0), DecoderUtilizationPercent: pointer(0.0),
		MemoryUsed: pointer(uint64(1 << 30)), MemoryTotal: pointer(uint64(24 << 30)),
		ClockGraphicsMHz: pointer(2040.0), ClockSMMHz: pointer(2040.0), ClockMemoryMHz: pointer(6251.0),
		ThrottleReasons: []string{"sw_power_cap"},
	}
}

func gpuZone(uuid string) energy.ZoneState {
	z := zone("gpu0", "nvml", energy.Measured, true)
	z.Zone.ID, z.Zone.Domain = uuid, energy.DomainGPU
	return z
}

func scrapeGPU(t *testing.T, snapshot *energy.Snapshot, cards ...energy.GPU) string {
	return scrapeOf(t, exporters.NewGPU(func() []energy.GPU { return cards },
		func() *energy.Snapshot { return snapshot }, exporters.GPUConfig{Version: "1.2.3"}))
}

func TestGPUScrape(t *testing.T) {
	lost := card(1, "GPU-b")
	lost.Fault = "GPU is lost"
	bare := energy.GPU{At: time.Now(), Index: 2, Name: "NVIDIA L4", UUID: "GPU-c", MIG: true}
	for name, scrape := range map[string]string{
		"gpu_cards": scrapeGPU(t, &energy.Snapshot{Zones: []energy.ZoneState{gpuZone("GPU-a"), gpuZone("GPU-b")}}, card(0, "GPU-a"), lost, bare),
		"gpu_none":  scrapeGPU(t, nil),
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, scrape)
			lint(t, scrape, "gpu_count")
		})
	}
}

func TestUnknownGPUValuesAreAbsent(t *testing.T) {
	gauges := []string{
		"gpu_power_draw_watts{", "gpu_power_instant_watts{", "gpu_power_limit_watts{", "gpu_temperature_celsius{", "gpu_utilization_percent{",
		"gpu_memory_u", "gpu_encoder_utilization_percent{", "gpu_decoder_utilization_percent{", "gpu_clocks", "gpu_throttled{",
	}
	bare := energy.GPU{At: time.Now(), Name: "NVIDIA L4", UUID: "GPU-a"}
	lost, stale := card(0, "GPU-a"), card(0, "GPU-a")
	lost.Fault = "GPU is lost"
	stale.At = time.Now().Add(-time.Hour)
	for name, test := range map[string]struct {
		card  energy.GPU
		alive string
	}{"supports nothing": {bare, "1"}, "lost": {lost, "0"}, "stale": {stale, "0"}} {
		t.Run(name, func(t *testing.T) {
			scrape := scrapeGPU(t, &energy.Snapshot{Zones: []energy.ZoneState{gpuZone("GPU-a")}}, test.card)
			wantAbsent(t, scrape, gauges...)
			wantValue(t, scrape, "gpu_exporter_alive", test.alive)
			wantValue(t, scrape, "gpu_count", "1")
			// The counter keeps its value.
			wantValue(t, scrape, `gpu_energy_joules_total{gpu_id="0",gpu_name="NVIDIA L4",gpu_uuid="GPU-a",method="nvml"}`, "1234.56789")
		})
	}
}

func TestCardIsIdentifiedByUUID(t *testing.T) {
	snapshot := &energy.Snapshot{Zones: []energy.ZoneState{gpuZone("GPU-a"), gpuZone("GPU-b")}}
	snapshot.Zones[1].Energy = 5_000_000
	cards := []energy.GPU{card(0, "GPU-a"), card(1, "GPU-b")}
	server := serve(t, exporters.Config{Name: "gpu", Collectors: []prometheus.Collector{exporters.NewGPU(
		func() []energy.GPU { return cards }, func() *energy.Snapshot { return snapshot }, exporters.GPUConfig{})}})
	joules := func(index, uuid string) string {
		return `gpu_energy_joules_total{gpu_id="` + index + `",gpu_name="NVIDIA L4",gpu_uuid="` + uuid + `",method="nvml"}`
	}
	wantValue(t, server.scrape(), joules("1", "GPU-b"), "5")
	cards = []energy.GPU{card(0, "GPU-b"), card(1, "GPU-a")} // indices swapped after a driver reload
	scrape := server.scrape()
	wantValue(t, scrape, joules("0", "GPU-b"), "5")
	wantValue(t, scrape, joules("1", "GPU-a"), "1234.56789")
	wantAbsent(t, scrape, joules("1", "GPU-b"))
}

func TestEnergyOfUnreadCardIsAbsent(t *testing.T) {
	never := with(gpuZone("GPU-a"), func(z *energy.ZoneState) { z.Energy, z.LastReading, z.Fault = 0, time.Time{}, "lost" })
	notACard := with(gpuZone("GPU-b"), func(z *energy.ZoneState) {
		cpu := *z.Zone
		cpu.Domain = energy.DomainCPU
		z.Zone = &cpu
	})
	scrape := scrapeGPU(t, &energy.Snapshot{Zones: []energy.ZoneState{never, notACard}}, card(0, "GPU-a"), card(1, "GPU-b"))
	wantAbsent(t, scrape, "gpu_energy_joules_total")
	wantValue(t, scrape, `gpu_energy_faults_total{gpu_id="0",gpu_name="NVIDIA L4",gpu_uuid="GPU-a"}`, "2")
}

func TestThrottleReasonsAreBounded(t *testing.T) {
	throttled := card(0, "GPU-a")
	throttled.ThrottleReasons = []string{"bit_11", "sw_power_cap", "future_reason", "sw_power_cap"}
	scrape := scrapeGPU(t, nil, throttled)
	for _, reason := range []string{"sw_power_cap", "other"} {
		wantValue(t, scrape, `gpu_throttled{gpu_id="0",gpu_name="NVIDIA L4",gpu_uuid="GPU-a",reason="`+reason+`"}`, "1")
	}
	if got := strings.Count(scrape, "\ngpu_throttled{"); got != 2 {
		t.Errorf("got %d series, want 2:\n%s", got, scrape)
	}
}

func TestNonFiniteValuesAreAbsent(t *testing.T) {
	odd := card(0, "GPU-a")
	odd.Power, odd.TemperatureCelsius = pointer(energy.Watts(math.NaN())), pointer(math.Inf(1))
	scrape := scrapeGPU(t, nil, odd)
	wantAbsent(t, scrape, "gpu_power_draw_watts", "gpu_temperature_celsius")
	wantValue(t, scrape, `gpu_power_instant_watts{gpu_id="0",gpu_name="NVIDIA L4",gpu_uuid="GPU-a"}`, "66")
}
