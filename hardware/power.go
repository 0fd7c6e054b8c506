package hardware

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// PowerSensors reads the energy counters of one kind of sensor. Read is called
// by one goroutine at a time and gives fresh slices each time: a reading of each
// zone that could be read and a fault of each that could not.
//
// Sensors that are not the best end when better ones have come, as with a driver that
// is loaded later: Read says once more what their counters are, with no zone counted any
// longer, and from then on has nothing but faults, so that whoever reads opens anew.
type PowerSensors interface {
	Name() string
	// Because says why no better sensors are in use; nil where these are the best.
	Because() error
	Zones() []*energy.Zone
	Read() ([]energy.Reading, []energy.Fault)
	Close() error
}

// ErrUnavailable: this machine's power can neither be measured nor, as it is
// set, estimated.
var ErrUnavailable = errors.New("no source of CPU power")

// CPUPowerConfig says where the processor's energy is to be found.
type CPUPowerConfig struct {
	SysfsPath  string // "" is /sys
	ProcfsPath string // "" is /proc
	// Estimate is "auto" (or empty): estimate where nothing can be measured; or
	// "off".
	Estimate string
	// IdleWatts and MaxWatts of the processor where its owner knows them, else 0.
	IdleWatts, MaxWatts float64
}

// OpenCPUPower opens the best source there is: RAPL, else hwmon, else an estimate.
// The error is ErrUnavailable with the reasons.
func OpenCPUPower(config CPUPowerConfig) (PowerSensors, error) {
	rapl, why := OpenRAPL(config.SysfsPath)
	if why == nil {
		return rapl, nil
	}
	openRAPL := func() (PowerSensors, error) { return OpenRAPL(config.SysfsPath) }
	hwmon, also := OpenHwmon(config.SysfsPath, why)
	if also == nil {
		return newStopgap(hwmon, openRAPL), nil
	}
	why = fmt.Errorf("%w; %w", why, also)
	if config.Estimate == "off" {
		return nil, fmt.Errorf("%w: %w; estimates are off", ErrUnavailable, why)
	}
	estimator, err := NewEstimator(EstimatorConfig{
		IdleWatts: config.IdleWatts, MaxWatts: config.MaxWatts,
		ProcfsPath: config.ProcfsPath, Because: why,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w; %w", ErrUnavailable, why, err)
	}
	openHwmon := func() (PowerSensors, error) { return OpenHwmon(config.SysfsPath, nil) }
	return newStopgap(estimator, openRAPL, openHwmon), nil
}

// stopgap is a source that is in use for want of better ones, for which it looks once
// a minute.
type stopgap struct {
	PowerSensors
	better []func() (PowerSensors, error)
	now    func() time.Time
	looked time.Time
	ended  string // why it has; empty while it has not
	// retired are its zones once it has ended: none of them counts.
	retired []*energy.Zone
}

func newStopgap(sensors PowerSensors, better ...func() (PowerSensors, error)) *stopgap {
	return &stopgap{PowerSensors: sensors, better: better, now: time.Now, looked: time.Now()}
}

// Zones are the source's; once it has ended none of them counts.
func (s *stopgap) Zones() []*energy.Zone {
	if s.ended != "" {
		return slices.Clone(s.retired)
	}
	return s.PowerSensors.Zones()
}

// Read reads the source until there is a better one.
func (s *stopgap) Read() ([]energy.Reading, []energy.Fault) {
	now := s.now()
	if s.ended != "" {
		var faults []energy.Fault
		for _, zone := range s.retired {
			faults = append(faults, energy.Fault{Zone: zone, At: now, Err: s.ended})
		}
		return nil, faults
	}
	readings, faults := s.PowerSensors.Read()
	if now.Sub(s.looked) >= lookAgain {
		s.looked = now
		s.look()
	}
	if s.ended != "" {
		retired := s.retire()
		for i := range readings {
			readings[i].Zone = retired[readings[i].Zone]
		}
		for i := range faults {
			faults[i].Zone = retired[faults[i].Zone]
		}
	}
	return readings, faults
}

// retire makes zones that do not count of the source's, and tells which is which.
func (s *stopgap) retire() map[*energy.Zone]*energy.Zone {
	of := map[*energy.Zone]*energy.Zone{}
	for _, zone := range s.PowerSensors.Zones() {
		retired := *zone
		retired.Counted = false
		of[zone] = &retired
		s.retired = append(s.retired, &retired)
	}
	return of
}

// look ends the source if a better one can be opened.
func (s *stopgap) look() {
	for _, open := range s.better {
		if sensors, err := open(); err == nil {
			s.ended = sensors.Name() + " has come"
			sensors.Close()
			return
		}
	}
}

func orDefault(path, otherwise string) string {
	if path == "" {
		return otherwise
	}
	return path
}
