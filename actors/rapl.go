package actors

import (
	"time"

	"ffmpeg-agent/hardware/energy"
)

// raplKind are the sensors of CPU power: RAPL, else hwmon, else an estimate.
func (s *shared) raplKind() sensorKind {
	return sensorKind{name: "rapl", open: s.OpenPower, attribute: s.attributeCPU, attributionInterval: s.cpuAttributionInterval}
}

// minCPUAttribution is the minimum interval between CPU-time attributions while at most one
// job runs: the kernel counts CPU time in steps of 10 ms, too coarse for a shorter interval.
const minCPUAttribution = 400 * time.Millisecond

// cpuAttributionInterval is the interval between attributions. While several jobs share the
// energy, each reading is attributed, because their shares keep changing.
func (s *shared) cpuAttributionInterval() time.Duration {
	if len(s.attempts.list()) > 1 {
		return 0
	}
	return minCPUAttribution
}

// attributeCPU attributes processor energy by CPU time.
func (s *shared) attributeCPU(_ PowerSensors, readings []energy.Reading) {
	use := &energy.Usage{Method: "cpu time", Jobs: map[string]time.Duration{}}
	for _, a := range s.attempts.list() {
		if used, known := a.run.CPUTime(); known {
			use.Jobs[a.key.String()] = used
		}
	}
	if s.CPUUse != nil {
		if busy, capacity, err := s.CPUUse(); err == nil {
			use.Busy, use.Capacity = busy, capacity
		}
	}
	for i := range readings {
		readings[i].Usage = use
	}
}
