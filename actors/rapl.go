package actors

import (
	"time"

	"ffmpeg-agent/hardware/energy"
)

// raplKind are the sensors of CPU power: RAPL, else hwmon, else an estimate.
func (e *env) raplKind() sensorKind {
	return sensorKind{name: "rapl", open: e.OpenPower, attribute: e.attributeCPU, attributionInterval: e.cpuAttributionInterval}
}

// minCPUAttribution is the minimum interval between CPU-time attributions while one job
// runs at most: the kernel counts CPU time in steps of 10 ms, of which a shorter interval
// has too few.
const minCPUAttribution = 400 * time.Millisecond

// cpuAttributionInterval is the interval between attributions: each reading where several
// jobs divide the energy, for their shares change all the time.
func (e *env) cpuAttributionInterval() time.Duration {
	if len(e.attempts.list()) > 1 {
		return 0
	}
	return minCPUAttribution
}

// attributeCPU attributes processor energy by CPU time.
func (e *env) attributeCPU(_ PowerSensors, readings []energy.Reading) {
	use := &energy.Usage{Method: "cpu time", Jobs: map[string]time.Duration{}}
	for _, a := range e.attempts.list() {
		if used, known := a.run.CPUTime(); known {
			use.Jobs[a.key.String()] = used
		}
	}
	if e.CPUUse != nil {
		if busy, capacity, err := e.CPUUse(); err == nil {
			use.Busy, use.Capacity = busy, capacity
		}
	}
	for i := range readings {
		readings[i].Usage = use
	}
}
