package hardware

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// ErrNoHwmon: no chip of the machine tells the processor's power.
var ErrNoHwmon = errors.New("no power sensors of the processor under hwmon")

const (
	// hwmonUpdate is how often a chip that does not say it renews its values, as most
	// drivers that keep the last one do.
	hwmonUpdate = time.Second
	// hwmonSilence is how long two readings of power may lie apart for the energy between
	// them to be known: longer than the slowest pace of reading.
	hwmonSilence = 90 * time.Second
	// platformMaxPower in W: whole machines with many cards use more than a processor.
	platformMaxPower = 20_000
	// integralStart in µJ leaves room to step back at each break.
	integralStart = 1 << 40
)

// Hwmon reads the power sensors that Linux has under /sys/class/hwmon. Of one that
// tells power, energy is the integral of its readings by the trapezoidal rule; see
// Documentation/hwmon/sysfs-interface.rst.
type Hwmon struct {
	class   string
	cards   bool
	because error
	sensors []*powerSensor
	zones   []*energy.Zone
	now     func() time.Time
	looked  time.Time // when sensors were last looked for; zero before the first Read
	faulty  bool      // at the last Read
}

var _ PowerSensors = (*Hwmon)(nil)

// OpenHwmon finds the sensors below a /sys ("" is the real one). It fails with
// ErrNoHwmon where none of them makes up a total. because is why nothing better is in
// use.
func OpenHwmon(sysfsPath string, because error) (*Hwmon, error) {
	sysfsPath = orDefault(sysfsPath, "/sys")
	h := &Hwmon{
		class: filepath.Join(sysfsPath, "class", "hwmon"), cards: hasMeasuredCard(sysfsPath),
		because: because, now: time.Now,
	}
	h.adopt(h.find())
	var unreadable error
	for _, s := range h.sensors {
		if !s.zone.Counted {
			continue
		}
		if _, _, err := s.read(h.now); err == nil {
			return h, nil
		} else if unreadable == nil {
			unreadable = fmt.Errorf("reading power sensor %s: %w", s.value.path, err)
		}
	}
	platform := best(h.sensors, energy.DomainPlatform)
	h.Close()
	switch {
	case unreadable != nil:
		return nil, unreadable
	case len(platform) == 1 && h.cards:
		return nil, fmt.Errorf("%w: %s is the whole machine's, cards included", ErrNoHwmon, platform[0].zone.Name)
	case len(platform) > 1:
		return nil, fmt.Errorf("%w, and %d of the machine that may lie inside each other", ErrNoHwmon, len(platform))
	}
	return nil, ErrNoHwmon
}

// hasMeasuredCard tells whether the machine has a card whose energy is added to the
// processor's: one of NVIDIA's.
func hasMeasuredCard(sysfsPath string) bool {
	const nvidia, display = "0x10de", "0x03"
	devices, _ := filepath.Glob(filepath.Join(sysfsPath, "bus", "pci", "devices", "*"))
	return slices.ContainsFunc(devices, func(device string) bool {
		return readWord(device, "vendor") == nvidia && strings.HasPrefix(readWord(device, "class"), display)
	})
}

// Name is hwmon.
func (h *Hwmon) Name() string { return "hwmon" }

// Because is why there is no RAPL; nil where that was not said.
func (h *Hwmon) Because() error { return h.because }

// Zones in the order of their IDs.
func (h *Hwmon) Zones() []*energy.Zone { return slices.Clone(h.zones) }

// Read reads every sensor. One whose chip is gone is looked for again, since a
// driver that comes back gets another number.
func (h *Hwmon) Read() ([]energy.Reading, []energy.Fault) {
	h.lookForMore()
	readings, slept := make([]energy.Reading, 0, len(h.sensors)), asleep()
	var faults []energy.Fault
	for _, s := range h.sensors {
		counter, at, err := s.read(h.now)
		if err != nil {
			faults = append(faults, energy.Fault{Zone: s.zone, At: at, Err: err.Error()})
			continue
		}
		readings = append(readings, energy.Reading{Zone: s.zone, At: at, Counter: counter, ErrorBound: s.doubt(), Suspended: slept})
	}
	h.faulty = len(faults) > 0
	return readings, faults
}

