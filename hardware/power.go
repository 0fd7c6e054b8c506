package hardware

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ffmpeg-agent/hardware/energy"
)

// PowerSensors reads the energy counters of one kind of sensor. Read is called by one goroutine
// at a time. It returns fresh slices: a reading of each zone that could be read, and a fault of
// each other zone.
//
// A fallback ends when a better source has appeared: Read returns its counters once more, with
// no zone counted, and from then on faults only, so that the caller opens the better source.
type PowerSensors interface {
	Name() string
	// FallbackReason returns why no better source is used; nil if there is none.
	FallbackReason() error
	Zones() []*energy.Zone
	Read() ([]energy.Reading, []energy.Fault)
	Close() error
}

// ErrUnavailable means that the processor's power can neither be measured nor, with the given
// configuration, estimated.
var ErrUnavailable = errors.New("no source of CPU power")

// CPUPowerConfig configures the sources of CPU power.
type CPUPowerConfig struct {
	SysfsPath  string // default /sys
	ProcfsPath string // default /proc
	// Estimate is "auto" (the default) to estimate where nothing can be measured, or "off".
	Estimate string
	// IdleWatts and MaxWatts are the processor's; 0 if they are not configured.
	IdleWatts, MaxWatts float64
}

// OpenCPUPower opens the best available source: RAPL, else hwmon, else an estimate. The error
// wraps ErrUnavailable and contains the reasons.
func OpenCPUPower(config CPUPowerConfig) (PowerSensors, error) {
	rapl, reason := OpenRAPL(config.SysfsPath)
	if reason == nil {
		return rapl, nil
	}
	openRAPL := func() (PowerSensors, error) { return OpenRAPL(config.SysfsPath) }
	hwmon, err := OpenHwmon(config.SysfsPath, reason)
	if err == nil {
		return newFallback(hwmon, openRAPL), nil
	}
	reason = fmt.Errorf("%w; %w", reason, err)
	if config.Estimate == "off" {
		return nil, fmt.Errorf("%w: %w; estimates are off", ErrUnavailable, reason)
	}
	estimator, err := NewEstimator(EstimatorConfig{
		IdleWatts: config.IdleWatts, MaxWatts: config.MaxWatts,
		ProcfsPath: config.ProcfsPath, FallbackReason: reason,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w; %w", ErrUnavailable, reason, err)
	}
	openHwmon := func() (PowerSensors, error) { return OpenHwmon(config.SysfsPath, nil) }
	return newFallback(estimator, openRAPL, openHwmon), nil
}

// fallback is a source that is used until a better one appears. It probes for better ones once
// a minute.
type fallback struct {
	PowerSensors
	better  []func() (PowerSensors, error)
	now     func() time.Time
	probed  time.Time      // when it last probed for a better source
	ended   string         // why the source has ended; empty: it has not
	retired []*energy.Zone // the source's zones once it has ended, not counted
}

func newFallback(sensors PowerSensors, better ...func() (PowerSensors, error)) *fallback {
	return &fallback{PowerSensors: sensors, better: better, now: time.Now, probed: time.Now()}
}

// Zones returns the source's zones. None of them is counted once the source has ended.
func (f *fallback) Zones() []*energy.Zone {
	if f.ended != "" {
		return slices.Clone(f.retired)
	}
	return f.PowerSensors.Zones()
}

// Read reads the source until a better one is available.
func (f *fallback) Read() ([]energy.Reading, []energy.Fault) {
	now := f.now()
	if f.ended != "" {
		var faults []energy.Fault
		for _, zone := range f.retired {
			faults = append(faults, energy.Fault{Zone: zone, At: now, Err: f.ended})
		}
		return nil, faults
	}
	readings, faults := f.PowerSensors.Read()
	if now.Sub(f.probed) < rescanInterval {
		return readings, faults
	}
	f.probed = now
	if f.ended = f.probe(); f.ended == "" {
		return readings, faults
	}
	retired := f.retire()
	for i := range readings {
		readings[i].Zone = retired[readings[i].Zone]
	}
	for i := range faults {
		faults[i].Zone = retired[faults[i].Zone]
	}
	return readings, faults
}

// probe returns the reason to end the source, which is a better one that can be opened; empty
// if there is none.
func (f *fallback) probe() string {
	for _, open := range f.better {
		if sensors, err := open(); err == nil {
			defer sensors.Close()
			return sensors.Name() + " is now available"
		}
	}
	return ""
}

// retire replaces each of the source's zones with a copy that is not counted.
func (f *fallback) retire() map[*energy.Zone]*energy.Zone {
	copies := map[*energy.Zone]*energy.Zone{}
	for _, zone := range f.PowerSensors.Zones() {
		retired := *zone
		retired.Counted = false
		copies[zone] = &retired
		f.retired = append(f.retired, &retired)
	}
	return copies
}
