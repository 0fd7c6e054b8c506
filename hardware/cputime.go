package hardware

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"ffmpeg-agent/hardware/proc"
)

// CPUUse returns the busy time and the total time of all CPUs since boot. The total includes
// steal time. Both grow in steps of 10 ms per CPU. An empty procfsPath means /proc.
func CPUUse(procfsPath string) (busy, capacity time.Duration, err error) {
	times, err := readCPUTimes(orDefault(procfsPath, "/proc"))
	return time.Duration(times.busy) * proc.ClockTick, time.Duration(times.all) * proc.ClockTick, err
}

// cpuTimes is the time of all CPUs together since boot, in clock ticks.
type cpuTimes struct {
	busy uint64 // user, nice, system, irq, softirq; a guest's time is part of user
	all  uint64 // busy, idle, iowait and steal
}

// readCPUTimes reads the first line of a /proc/stat.
func readCPUTimes(procfsPath string) (cpuTimes, error) {
	file, err := os.Open(filepath.Join(procfsPath, "stat"))
	if err != nil {
		return cpuTimes{}, fmt.Errorf("reading CPU times: %w", err)
	}
	defer file.Close()
	var buf [512]byte // the line is under 220 characters
	n, err := file.Read(buf[:])
	if err != nil {
		return cpuTimes{}, fmt.Errorf("reading CPU times: %w", err)
	}
	times, err := parseCPUTimes(buf[:n])
	if err != nil {
		return cpuTimes{}, fmt.Errorf("reading CPU times from %s: %w", file.Name(), err)
	}
	return times, nil
}

// parseCPUTimes parses "cpu user nice system idle iowait irq softirq steal …", see
// proc_stat(5). Kernels before 2.6.11 lack steal, and some sandboxes lack more.
func parseCPUTimes(text []byte) (cpuTimes, error) {
	line, _, complete := bytes.Cut(text, []byte("\n"))
	fields := bytes.Fields(line)
	if !complete || len(fields) < 5 || string(fields[0]) != "cpu" {
		return cpuTimes{}, fmt.Errorf("%.40q does not begin with the times of all CPUs", text)
	}
	var times cpuTimes
	for i, field := range fields[1:min(len(fields), 9)] {
		ticks, err := strconv.ParseUint(string(field), 10, 63)
		if err != nil {
			return cpuTimes{}, fmt.Errorf("%.40q is not a number of ticks", field)
		}
		const idle, iowait, steal = 3, 4, 7
		if i != idle && i != iowait && i != steal {
			times.busy += ticks
		}
		times.all += ticks
	}
	return times, nil
}

// utilization returns the utilization of all CPUs since an earlier reading, 0 to 1; false if no
// tick has passed or the counters went back. Steal time does not count as busy.
func (t cpuTimes) utilization(before cpuTimes) (float64, bool) {
	if t.all <= before.all || t.busy < before.busy {
		return 0, false
	}
	return min(1, float64(t.busy-before.busy)/float64(t.all-before.all)), true
}