// Close closes the sensors' files.
func (h *Hwmon) Close() error {
	var errs []error
	for _, s := range h.sensors {
		errs = append(errs, s.value.close())
	}
	return errors.Join(errs...)
}

// lookForMore looks for sensors once a minute, and each second while one is missing.
func (h *Hwmon) lookForMore() {
	now := h.now()
	if h.looked.IsZero() {
		h.looked = now
	}
	if passed := now.Sub(h.looked); passed < time.Second || (passed < lookAgain && !h.faulty) {
		return
	}
	h.looked = now
	found := h.find()
	known := map[string]*powerSensor{}
	for _, s := range h.sensors {
		known[s.zone.ID] = s
	}
	fresh := false
	for _, s := range found {
		old := known[s.zone.ID]
		if old == nil {
			fresh = true
			continue
		}
		if old.value.path != s.value.path {
			old.value.close()
			old.value.path = s.value.path
		}
		s.value, s.integral = old.value, old.integral
		delete(known, s.zone.ID)
	}
	if fresh && len(known) == 0 { // else some are gone: not the time to judge by what is left
		h.adopt(found)
	}
}

// adopt makes sensors the machine's, and decides anew what each counts for.
func (h *Hwmon) adopt(sensors []*powerSensor) {
	assignTotal(sensors, h.cards)
	nameApart(sensors)
	h.sensors, h.zones = sensors, nil
	for _, s := range sensors {
		h.zones = append(h.zones, s.zone)
	}
}

// nameApart adds to a name that several sensors have the chip's device.
func nameApart(sensors []*powerSensor) {
	names := map[string]int{}
	for _, s := range sensors {
		names[s.zone.Name]++
	}
	for _, s := range sensors {
		if names[s.zone.Name] > 1 {
			s.zone.Name = strings.TrimPrefix(s.zone.ID, "hwmon:")
		}
	}
}

