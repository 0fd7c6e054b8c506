package hardware

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// HostConfig configures a Host.
type HostConfig struct {
	Roots
	DataDir string // selects the file system of the figures of disk and inodes; default /
}

// HostStatus is the machine's current load. A nil figure is unknown.
type HostStatus struct {
	At                 time.Time
	CPULoadPercent     *float64 // of all threads since the previous Status, 0 to 100; nil in the first
	RAMFree            *uint64  // bytes that programs can still allocate
	RAMTotal           *uint64  // bytes
	DiskFree           *uint64  // bytes available to this user
	DiskTotal          *uint64  // bytes
	InodesFree         *uint64  // nil as well where the file system has no fixed number of them
	InodesTotal        *uint64
	TemperatureCelsius *float64 // of the processor's hottest sensor
	NetworkLoadPercent *float64 // of the busiest network interface since the previous Status, 0 to 100
	Throttled          *bool    // thermal throttling since the previous Status; nil in the first
}

// Host reads the load of this machine. It is not safe for concurrent use.
type Host struct {
	config           HostConfig
	times            *cpuTimes          // at the previous Status
	temperatureFiles []string           // in m°C
	throttleFiles    []string           // counters, one for each processor package
	throttleCount    *uint64            // at the previous Status
	traffic          map[string]traffic // at the previous Status, by interface
}

// NewHost returns a Host. It looks up the processor's thermal sensors.
func NewHost(config HostConfig) *Host {
	config.Roots = config.withDefaults()
	return &Host{
		config:           config,
		temperatureFiles: findTemperatures(config.SysfsPath),
		throttleFiles:    findThrottleCounters(config.SysfsPath),
	}
}

// Status reads the current load. The error names the figures that could not be read; the
// others are valid.
func (h *Host) Status() (HostStatus, error) {
	status := HostStatus{At: time.Now(), TemperatureCelsius: h.temperature(), Throttled: h.throttled(), NetworkLoadPercent: h.networkLoad()}
	var errs [3]error
	status.CPULoadPercent, errs[0] = h.cpuLoad()
	status.RAMTotal, status.RAMFree, errs[1] = memory(h.config.ProcfsPath)
	errs[2] = status.readDisk(h.config.DataDir)
	return status, errors.Join(errs[:]...)
}

// cpuLoad returns the CPU load since the previous call in percent; nil in the first.
func (h *Host) cpuLoad() (*float64, error) {
	times, err := readCPUTimes(h.config.ProcfsPath)
	if err != nil {
		return nil, err
	}
	previous := h.times
	h.times = &times
	if previous == nil {
		return nil, nil
	}
	utilization, ok := times.utilization(*previous)
	if !ok {
		return nil, nil
	}
	percent := 100 * utilization
	return &percent, nil
}

// memory returns MemTotal and MemAvailable of /proc/meminfo in bytes. MemAvailable is nil in
// kernels before 3.14.
func memory(procfsPath string) (total, available *uint64, err error) {
	proc, err := procfs.NewFS(procfsPath)
	if err != nil {
		return nil, nil, fmt.Errorf("reading memory size: %w", err)
	}
	info, err := proc.Meminfo()
	if err != nil {
		return nil, nil, fmt.Errorf("reading memory size: %w", err)
	}
	if info.MemTotalBytes == nil || *info.MemTotalBytes == 0 {
		return nil, nil, fmt.Errorf("reading memory size: no MemTotal in %s", filepath.Join(procfsPath, "meminfo"))
	}
	return info.MemTotalBytes, info.MemAvailableBytes, nil
}

// readDisk sets the figures of the file system of a path: those of bytes and of inodes.
func (s *HostStatus) readDisk(path string) error {
	path = orDefault(path, "/")
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return fmt.Errorf("reading free disk space of %s: %w", path, err)
	}
	block := uint64(stat.Bsize)
	size, available := stat.Blocks*block, stat.Bavail*block
	s.DiskTotal, s.DiskFree = &size, &available
	if stat.Files > 0 {
		s.InodesTotal, s.InodesFree = &stat.Files, &stat.Ffree
	}
	return nil
}

// findTemperatures returns the temperature files of the processor's hwmon chip, else of its
// thermal zone.
func findTemperatures(sysfsPath string) []string {
	chips, _ := filepath.Glob(filepath.Join(sysfsPath, "class", "hwmon", "hwmon*"))
	for _, chip := range chips {
		switch readWord(chip, "name") {
		case "coretemp", "k10temp", "zenpower", "cpu_thermal", "scpi_sensors":
			if files, _ := filepath.Glob(filepath.Join(chip, "temp*_input")); len(files) > 0 {
				return files
			}
		}
	}
	zones, _ := filepath.Glob(filepath.Join(sysfsPath, "class", "thermal", "thermal_zone*"))
	for _, zone := range zones {
		switch readWord(zone, "type") {
		case "x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc_thermal":
			return []string{filepath.Join(zone, "temp")}
		}
	}
	return nil
}

// temperature returns the highest temperature of the processor in °C.
func (h *Host) temperature() *float64 {
	var hottest *float64
	for _, file := range h.temperatureFiles {
		milli, err := strconv.ParseInt(readWord(file), 10, 64)
		if err != nil {
			continue
		}
		if celsius := float64(milli) / 1000; hottest == nil || celsius > *hottest {
			hottest = &celsius
		}
	}
	return hottest
}

// findThrottleCounters returns the kernel's counters of thermal events, one for each processor
// package: all CPUs of a package show the same counter.
func findThrottleCounters(sysfsPath string) []string {
	cpus, _ := filepath.Glob(filepath.Join(sysfsPath, "devices", "system", "cpu", "cpu[0-9]*"))
	seen := map[string]bool{}
	var files []string
	for _, cpu := range cpus {
		file := filepath.Join(cpu, "thermal_throttle", "package_throttle_count")
		id := readWord(cpu, "topology", "physical_package_id")
		if readWord(file) == "" || seen[id] {
			continue
		}
		seen[id] = true
		files = append(files, file)
	}
	return files
}

// throttled reports whether the sum of the counters has risen since the previous call; nil if
// unknown.
func (h *Host) throttled() *bool {
	var sum uint64
	known := false
	for _, file := range h.throttleFiles {
		if count, err := strconv.ParseUint(readWord(file), 10, 64); err == nil {
			sum += count
			known = true
		}
	}
	if !known {
		return nil
	}
	previous := h.throttleCount
	h.throttleCount = &sum
	if previous == nil {
		return nil
	}
	rose := sum > *previous
	return &rose
}
