package hardware

import (
	"errors"
	"fmt"
	"math"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/proc"
)

// Power of a processor whose owner gave no figures, in W per thread. Threads of
// processors on the market lie between 0.5 and 2 W idle and between 2 and 10 W
// at full use, from big server parts to desktops; these are in their middle.
const (
	idleWattsPerThread = 1.0
	maxWattsPerThread  = 5.0
)

// curveExponent is r in P = idle + (max − idle)·(2u − u^r), the curve of power
// over CPU use found in Fan, Weber and Barroso, "Power Provisioning for a
// Warehouse-sized Computer" (ISCA 2007), section 4.1.
const curveExponent = 1.4

// How far an estimate may be off.
const (
	// curveDoubt is a in ±a·√(u·(1−u)), the part of max − idle by which measured curves
	// lie beside that one: 20 published ones of servers and of processor packages, see
	// TestCoverageOfEstimates.
	curveDoubt = 0.5
	// workDoubt is the part of the power that depends on what is computed, on temperature
	// and on how good the figures are.
	workDoubt = 0.1
	// A figure that is not known may be anything from 0 to twice what is assumed.
	assumedDoubt = 1.0
)

// EstimatorConfig says what is known of the processor.
type EstimatorConfig struct {
	IdleWatts, MaxWatts float64 // of the whole processor; 0: not known
	ProcfsPath          string  // "" is /proc
	Threads             int     // 0: as many as /proc/cpuinfo lists
	Model               string  // the processor's name; "": /proc/cpuinfo's
	// Because is why nothing is measured.
	Because error
}

// Estimator computes the processor's power from its use, where nothing measures
// it. What it says is always labelled as an estimate.
type Estimator struct {
	config              EstimatorConfig
	idleDoubt, maxDoubt float64 // W
	zone                *energy.Zone
	now                 func() time.Time

	last    time.Time // zero before the first reading
	times   cpuTimes  // at the last tick that was seen
	use     float64   // 0 to 1, since then
	known   bool      // use has been seen
	owed    time.Duration
	counted float64 // µJ
	doubt   float64 // µJ: by how much that may be wrong, either way
}

var _ PowerSensors = (*Estimator)(nil)

// NewEstimator fails where CPU use cannot be read or the figures contradict each
// other.
func NewEstimator(config EstimatorConfig) (*Estimator, error) {
	config.ProcfsPath = orDefault(config.ProcfsPath, "/proc")
	for _, watts := range []float64{config.IdleWatts, config.MaxWatts} {
		if !(watts >= 0) || math.IsInf(watts, 0) {
			return nil, fmt.Errorf("estimating CPU power: %v is no power in W", watts)
		}
	}
	if _, err := readCPUTimes(config.ProcfsPath); err != nil {
		return nil, fmt.Errorf("estimating CPU power: %w", err)
	}
	if config.Threads <= 0 || config.Model == "" {
		model, threads, err := processor(config.ProcfsPath)
		if config.Threads <= 0 && threads <= 0 {
			return nil, fmt.Errorf("estimating CPU power: %w", errors.Join(errors.New("number of threads not known"), err))
		}
		if config.Threads <= 0 {
			config.Threads = threads
		}
		if config.Model == "" {
			config.Model = model
		}
	}
	idle, full, origin := config.complete()
	if config.MaxWatts < config.IdleWatts {
		return nil, fmt.Errorf("estimating CPU power: %v W at full use are less than %v W idle", config.MaxWatts, config.IdleWatts)
	}
	name := ""
	if config.Model != "" {
		name = " " + config.Model
	}
	e := &Estimator{
		config: config, idleDoubt: idle, maxDoubt: full,
		now: time.Now,
		zone: &energy.Zone{
			ID: "estimate:cpu", Name: "cpu", Domain: energy.DomainCPU, Counted: true,
			Source: energy.Estimated, Method: "estimate",
			Model: fmt.Sprintf("P = %g + %g·(2u − u^%g) W at CPU use u; %s, %d threads%s",
				config.IdleWatts, config.MaxWatts-config.IdleWatts, curveExponent, origin, config.Threads, name),
			UpdateInterval: proc.ClockTick,
			MaxPower:       energy.Watts(max(2*config.MaxWatts, 1)),
		},
	}
	e.zone.Uncertainty = e.uncertainty()
	return e, nil
}

