package exporters_test

import (
	"strconv"
	"testing"
	"time"

	"ffmpeg-agent/exporters"
	"ffmpeg-agent/hardware/energy"
)

func zone(name, method string, source energy.Source, counted bool) energy.ZoneState {
	return energy.ZoneState{
		Zone: &energy.Zone{
			ID: method + ":" + name, Name: name, Domain: energy.DomainCPU, Counted: counted, Source: source, Method: method,
		},
		Power: pointer(energy.Watts(42.5)), Energy: 1_234_567_890, Gaps: 1, Faults: 2, LastReading: time.Now(),
	}
}

func with(z energy.ZoneState, change func(*energy.ZoneState)) energy.ZoneState {
	change(&z)
	return z
}

func scrapeCPU(t *testing.T, snapshot *energy.Snapshot) string {
	return scrapeOf(t, exporters.NewCPU(func() *energy.Snapshot { return snapshot }, exporters.CPUConfig{Version: "1.2.3"}))
}

func TestCPUScrape(t *testing.T) {
	rapl := func(name string, counted bool) energy.ZoneState { return zone(name, "rapl", energy.Measured, counted) }
	for name, snapshot := range map[string]*energy.Snapshot{
		"cpu_rapl": {Zones: []energy.ZoneState{
			rapl("package-0", true),
			rapl("core", false),
			with(rapl("package-0@intel-rapl-mmio:0", false), func(z *energy.ZoneState) { z.Energy = 0 }),
			with(rapl("dram", true), func(z *energy.ZoneState) { z.Domain, z.Power = energy.DomainDRAM, nil }),
		}},
		"cpu_estimate": {Zones: []energy.ZoneState{zone("cpu", "estimate", energy.Estimated, true)}},
		"cpu_hwmon":    {Zones: []energy.ZoneState{zone("soc", "hwmon", energy.Measured, true)}},
		"cpu_none":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			scrape := scrapeCPU(t, snapshot)
			golden(t, name, scrape)
			lint(t, scrape)
		})
	}
}

func TestIdleBaselineMetrics(t *testing.T) {
	s := &energy.Snapshot{Baseline: &energy.Baseline{Power: 20.5, Spread: 1.5, LearnedAt: time.Now().Add(-time.Hour)}}
	scrape := scrapeCPU(t, s)
	wantValue(t, scrape, "energy_baseline_power_watts", "20.5")
	wantValue(t, scrape, "energy_baseline_spread_watts", "1.5")
	text, _ := value(scrape, "energy_baseline_age_seconds")
	if age, err := strconv.ParseFloat(text, 64); err != nil || age < 3600 || age > 3600+timeout.Seconds() {
		t.Errorf("energy_baseline_age_seconds: got %q, want about 3600", text)
	}
	lint(t, scrape)
	s.Baseline.LearnedAt = time.Now().Add(time.Hour) // the clock was set back
	wantValue(t, scrapeCPU(t, s), "energy_baseline_age_seconds", "0")
	wantAbsent(t, scrapeCPU(t, &energy.Snapshot{}), "energy_baseline")
}

func TestEstimatesAreNotExportedAsMeasured(t *testing.T) {
	// The source decides, even if the method is named after a sensor.
	for _, method := range []string{"estimate", "rapl", "hwmon"} {
		scrape := scrapeCPU(t, &energy.Snapshot{Zones: []energy.ZoneState{zone("cpu", method, energy.Estimated, true)}})
		wantAbsent(t, scrape, "rapl_power_watts", "rapl_energy", "cpu_sensor")
		wantValue(t, scrape, "rapl_available", "0")
		wantValue(t, scrape, "rapl_zones_discovered", "0")
		wantValue(t, scrape, `cpu_exporter_info{source="estimated",version="1.2.3"}`, "1")
		wantValue(t, scrape, `cpu_estimated_power_watts{method="`+method+`",zone="cpu"}`, "42.5")
	}
}

func TestUnknownCPUValuesAreAbsent(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*energy.ZoneState)
		energy bool // whether the energy counter is still exported
	}{
		"power unknown":   {func(z *energy.ZoneState) { z.Power = nil }, true},
		"unreadable":      {func(z *energy.ZoneState) { z.Fault = "permission denied" }, true},
		"stale":           {func(z *energy.ZoneState) { z.LastReading = time.Now().Add(-time.Hour) }, true},
		"no recent delta": {func(z *energy.ZoneState) { z.LastReading = time.Time{} }, true},
		"never read": {func(z *energy.ZoneState) {
			z.Energy, z.Power, z.LastReading, z.Fault = 0, nil, time.Time{}, "permission denied"
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			scrape := scrapeCPU(t, &energy.Snapshot{Zones: []energy.ZoneState{
				with(zone("package-0", "rapl", energy.Measured, true), test.change),
			}})
			wantAbsent(t, scrape, "rapl_power_watts{")
			wantValue(t, scrape, "rapl_zones_discovered", "1")
			if _, present := value(scrape, `rapl_energy_joules_total{zone="package-0"}`); present != test.energy {
				t.Errorf("energy present: got %v, want %v", present, test.energy)
			}
			available := "0"
			if name == "power unknown" {
				available = "1"
			}
			wantValue(t, scrape, "rapl_available", available)
			wantValue(t, scrape, `cpu_energy_zone_readable{zone="package-0"}`, available)
		})
	}
}

func TestCPUExporterIgnoresGPUZones(t *testing.T) {
	card := with(zone("gpu-0", "nvml", energy.Measured, true), func(z *energy.ZoneState) { z.Domain = energy.DomainGPU })
	scrape := scrapeCPU(t, &energy.Snapshot{Zones: []energy.ZoneState{card}})
	wantAbsent(t, scrape, "cpu_sensor", "cpu_energy", "rapl_power", "rapl_energy")
	wantValue(t, scrape, `cpu_exporter_info{source="unavailable",version="1.2.3"}`, "1")
}

// Counters that only root may read exist nevertheless, so they count as discovered even
// while an estimate replaces them.
func TestUnreadableZonesAreDiscovered(t *testing.T) {
	for name, test := range map[string]struct {
		snapshot *energy.Snapshot
		found    int
		want     string // "": absent
	}{
		"estimate only":      {&energy.Snapshot{Zones: []energy.ZoneState{zone("cpu", "estimate", energy.Estimated, true)}}, 7, "7"},
		"one appeared":       {&energy.Snapshot{Zones: []energy.ZoneState{zone("package-0", "rapl", energy.Measured, true)}}, 2, "2"},
		"one disappeared":    {&energy.Snapshot{Zones: []energy.ZoneState{zone("package-0", "rapl", energy.Measured, true)}}, 0, "1"},
		"none":               {&energy.Snapshot{}, 0, "0"},
		"just started":       {nil, 7, "7"},
		"just started, none": {nil, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			scrape := scrapeOf(t, exporters.NewCPU(func() *energy.Snapshot { return test.snapshot },
				exporters.CPUConfig{CountRAPLZones: func() int { return test.found }}))
			if test.want == "" {
				wantAbsent(t, scrape, "rapl_zones_discovered ")
				return
			}
			wantValue(t, scrape, "rapl_zones_discovered", test.want)
		})
	}
}
