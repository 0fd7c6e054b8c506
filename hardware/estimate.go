package hardware

import (
	"errors"
	"fmt"
	"math"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/proc"
)

// Power in W per thread, for processors without configured figures. Processors on the market,
// from big server parts to desktops, use 0.5 to 2 W idle and 2 to 10 W at full load.
const (
	idleWattsPerThread = 1.0
	maxWattsPerThread  = 5.0
)

// curveExponent is r in P = idle + (max − idle)·(2u − u^r), the power at CPU utilization u (Fan,
// Weber and Barroso, "Power Provisioning for a Warehouse-sized Computer", ISCA 2007, section
// 4.1).
const curveExponent = 1.4

// Errors of an estimate.
const (
	// curveError is a in ±a·(max − idle)·√(u·(1−u)), which bounds the distance of 20 published
	// curves of servers and processor packages from the one above. TestCoverageOfEstimates
	// checks it.
	curveError = 0.5
	// workloadError is relative to the power. It covers the influence of instructions and
	// temperature, and the inaccuracy of the configured figures.
	workloadError = 0.1
	// assumedError is relative to an assumed figure: the true one is between 0 and twice that.
	assumedError = 1.0
)

// EstimatorConfig describes the processor.
type EstimatorConfig struct {
	IdleWatts, MaxWatts float64 // of the whole processor; 0: unknown
	ProcfsPath          string  // default /proc
	Threads             int     // default: those in /proc/cpuinfo
	Model               string  // of the processor; default: that in /proc/cpuinfo
	// FallbackReason is the reason for estimating instead of measuring.
	FallbackReason error
}

// Estimator estimates the processor's power from its utilization where no sensor measures it.
// Its zone is labelled as estimated.
type Estimator struct {
	config              EstimatorConfig
	idleError, maxError float64 // W
	zone                *energy.Zone
	now                 func() time.Time

	at          time.Time // of the last reading; zero before the first
	times       cpuTimes  // of the last tick
	utilization float64   // between the last two ticks, 0 to 1
	known       bool      // utilization is known
	pending     time.Duration
	energy      float64 // µJ
	errorBound  float64 // µJ
}

var _ PowerSensors = (*Estimator)(nil)

// NewEstimator returns an Estimator. It fails if CPU times cannot be read or the configured
// figures contradict each other.
func NewEstimator(config EstimatorConfig) (*Estimator, error) {
	config.ProcfsPath = orDefault(config.ProcfsPath, "/proc")
	for _, watts := range []float64{config.IdleWatts, config.MaxWatts} {
		if !(watts >= 0) || math.IsInf(watts, 0) {
			return nil, fmt.Errorf("estimating CPU power: invalid power %v W", watts)
		}
	}
	if _, err := readCPUTimes(config.ProcfsPath); err != nil {
		return nil, fmt.Errorf("estimating CPU power: %w", err)
	}
	if config.Threads <= 0 || config.Model == "" {
		model, threads, err := processor(config.ProcfsPath)
		if config.Threads <= 0 && threads <= 0 {
			return nil, fmt.Errorf("estimating CPU power: %w", errors.Join(errors.New("number of threads unknown"), err))
		}
		if config.Threads <= 0 {
			config.Threads = threads
		}
		if config.Model == "" {
			config.Model = model
		}
	}
	idleError, maxError, origin := config.complete()
	if config.MaxWatts < config.IdleWatts {
		return nil, fmt.Errorf("estimating CPU power: maximum of %v W is less than idle power of %v W", config.MaxWatts, config.IdleWatts)
	}
	model := ""
	if config.Model != "" {
		model = " " + config.Model
	}
	e := &Estimator{
		config: config, idleError: idleError, maxError: maxError,
		now: time.Now,
		zone: &energy.Zone{
			ID: "estimate:cpu", Name: "cpu", Domain: energy.DomainCPU, Counted: true,
			Source: energy.Estimated, Method: "estimate",
			Model: fmt.Sprintf("P = %g + %g·(2u − u^%g) W at CPU utilization u; %s, %d threads%s",
				config.IdleWatts, config.MaxWatts-config.IdleWatts, curveExponent, origin, config.Threads, model),
			UpdateInterval: proc.ClockTick,
			MaxPower:       energy.Watts(max(2*config.MaxWatts, 1)),
		},
	}
	e.zone.Uncertainty = e.maxUncertainty()
	return e, nil
}

