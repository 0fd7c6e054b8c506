package hardware

import "time"

// CPUUse is the CPU time that all threads of the machine together have used since
// boot, and the most they could have used: idle time, waiting for I/O and time that
// a hypervisor gave to others included. Both come in steps of 10 ms per thread. procfsPath
// "" is /proc.
func CPUUse(procfsPath string) (busy, capacity time.Duration, err error) {
	times, err := readCPUTimes(orDefault(procfsPath, "/proc"))
	return time.Duration(times.busy) * tick, time.Duration(times.all) * tick, err
}
