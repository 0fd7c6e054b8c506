package hardware

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// cpuTimes is the time all threads together spent since boot, in ticks.
type cpuTimes struct {
	busy uint64 // user, nice, system, irq, softirq; a guest's time is in user
	all  uint64 // those and idle, iowait and steal
}

// tick is the unit of /proc/stat: 1/USER_HZ, the same on all Linux machines.
const tick = 10 * time.Millisecond

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

// parseCPUTimes reads "cpu user nice system idle iowait irq softirq steal …", see
// proc_stat(5). Kernels before 2.6.11 had no steal, and some sandboxes have still
// less.
func parseCPUTimes(text []byte) (cpuTimes, error) {
	line, _, complete := bytes.Cut(text, []byte("\n"))
	fields := bytes.Fields(line)
	if !complete || len(fields) < 5 || string(fields[0]) != "cpu" {
		return cpuTimes{}, fmt.Errorf("no line of all CPUs in %.40q", text)
	}
	var times cpuTimes
	for i, field := range fields[1:min(len(fields), 9)] {
		ticks, err := strconv.ParseUint(string(field), 10, 63)
		if err != nil {
			return cpuTimes{}, fmt.Errorf("%.40q is no number of ticks", field)
		}
		const idle, iowait, steal = 3, 4, 7
		if i != idle && i != iowait && i != steal {
			times.busy += ticks
		}
		times.all += ticks
	}
	return times, nil
}

// use is the part of all threads that was busy since an earlier look, 0 to 1;
// false when no tick has passed or the counters went back. Time that a hypervisor
// gave to others passed without being used.
func (t cpuTimes) use(before cpuTimes) (float64, bool) {
	if t.all <= before.all || t.busy < before.busy {
		return 0, false
	}
	return min(1, float64(t.busy-before.busy)/float64(t.all-before.all)), true
}