// complete fills in unknown figures and returns the error of each in W.
//
// A table by processor model would not be better: published watts per thread (Cloud Carbon
// Footprint's, from SPECpower) are those of whole machines at the wall, and many virtual
// machines do not show their processor's model.
func (c *EstimatorConfig) complete() (idleError, maxError float64, origin string) {
	const ratio = maxWattsPerThread / idleWattsPerThread
	switch {
	case c.IdleWatts > 0 && c.MaxWatts > 0:
		return 0, 0, "configured idle and maximum"
	case c.MaxWatts > 0:
		c.IdleWatts = c.MaxWatts / ratio
		return assumedError * c.IdleWatts, 0, "configured maximum, assumed idle"
	case c.IdleWatts > 0:
		c.MaxWatts = c.IdleWatts * ratio
		return 0, assumedError * c.MaxWatts, "configured idle, assumed maximum"
	}
	c.IdleWatts = idleWattsPerThread * float64(c.Threads)
	c.MaxWatts = maxWattsPerThread * float64(c.Threads)
	return assumedError * c.IdleWatts, assumedError * c.MaxWatts, "assumed idle and maximum"
}

// maxUncertainty returns the largest error relative to the power at any utilization, at most 1.
func (e *Estimator) maxUncertainty() float64 {
	worst := 0.0
	for percent := 0; percent <= 100; percent++ {
		utilization := float64(percent) / 100
		if power := float64(e.Power(utilization)); power > 0 {
			worst = max(worst, float64(e.PowerError(utilization))/power)
		}
	}
	return min(1, math.Ceil(worst*100)/100)
}

// Name returns "estimate".
func (e *Estimator) Name() string { return "estimate" }

// FallbackReason returns the reason for estimating; nil if the configuration has none.
func (e *Estimator) FallbackReason() error { return e.config.FallbackReason }

// Zones returns the only zone.
func (e *Estimator) Zones() []*energy.Zone { return []*energy.Zone{e.zone} }

// Close does nothing.
func (e *Estimator) Close() error { return nil }

// Read adds the energy since the last reading, and returns the sum. The first reading is 0.
func (e *Estimator) Read() ([]energy.Reading, []energy.Fault) {
	times, err := readCPUTimes(e.config.ProcfsPath)
	now := e.now()
	if err != nil {
		return nil, []energy.Fault{{Zone: e.zone, At: now, Err: err.Error()}}
	}
	e.integrate(times, now)
	bound := energy.Microjoules(e.errorBound)
	return []energy.Reading{{Zone: e.zone, At: now, Counter: energy.Microjoules(e.energy), ErrorBound: &bound, Suspended: suspended()}}, nil
}

// integrate adds the energy since the last call. Between two ticks of /proc/stat it assumes the
// last known utilization.
func (e *Estimator) integrate(times cpuTimes, now time.Time) {
	if e.at.IsZero() {
		e.at, e.times = now, times
		return
	}
	elapsed := now.Sub(e.at)
	if elapsed <= 0 {
		return
	}
	e.at = now
	if utilization, ok := times.utilization(e.times); ok {
		e.utilization, e.known = utilization, true
		e.times = times
	} else if times.all < e.times.all {
		e.times = times // the counters were reset
	}
	if !e.known { // before the first tick: this time is added once the utilization is known
		e.pending += elapsed
		return
	}
	microseconds := (elapsed + e.pending).Seconds() * 1e6
	e.energy += float64(e.Power(e.utilization)) * microseconds
	// Energy cannot be negative, so the error is never larger than the estimate.
	e.errorBound += float64(min(e.PowerError(e.utilization), e.Power(e.utilization))) * microseconds
	e.pending = 0
}

// Power returns the power at a CPU utilization of 0 to 1.
func (e *Estimator) Power(utilization float64) energy.Watts {
	return energy.Watts(e.config.IdleWatts + (e.config.MaxWatts-e.config.IdleWatts)*relativePower(utilization))
}

// PowerError returns a bound on the error of Power in either direction.
func (e *Estimator) PowerError(utilization float64) energy.Watts {
	u := max(0, min(1, utilization))
	figures := e.idleError + (e.maxError-e.idleError)*relativePower(u)
	curve := (e.config.MaxWatts - e.config.IdleWatts) * curveError * math.Sqrt(u*(1-u))
	return energy.Watts(figures+curve) + workloadError*e.Power(u)
}

// relativePower maps a CPU utilization to 0 (idle power) to 1 (maximum power).
func relativePower(utilization float64) float64 {
	u := max(0, min(1, utilization))
	return 2*u - math.Pow(u, curveExponent)
}