// complete fills in what the owner does not know, and says in W how far each figure may
// be off for that.
//
// A model by the processor's name would not be better: published watts per thread (Cloud
// Carbon Footprint's, from SPECpower) are of whole machines at their supply, and a
// virtual machine often does not know its processor's name.
func (c *EstimatorConfig) complete() (idle, full float64, origin string) {
	const ratio = maxWattsPerThread / idleWattsPerThread
	switch {
	case c.IdleWatts > 0 && c.MaxWatts > 0:
		return 0, 0, "owner's figures"
	case c.MaxWatts > 0:
		c.IdleWatts = c.MaxWatts / ratio
		return assumedDoubt * c.IdleWatts, 0, "owner's figure at full use, idle assumed"
	case c.IdleWatts > 0:
		c.MaxWatts = c.IdleWatts * ratio
		return 0, assumedDoubt * c.MaxWatts, "owner's idle figure, full use assumed"
	}
	c.IdleWatts = idleWattsPerThread * float64(c.Threads)
	c.MaxWatts = maxWattsPerThread * float64(c.Threads)
	return assumedDoubt * c.IdleWatts, assumedDoubt * c.MaxWatts, "figures assumed"
}

// uncertainty is the largest doubt relative to the power, over all uses; at most 1,
// since no processor gives energy back.
func (e *Estimator) uncertainty() float64 {
	worst := 0.0
	for percent := 0; percent <= 100; percent++ {
		use := float64(percent) / 100
		if power := float64(e.Power(use)); power > 0 {
			worst = max(worst, float64(e.Doubt(use))/power)
		}
	}
	return min(1, math.Ceil(worst*100)/100)
}

// Name is estimate.
func (e *Estimator) Name() string { return "estimate" }

// Because is why nothing is measured; nil where that was not said.
func (e *Estimator) Because() error { return e.config.Because }

// Zones is the one virtual counter.
func (e *Estimator) Zones() []*energy.Zone { return []*energy.Zone{e.zone} }

// Close has nothing to close.
func (e *Estimator) Close() error { return nil }

// Read adds what was used since the last reading to the virtual counter. The
// first one starts it at 0.
func (e *Estimator) Read() ([]energy.Reading, []energy.Fault) {
	times, err := readCPUTimes(e.config.ProcfsPath)
	now := e.now()
	if err != nil {
		return nil, []energy.Fault{{Zone: e.zone, At: now, Err: err.Error()}}
	}
	e.integrate(times, now)
	doubt := energy.Microjoules(e.doubt)
	return []energy.Reading{{Zone: e.zone, At: now, Counter: energy.Microjoules(e.counted), ErrorBound: &doubt, Suspended: asleep()}}, nil
}

// integrate goes on at the present use until /proc/stat, which counts in ticks,
// tells a newer one.
func (e *Estimator) integrate(times cpuTimes, now time.Time) {
	if e.last.IsZero() {
		e.last, e.times = now, times
		return
	}
	elapsed := now.Sub(e.last)
	if elapsed <= 0 {
		return
	}
	e.last = now
	if use, ok := times.use(e.times); ok {
		e.use, e.known = use, true
		e.times = times
	} else if times.all < e.times.all {
		e.times = times // counters went back: from here on anew
	}
	if !e.known { // before the first tick: added as soon as the use is known
		e.owed += elapsed
		return
	}
	microseconds := (elapsed + e.owed).Seconds() * 1e6
	e.counted += float64(e.Power(e.use)) * microseconds
	// No processor gives energy back: the estimate is never off by more than itself.
	e.doubt += float64(min(e.Doubt(e.use), e.Power(e.use))) * microseconds
	e.owed = 0
}

// Power at a CPU use of 0 to 1.
func (e *Estimator) Power(use float64) energy.Watts {
	return energy.Watts(e.config.IdleWatts + (e.config.MaxWatts-e.config.IdleWatts)*rise(use))
}

// Doubt is how far the power at a CPU use of 0 to 1 may be off.
func (e *Estimator) Doubt(use float64) energy.Watts {
	use = max(0, min(1, use))
	figures := e.idleDoubt + (e.maxDoubt-e.idleDoubt)*rise(use)
	curve := (e.config.MaxWatts - e.config.IdleWatts) * curveDoubt * math.Sqrt(use*(1-use))
	return energy.Watts(figures+curve) + workDoubt*e.Power(use)
}

// rise is the part of max − idle at a CPU use.
func rise(use float64) float64 {
	use = max(0, min(1, use))
	return 2*use - math.Pow(use, curveExponent)
}
