package hardware

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ffmpeg-agent/hardware/energy"
)

const (
	// hwmonUpdateInterval is assumed for a chip that reports none; most drivers that cache
	// values use it.
	hwmonUpdateInterval = time.Second
	// maxPlatformPower is the plausibility limit of a sensor of the whole machine, in W: a
	// machine with many cards uses more than a processor.
	maxPlatformPower = 20_000
)

// powerSensor is one sensor of a hwmon chip.
type powerSensor struct {
	zone     *energy.Zone
	rule     chipRule
	file     *numberFile
	integral *powerIntegral // nil where the chip counts energy itself
}

// findSensors lists the sensors in the hwmon class, ordered by ID, without opening their files.
func findSensors(class string) []*powerSensor {
	chips, _ := filepath.Glob(filepath.Join(class, "hwmon*"))
	found := map[string]*powerSensor{}
	for _, chip := range chips {
		for _, dir := range []string{chip, filepath.Join(chip, "device")} { // where older drivers put their files
			if name := readWord(dir, "name"); name != "" {
				collectSensors(dir, name, deviceName(chip), found)
			}
		}
	}
	sensors := make([]*powerSensor, 0, len(found))
	for _, s := range found {
		sensors = append(sensors, s)
	}
	slices.SortFunc(sensors, func(a, b *powerSensor) int { return strings.Compare(a.zone.ID, b.zone.ID) })
	return sensors
}

// deviceName returns the name of a chip's device, which is stable, unlike the chip's number.
func deviceName(chip string) string {
	if device, err := filepath.EvalSymlinks(filepath.Join(chip, "device")); err == nil {
		return filepath.Base(device)
	}
	return filepath.Base(chip)
}

// collectSensors adds a chip's sensors. Of several files for one sensor it uses the energy
// counter, else the average power, else the current power.
func collectSensors(dir, chip, device string, found map[string]*powerSensor) {
	for _, pattern := range []string{"energy*_input", "power*_average", "power*_input"} {
		files, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, file := range files {
			channel, kind, _ := strings.Cut(filepath.Base(file), "_")
			number := strings.TrimLeft(channel, "abcdefghijklmnopqrstuvwxyz")
			if _, err := strconv.Atoi(number); err != nil {
				continue
			}
			label := readWord(dir, channel+"_label")
			if label == "" {
				label = readWord(dir, channel+"_oem_info") // of ACPI power meters
			}
			rule, ok := findRule(chip, label)
			if !ok {
				continue
			}
			quantity := slug(label)
			if quantity == "" {
				quantity = number
			}
			id := fmt.Sprintf("hwmon:%s:%s:%s", chip, device, quantity)
			if found[id] != nil {
				continue
			}
			found[id] = newPowerSensor(id, dir, channel, kind, rule)
			found[id].zone.Name = slug(label)
			if label == "" {
				found[id].zone.Name = slug(chip)
			}
		}
	}
}

// slug turns a label into a zone name: "Core VRD" into core-vrd.
func slug(label string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(label), func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9')
	}), "-")
}

func newPowerSensor(id, dir, channel, kind string, rule chipRule) *powerSensor {
	zone := &energy.Zone{
		ID: id, Domain: rule.domain, Source: energy.Measured, Method: "hwmon",
		UpdateInterval: updateInterval(dir, channel), Uncertainty: uncertainty(dir, channel),
	}
	if rule.domain == energy.DomainPlatform {
		zone.MaxPower = maxPlatformPower
	}
	s := &powerSensor{zone: zone, rule: rule, file: &numberFile{path: filepath.Join(dir, channel+"_"+kind), quantity: "energy in µJ"}}
	if strings.HasPrefix(channel, "power") {
		s.file.quantity = "power in µW"
		s.integral = &powerIntegral{held: kind == "input", updateInterval: zone.UpdateInterval, energy: integralStart}
	}
	return s
}

func updateInterval(dir, channel string) time.Duration {
	for _, file := range []string{channel + "_average_interval", "update_interval"} {
		milliseconds, err := strconv.ParseFloat(readWord(dir, file), 64)
		if err == nil && milliseconds > 0 && milliseconds < 3.6e6 {
			return time.Duration(milliseconds * float64(time.Millisecond))
		}
	}
	return hwmonUpdateInterval
}

// uncertainty returns 1 minus the accuracy that ACPI power meters report, such as "99.5%"; 0 if
// it is unknown.
func uncertainty(dir, channel string) float64 {
	accuracy, err := strconv.ParseFloat(strings.TrimSuffix(readWord(dir, channel+"_accuracy"), "%"), 64)
	if err != nil || !(accuracy > 0 && accuracy < 100) {
		return 0
	}
	return 1 - accuracy/100
}

// read returns the sensor's energy counter, or the integral of its power.
func (s *powerSensor) read(now func() time.Time) (energy.Microjoules, time.Time, error) {
	value, at, err := s.file.readAt(now)
	if s.integral == nil {
		return energy.Microjoules(value), at, err
	}
	limit := float64(max(s.zone.MaxPower, energy.DefaultMaxPower)) * 1e6
	if err == nil && (value == 0 || float64(value) > limit) {
		err = fmt.Errorf("implausible power: %d µW", value)
	}
	if err != nil {
		s.integral.markGap()
		return 0, at, err
	}
	s.integral.add(float64(value)/1e6, at)
	return s.integral.counter(), at, nil
}

// errorBound returns the error of the integral due to the time between readings and to the
// sensor's accuracy; nil for a sensor with an energy counter.
func (s *powerSensor) errorBound() *energy.Microjoules {
	if s.integral == nil {
		return nil
	}
	bound := energy.Microjoules(s.integral.uncertainty + s.zone.Uncertainty*s.integral.energy)
	return &bound
}
