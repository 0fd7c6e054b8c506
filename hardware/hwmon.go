package hardware

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// ErrNoHwmon means that no hwmon chip of the machine measures its processor's power.
var ErrNoHwmon = errors.New("no CPU power sensors in hwmon")

// Hwmon reads the power sensors in /sys/class/hwmon. The power of a sensor without an energy
// counter is integrated. The files are described in Documentation/hwmon/sysfs-interface.rst.
type Hwmon struct {
	class          string
	hasCard        bool // a graphics card is measured in addition to these sensors
	fallbackReason error
	sensors        []*powerSensor
	zones          []*energy.Zone
	now            func() time.Time
	scanned        time.Time // when sensors were last listed; zero before the first Read
	faulty         bool      // at the last Read
}

var _ PowerSensors = (*Hwmon)(nil)

// OpenHwmon lists the sensors below a sysfs ("" is /sys). It fails with ErrNoHwmon where none
// of them makes up a total. fallbackReason is why no better source is used.
func OpenHwmon(sysfsPath string, fallbackReason error) (*Hwmon, error) {
	sysfsPath = orDefault(sysfsPath, "/sys")
	h := &Hwmon{
		class: filepath.Join(sysfsPath, "class", "hwmon"), hasCard: HasNVIDIACard(sysfsPath),
		fallbackReason: fallbackReason, now: time.Now,
	}
	h.use(findSensors(h.class))
	var unreadable error
	for _, s := range h.sensors {
		if !s.zone.Counted {
			continue
		}
		if _, _, err := s.read(h.now); err == nil {
			return h, nil
		} else if unreadable == nil {
			unreadable = fmt.Errorf("reading power sensor %s: %w", s.file.path, err)
		}
	}
	platform := bestSensors(h.sensors, energy.DomainPlatform)
	h.Close()
	switch {
	case unreadable != nil:
		return nil, unreadable
	case len(platform) == 1 && h.hasCard:
		return nil, fmt.Errorf("%w: %s measures the whole machine, cards included", ErrNoHwmon, platform[0].zone.Name)
	case len(platform) > 1:
		return nil, fmt.Errorf("%w: %d sensors of the machine may include each other", ErrNoHwmon, len(platform))
	}
	return nil, ErrNoHwmon
}

// HasNVIDIACard reports whether the machine has a card whose energy is added to the
// processor's.
func HasNVIDIACard(sysfsPath string) bool {
	const nvidia, display = "0x10de", "0x03"
	devices, _ := filepath.Glob(filepath.Join(sysfsPath, "bus", "pci", "devices", "*"))
	return slices.ContainsFunc(devices, func(device string) bool {
		return readWord(device, "vendor") == nvidia && strings.HasPrefix(readWord(device, "class"), display)
	})
}

// Name returns "hwmon".
func (h *Hwmon) Name() string { return "hwmon" }

// FallbackReason returns why RAPL is not used; nil where OpenHwmon was given no reason.
func (h *Hwmon) FallbackReason() error { return h.fallbackReason }

// Zones returns the zones, ordered by ID.
func (h *Hwmon) Zones() []*energy.Zone { return slices.Clone(h.zones) }

// Read reads every sensor.
func (h *Hwmon) Read() ([]energy.Reading, []energy.Fault) {
	h.rescan()
	readings, suspended := make([]energy.Reading, 0, len(h.sensors)), suspended()
	var faults []energy.Fault
	for _, s := range h.sensors {
		counter, at, err := s.read(h.now)
		if err != nil {
			faults = append(faults, energy.Fault{Zone: s.zone, At: at, Err: err.Error()})
			continue
		}
		readings = append(readings, energy.Reading{Zone: s.zone, At: at, Counter: counter, ErrorBound: s.errorBound(), Suspended: suspended})
	}
	h.faulty = len(faults) > 0
	return readings, faults
}

// Close closes the sensors' files.
func (h *Hwmon) Close() error {
	var errs []error
	for _, s := range h.sensors {
		errs = append(errs, s.file.close())
	}
	return errors.Join(errs...)
}

// rescan lists the sensors once a minute, and once a second while one has a fault: a chip
// whose driver was reloaded has another number.
func (h *Hwmon) rescan() {
	now := h.now()
	if h.scanned.IsZero() {
		h.scanned = now
	}
	if elapsed := now.Sub(h.scanned); elapsed < time.Second || (elapsed < rescanInterval && !h.faulty) {
		return
	}
	h.scanned = now
	found := findSensors(h.class)
	missing := map[string]*powerSensor{}
	for _, s := range h.sensors {
		missing[s.zone.ID] = s
	}
	added := false
	for _, s := range found {
		known := missing[s.zone.ID]
		if known == nil {
			added = true
			continue
		}
		if known.file.path != s.file.path {
			known.file.close()
			known.file.path = s.file.path
		}
		s.file, s.integral = known.file, known.integral
		delete(missing, s.zone.ID)
	}
	if added && len(missing) == 0 { // while some are missing, the total cannot be decided
		h.use(found)
	}
}

// use replaces the sensors and redetermines which zones are counted.
func (h *Hwmon) use(sensors []*powerSensor) {
	assignTotal(sensors, h.hasCard)
	makeNamesUnique(sensors)
	h.sensors, h.zones = sensors, nil
	for _, s := range sensors {
		h.zones = append(h.zones, s.zone)
	}
}

// makeNamesUnique replaces names that several sensors share with their IDs.
func makeNamesUnique(sensors []*powerSensor) {
	occurrences := map[string]int{}
	for _, s := range sensors {
		occurrences[s.zone.Name]++
	}
	for _, s := range sensors {
		if occurrences[s.zone.Name] > 1 {
			s.zone.Name = strings.TrimPrefix(s.zone.ID, "hwmon:")
		}
	}
}
