package hardware

import (
	"errors"
	"fmt"

	"ffmpeg-agent/hardware/energy"
)

// PowerSensors reads the energy counters of one kind of sensor. Read is called
// by one goroutine at a time and gives fresh slices each time: a reading of each
// zone that could be read and a fault of each that could not.
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

// OpenCPUPower opens the best source there is: RAPL, else an estimate. The error
// is ErrUnavailable with the reasons.
func OpenCPUPower(config CPUPowerConfig) (PowerSensors, error) {
	rapl, why := OpenRAPL(config.SysfsPath)
	if why == nil {
		return rapl, nil
	}
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
	return estimator, nil
}

func orDefault(path, otherwise string) string {
	if path == "" {
		return otherwise
	}
	return path
}
