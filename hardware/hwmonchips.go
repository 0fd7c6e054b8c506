package hardware

import (
	"slices"
	"strings"

	"ffmpeg-agent/hardware/energy"
)

// chipRule states what a sensor of a chip measures. It matches by the kernel's names.
type chipRule struct {
	chip   string // the driver's name for the chip
	label  string // prefix of the sensor's label, in lower case; "" matches any
	domain energy.Domain
	// rank selects the sensors that make up the total of a domain: those of the highest rank
	// present are added up. The others may measure parts of them and are only reported.
	rank int
	// includesMemory: the sensor's power includes the memory's.
	includesMemory bool
}

// Ranks.
const (
	onlyReported = iota
	rail         // a supply of a processor, beside the others of its chip
	socket       // a whole processor
)

// chipRules are tried in order. A sensor that matches none is ignored, such as those of graphics
// cards (amdgpu, i915, nouveau) and batteries.
//
// Sources: Linux, drivers/hwmon (xgene-hwmon.c, smpro-hwmon.c, fam15h_power.c,
// ibmpowernv.c, ibmaem.c, acpi_power_meter.c; amd_energy.c until 5.12); zenpower is
// github.com/ocerman/zenpower; for Grace, NVIDIA's Grace Performance Tuning Guide,
// "Power Telemetry": Grace is the whole socket with its memory, CPU and SysIO are rails in
// it, and Module includes Grace and the graphics card.
var chipRules = []chipRule{
	{chip: "power_meter", label: "grace power", domain: energy.DomainCPU, rank: socket, includesMemory: true},
	{chip: "power_meter", label: "cpu power", domain: energy.DomainCPU, rank: rail},
	{chip: "power_meter", label: "sysio power", domain: energy.DomainCPU, rank: rail},
	{chip: "power_meter", label: "module power", domain: energy.DomainPlatform},
	{chip: "power_meter", domain: energy.DomainPlatform, rank: rail},
	{chip: "aem1", domain: energy.DomainPlatform, rank: rail},
	{chip: "aem2", domain: energy.DomainPlatform},

	{chip: "apm_xgene", label: "cpu power", domain: energy.DomainCPU, rank: rail},
	{chip: "apm_xgene", label: "io power", domain: energy.DomainCPU, rank: rail},
	{chip: "smpro_hwmon", label: "power1 core vrd", domain: energy.DomainCPU, rank: rail},
	{chip: "smpro_hwmon", label: "power2 soc", domain: energy.DomainCPU, rank: rail},
	{chip: "smpro_hwmon", label: "power3 dimm", domain: energy.DomainDRAM, rank: rail},
	{chip: "smpro_hwmon", label: "power4 dimm", domain: energy.DomainDRAM, rank: rail},
	{chip: "smpro_hwmon", label: "power5 rca", domain: energy.DomainCPU, rank: rail},
	{chip: "amd_energy", label: "esocket", domain: energy.DomainCPU, rank: socket},
	{chip: "fam15h_power", domain: energy.DomainCPU, rank: socket},
	{chip: "zenpower", label: "svi2_p_", domain: energy.DomainCPU, rank: rail},
	{chip: "ibmpowernv", label: "system", domain: energy.DomainPlatform, rank: rail},
}

// boardRules are for general power monitors (ina226, ina3221). Their labels are the names that
// the board maker gave the supplies in the device tree.
var boardRules = []struct {
	words  []string
	domain energy.Domain // "" ignores the sensor
	rank   int
}{
	{words: []string{"gpu"}}, // a supply that is shared with graphics
	{[]string{"total", "system"}, energy.DomainPlatform, rail},
	{[]string{"dram", "dimm", "ddr", "memory"}, energy.DomainDRAM, rail},
	{[]string{"cpu", "soc"}, energy.DomainCPU, rail},
}

// findRule returns the rule for a sensor; false for one that is ignored.
func findRule(chip, label string) (chipRule, bool) {
	label = strings.ToLower(label)
	if number, ok := strings.CutPrefix(label, "chip "); ok && chip == "ibmpowernv" && !strings.Contains(number, " ") {
		return chipRule{chip: chip, domain: energy.DomainCPU, rank: socket}, true
	}
	for _, rule := range chipRules {
		if rule.chip == chip && strings.HasPrefix(label, rule.label) {
			return rule, true
		}
	}
	if !strings.HasPrefix(chip, "ina") {
		return chipRule{}, false
	}
	words := strings.FieldsFunc(label, func(r rune) bool { return !('a' <= r && r <= 'z') })
	for _, board := range boardRules {
		if slices.ContainsFunc(words, func(word string) bool { return slices.Contains(board.words, word) }) {
			return chipRule{chip: chip, domain: board.domain, rank: board.rank}, board.domain != ""
		}
	}
	return chipRule{}, false
}

// assignTotal marks the sensors that make up the total: the best ones of the processor and,
// unless those include it, of the memory. A sensor of the whole machine is counted only if it
// is the only one, no sensor measures the processor, and no card is measured separately.
func assignTotal(sensors []*powerSensor, hasCard bool) {
	processor := bestSensors(sensors, energy.DomainCPU)
	for _, s := range processor {
		s.zone.Counted = true
	}
	if len(processor) > 0 {
		if !processor[0].rule.includesMemory {
			for _, s := range bestSensors(sensors, energy.DomainDRAM) {
				s.zone.Counted = true
			}
		}
		return
	}
	if platform := bestSensors(sensors, energy.DomainPlatform); len(platform) == 1 && !hasCard {
		platform[0].zone.Counted = true
		platform[0].zone.Name = "whole-machine"
	}
}

// bestSensors returns the sensors of a domain that may be added up: those of the highest rank,
// of one driver.
func bestSensors(sensors []*powerSensor, domain energy.Domain) []*powerSensor {
	var best []*powerSensor
	for _, s := range sensors {
		if s.zone.Domain != domain || s.rule.rank == onlyReported {
			continue
		}
		switch {
		case len(best) == 0 || s.rule.rank > best[0].rule.rank:
			best = []*powerSensor{s}
		case s.rule.rank == best[0].rule.rank && s.rule.chip == best[0].rule.chip:
			best = append(best, s)
		}
	}
	return best
}
