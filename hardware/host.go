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

// HostConfig says what to look at.
type HostConfig struct {
	Settings
	DataDir string // whose disk is watched
}

// HostStatus is how the machine fares. A pointer is nil where the figure is not
// known.
type HostStatus struct {
	At                 time.Time
	CPULoadPercent     *float64 // since the last look, over all threads, 0 to 100; nil at the first
	RAMFree            *uint64  // bytes that programs can still get
	RAMTotal           *uint64  // bytes
	DiskFree           *uint64  // bytes that this user can still write where DataDir is
	DiskTotal          *uint64  // bytes
	TemperatureCelsius *float64 // the processor's hottest sensor
	Throttled          *bool    // slowed down by heat since the last look; nil at the first
}

// Host looks at this machine. It is not safe for concurrent use.
type Host struct {
	config      HostConfig
	times       cpuTimes
	looked      bool
	thermometer []string // files in m°C
	throttles   []string // files that count, one a processor package
	throttled   uint64
	counted     bool
}

// NewHost finds the machine's thermal sensors.
func NewHost(config HostConfig) *Host {
	config.SysfsPath, config.ProcfsPath = orDefault(config.SysfsPath, "/sys"), orDefault(config.ProcfsPath, "/proc")
	return &Host{
		config:      config,
		thermometer: thermometers(config.SysfsPath),
		throttles:   throttleCounters(config.SysfsPath),
	}
}

// Look takes one look. The error names what could not be seen; the rest of the
// status is good beside it.
func (h *Host) Look() (HostStatus, error) {
	status := HostStatus{At: time.Now()}
	var errs []error

	if times, err := readCPUTimes(h.config.ProcfsPath); err != nil {
		errs = append(errs, err)
	} else {
		if use, ok := times.use(h.times); ok && h.looked {
			percent := 100 * use
			status.CPULoadPercent = &percent
		}
		h.times, h.looked = times, true
	}
	var err error
	if status.RAMTotal, status.RAMFree, err = memory(h.config.ProcfsPath); err != nil {
		errs = append(errs, err)
	}
	if status.DiskTotal, status.DiskFree, err = disk(h.config.DataDir); err != nil {
		errs = append(errs, err)
	}
	status.TemperatureCelsius = h.temperature()
	status.Throttled = h.throttling()
	return status, errors.Join(errs...)
}

// memory returns MemTotal and MemAvailable of /proc/meminfo in bytes. Kernels before 3.14
// have no MemAvailable: it is nil there.
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

// disk returns the size of the file system that holds a path, and how much of it this
// user can still write, in bytes.
func disk(path string) (total, free *uint64, err error) {
	path = orDefault(path, "/")
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return nil, nil, fmt.Errorf("reading free disk space of %s: %w", path, err)
	}
	block := uint64(stat.Bsize)
	size, available := stat.Blocks*block, stat.Bavail*block
	return &size, &available, nil
}

// thermometers of the processor: its hwmon chip, else its thermal zone.
func thermometers(sysfsPath string) []string {
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

// temperature is the highest of the processor's, in °C.
func (h *Host) temperature() *float64 {
	var hottest *float64
	for _, file := range h.thermometer {
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

// throttleCounters are the kernel's counts of thermal events, one a package: each
// CPU of a package shows the same.
func throttleCounters(sysfsPath string) []string {
	cpus, _ := filepath.Glob(filepath.Join(sysfsPath, "devices", "system", "cpu", "cpu[0-9]*"))
	seen := map[string]bool{}
	var files []string
	for _, cpu := range cpus {
		file := filepath.Join(cpu, "thermal_throttle", "package_throttle_count")
		processor := readWord(cpu, "topology", "physical_package_id")
		if readWord(file) == "" || seen[processor] {
			continue
		}
		seen[processor] = true
		files = append(files, file)
	}
	return files
}

// throttling tells whether a count rose since the last look.
func (h *Host) throttling() *bool {
	var sum uint64
	known := false
	for _, file := range h.throttles {
		if count, err := strconv.ParseUint(readWord(file), 10, 64); err == nil {
			sum += count
			known = true
		}
	}
	if !known {
		return nil
	}
	rose, first := sum > h.throttled, !h.counted
	h.throttled, h.counted = sum, true
	if first {
		return nil
	}
	return &rose
}