// find lists the sensors in the order of their IDs, without the files opened.
func (h *Hwmon) find() []*powerSensor {
	chips, _ := filepath.Glob(filepath.Join(h.class, "hwmon*"))
	found := map[string]*powerSensor{}
	for _, chip := range chips {
		for _, folder := range []string{chip, filepath.Join(chip, "device")} { // older drivers' files lie with the device
			if name := readWord(folder, "name"); name != "" {
				findSensors(folder, name, deviceOf(chip), found)
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

// deviceOf is what a chip's device is called, which outlives the chip's number.
func deviceOf(chip string) string {
	if device, err := filepath.EvalSymlinks(filepath.Join(chip, "device")); err == nil {
		return filepath.Base(device)
	}
	return filepath.Base(chip)
}

// findSensors adds a chip's sensors. Of one quantity that several files tell, the
// chip's own energy counter comes first, then the mean, then the present power.
func findSensors(folder, chip, device string, found map[string]*powerSensor) {
	for _, pattern := range []string{"energy*_input", "power*_average", "power*_input"} {
		files, _ := filepath.Glob(filepath.Join(folder, pattern))
		for _, file := range files {
			channel, kind, _ := strings.Cut(filepath.Base(file), "_")
			number := strings.TrimLeft(channel, "abcdefghijklmnopqrstuvwxyz")
			if _, err := strconv.Atoi(number); err != nil {
				continue
			}
			label := readWord(folder, channel+"_label")
			if label == "" {
				label = readWord(folder, channel+"_oem_info") // ACPI's own
			}
			rule, ok := ruleOf(chip, label)
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
			found[id] = newPowerSensor(id, folder, channel, kind, rule)
			found[id].zone.Name = slug(label)
			if label == "" {
				found[id].zone.Name = slug(chip)
			}
		}
	}
}

// slug is a label in the form of the other zones' names: core-vrd.
func slug(label string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(label), func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9')
	}), "-")
}

// powerSensor is one sensor of a chip.
type powerSensor struct {
	zone     *energy.Zone
	rule     chipRule
	value    *counter
	integral *integral // nil where the chip counts energy by itself
}

func newPowerSensor(id, folder, channel, kind string, rule chipRule) *powerSensor {
	zone := &energy.Zone{ID: id, Domain: rule.domain, Source: energy.Measured, Method: "hwmon", UpdateInterval: hwmonUpdate}
	if rule.domain == energy.DomainPlatform {
		zone.MaxPower = platformMaxPower
	}
	for _, file := range []string{channel + "_average_interval", "update_interval"} {
		milli, err := strconv.ParseFloat(readWord(folder, file), 64)
		if err == nil && milli > 0 && milli < 3.6e6 {
			zone.UpdateInterval = time.Duration(milli * float64(time.Millisecond))
			break
		}
	}
	// ACPI tells a meter's accuracy as "99.5%".
	accuracy, err := strconv.ParseFloat(strings.TrimSuffix(readWord(folder, channel+"_accuracy"), "%"), 64)
	if err == nil && accuracy > 0 && accuracy < 100 {
		zone.Uncertainty = 1 - accuracy/100
	}
	s := &powerSensor{zone: zone, rule: rule, value: &counter{
		zone: zone, path: filepath.Join(folder, channel+"_"+kind), unit: "energy in µJ",
	}}
	if strings.HasPrefix(channel, "power") {
		s.value.unit = "power in µW"
		s.integral = &integral{held: kind == "input", update: zone.UpdateInterval, counted: integralStart}
	}
	return s
}

// read is the sensor's energy counter, its own or the integral of its power.
func (s *powerSensor) read(now func() time.Time) (energy.Microjoules, time.Time, error) {
	value, at, err := s.value.readAt(now)
	if s.integral == nil {
		return energy.Microjoules(value), at, err
	}
	limit := float64(max(s.zone.MaxPower, energy.DefaultMaxPower)) * 1e6
	if err == nil && (value == 0 || float64(value) > limit) {
		err = fmt.Errorf("%d µW is no power of a machine that runs", value)
	}
	if err != nil {
		s.integral.breakOff()
		return 0, at, err
	}
	s.integral.add(float64(value)/1e6, at)
	return s.integral.counter(), at, nil
}

// integral is the energy of a power that is read now and then.
type integral struct {
	update time.Duration // how often the chip renews its value
	held   bool          // the value is that of a moment, and no mean

	at      time.Time // of the last reading; zero before the first
	power   float64   // W, then
	broken  bool      // a reading failed since
	counted float64   // µJ
	// doubt in µJ is how far the readings leave open what was used between them: half of
	// the change times the time between two, which bounds the rule's error for a power that
	// only rises or only falls meanwhile; the whole change for as long as the chip holds a
	// value that was true of one moment.
	doubt float64
}

func (i *integral) breakOff() { i.broken = true }

// add takes a reading. After a break the counter steps back, which says that what was
// used meanwhile is not known.
func (i *integral) add(power float64, at time.Time) {
	elapsed := at.Sub(i.at)
	switch {
	case i.at.IsZero():
	case elapsed <= 0:
		return
	case i.broken || elapsed > hwmonSilence:
		i.counted = math.Floor(i.counted) - 1
	default:
		i.counted += (i.power + power) / 2 * elapsed.Seconds() * 1e6
		open := elapsed.Seconds() / 2
		if i.held && elapsed < 2*i.update {
			open = i.update.Seconds()
		}
		i.doubt += math.Abs(power-i.power) * open * 1e6
	}
	i.at, i.power, i.broken = at, power, false
}

// doubt of a sensor whose power is integrated: what its readings leave open and what its
// accuracy does; nil for one with a counter of its own.
func (s *powerSensor) doubt() *energy.Microjoules {
	if s.integral == nil {
		return nil
	}
	doubt := energy.Microjoules(s.integral.doubt + s.zone.Uncertainty*s.integral.counted)
	return &doubt
}

func (i *integral) counter() energy.Microjoules { return energy.Microjoules(i.counted) }
