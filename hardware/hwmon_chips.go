package hardware

import (
	"slices"
	"strings"

	"ffmpeg-agent/hardware/energy"
)

// chipRule says what a sensor of a chip measures, by the kernel's names.
type chipRule struct {
	chip   string // the driver's name for the chip; "" is any
	label  string // beginning of the sensor's label, in lower case; "" is any
	domain energy.Domain
	// grade orders the sensors that could make up the total of a domain: those of the
	// best grade that is there are added up, and the others only reported, since they may
	// lie inside them. 0 never counts.
	grade int
	// whole: the sensor's power holds the memory's.
	whole bool
}

// Grades.
const (
	onlyReported = iota
	rail         // one of a processor's supplies, beside the others of its chip
	socket       // a whole processor
)

// chipRules, of which the first that fits holds. Sensors that fit none are left
// alone, graphics cards' (amdgpu, i915, nouveau) and batteries' among them.
//
// Sources: Linux, drivers/hwmon (xgene-hwmon.c, smpro-hwmon.c, fam15h_power.c,
// ibmpowernv.c, ibmaem.c, acpi_power_meter.c; amd_energy.c until 5.12); zenpower is
// github.com/ocerman/zenpower; for Grace, NVIDIA's Grace Performance Tuning Guide,
// "Power Telemetry": Grace is the whole socket with its memory, CPU and SysIO are rails in
// it, and Module holds Grace and the graphics card.
var chipRules = []chipRule{
	{chip: "power_meter", label: "grace power", domain: energy.DomainCPU, grade: socket, whole: true},
	{chip: "power_meter", label: "cpu power", domain: energy.DomainCPU, grade: rail},
	{chip: "power_meter", label: "sysio power", domain: energy.DomainCPU, grade: rail},
	{chip: "power_meter", label: "module power", domain: energy.DomainPlatform},
	{chip: "power_meter", domain: energy.DomainPlatform, grade: rail},
	{chip: "aem1", domain: energy.DomainPlatform, grade: rail},
	{chip: "aem2", domain: energy.DomainPlatform},

	{chip: "apm_xgene", label: "cpu power", domain: energy.DomainCPU, grade: rail},
	{chip: "apm_xgene", label: "io power", domain: energy.DomainCPU, grade: rail},
	{chip: "smpro_hwmon", label: "power1 core vrd", domain: energy.DomainCPU, grade: rail},
	{chip: "smpro_hwmon", label: "power2 soc", domain: energy.DomainCPU, grade: rail},
	{chip: "smpro_hwmon", label: "power3 dimm", domain: energy.DomainDRAM, grade: rail},
	{chip: "smpro_hwmon", label: "power4 dimm", domain: energy.DomainDRAM, grade: rail},
	{chip: "smpro_hwmon", label: "power5 rca", domain: energy.DomainCPU, grade: rail},
	{chip: "amd_energy", label: "esocket", domain: energy.DomainCPU, grade: socket},
	{chip: "fam15h_power", domain: energy.DomainCPU, grade: socket},
	{chip: "zenpower", label: "svi2_p_", domain: energy.DomainCPU, grade: rail},
	{chip: "ibmpowernv", label: "system", domain: energy.DomainPlatform, grade: rail},
}

// boardWords are what board makers call a supply in the device tree, as a label of a
// general power monitor (ina226, ina3221).
var boardWords = []struct {
	words  []string
	domain energy.Domain
	grade  int
}{
	{[]string{"gpu"}, "", 0}, // a supply shared with graphics is neither's
	{[]string{"total", "system"}, energy.DomainPlatform, rail},
	{[]string{"dram", "dimm", "ddr", "memory"}, energy.DomainDRAM, rail},
	{[]string{"cpu", "soc"}, energy.DomainCPU, rail},
}

// ruleOf a sensor; false for one that is left alone.
func ruleOf(chip, label string) (chipRule, bool) {
	label = strings.ToLower(label)
	if number, ok := strings.CutPrefix(label, "chip "); ok && chip == "ibmpowernv" && !strings.Contains(number, " ") {
		return chipRule{chip: chip, domain: energy.DomainCPU, grade: socket}, true
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
	for _, board := range boardWords {
		if slices.ContainsFunc(words, func(word string) bool { return slices.Contains(board.words, word) }) {
			return chipRule{chip: chip, domain: board.domain, grade: board.grade}, board.domain != ""
		}
	}
	return chipRule{}, false
}

// assignTotal decides which sensors make up the total: of each domain those of one
// chip's kind and the best grade; a meter of the whole machine only where nothing else
// does, where it is alone, and where no card is measured that would be added to it.
func assignTotal(sensors []*powerSensor, cards bool) {
	processor := best(sensors, energy.DomainCPU)
	for _, s := range processor {
		s.zone.Counted = true
	}
	if len(processor) > 0 {
		if !processor[0].rule.whole {
			for _, s := range best(sensors, energy.DomainDRAM) {
				s.zone.Counted = true
			}
		}
		return
	}
	if whole := best(sensors, energy.DomainPlatform); len(whole) == 1 && !cards {
		whole[0].zone.Counted = true
		whole[0].zone.Name = "whole-machine"
	}
}

// best are the sensors of a domain that may be added up: of one chip's kind and grade.
func best(sensors []*powerSensor, domain energy.Domain) []*powerSensor {
	var chosen []*powerSensor
	for _, s := range sensors {
		if s.zone.Domain != domain || s.rule.grade == onlyReported {
			continue
		}
		switch {
		case len(chosen) == 0 || s.rule.grade > chosen[0].rule.grade:
			chosen = []*powerSensor{s}
		case s.rule.grade == chosen[0].rule.grade && s.rule.chip == chosen[0].rule.chip:
			chosen = append(chosen, s)
		}
	}
	return chosen
}
