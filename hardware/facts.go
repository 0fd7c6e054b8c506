package hardware

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Node types.
const (
	Server  = "server"
	Desktop = "desktop"
	Laptop  = "laptop"
)

// Roots are the mount points of sysfs and procfs.
type Roots struct {
	SysfsPath  string // default /sys
	ProcfsPath string // default /proc
	// CgroupPath is where the cgroups of this process are mounted, which differs where a
	// container has the host's sysfs elsewhere; default fs/cgroup below SysfsPath.
	CgroupPath string
}

func (r Roots) withDefaults() Roots {
	sysfs := orDefault(r.SysfsPath, "/sys")
	return Roots{
		SysfsPath: sysfs, ProcfsPath: orDefault(r.ProcfsPath, "/proc"),
		CgroupPath: orDefault(r.CgroupPath, filepath.Join(sysfs, "fs", "cgroup")),
	}
}

// Facts are the machine's properties that do not change while it runs. An unknown fact is empty
// or 0.
type Facts struct {
	CPUModel   string
	CPUThreads int    // logical processors, or fewer where this process is limited to fewer
	RAMTotal   uint64 // bytes; likewise
	NodeType   string // Server, Desktop or Laptop
	Hostname   string
	OS         string // such as "Debian GNU/Linux 12 (bookworm)"
	Arch       string // Go's name: amd64, arm64
	Kernel     string // release, such as 6.1.0-18-amd64
	BootID     string // changes with each boot
}

// Detect reads the machine's facts. The error names those that could not be read; the others
// are valid.
func Detect(roots Roots) (Facts, error) {
	roots = roots.withDefaults()
	facts := Facts{
		NodeType: nodeType(roots.SysfsPath), OS: osName(), Arch: runtime.GOARCH,
		Kernel: readWord(roots.ProcfsPath, "sys", "kernel", "osrelease"),
		BootID: readWord(roots.ProcfsPath, "sys", "kernel", "random", "boot_id"),
	}
	var errs [3]error
	facts.CPUModel, facts.CPUThreads, errs[0] = processor(roots.ProcfsPath)
	var total *uint64
	if total, _, errs[1] = memory(roots.ProcfsPath); total != nil {
		facts.RAMTotal = MemoryLimit(roots)
	}
	facts.Hostname, errs[2] = os.Hostname()
	if facts.CPUThreads == 0 {
		facts.CPUThreads = runtime.NumCPU()
	}
	facts.CPUThreads = threadLimit(roots, facts.CPUThreads)
	if facts.CPUModel == "" {
		facts.CPUModel = facts.Arch
	}
	if err := errors.Join(errs[:]...); err != nil {
		return facts, fmt.Errorf("detecting hardware: %w", err)
	}
	return facts, nil
}

// processor returns the model and the number of threads in /proc/cpuinfo. Many Arm machines
// list no model.
func processor(procfsPath string) (model string, threads int, err error) {
	file, err := os.Open(filepath.Join(procfsPath, "cpuinfo"))
	if err != nil {
		return "", 0, fmt.Errorf("reading the processor model: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.TrimSpace(key) {
		case "processor":
			threads++
		case "model name":
			model = cmp.Or(model, strings.Join(strings.Fields(value), " "))
		}
	}
	if err := lines.Err(); err != nil {
		return "", 0, fmt.Errorf("reading the processor model: %w", err)
	}
	if threads == 0 {
		return "", 0, fmt.Errorf("reading the processor model: no processor in %s", file.Name())
	}
	return model, threads, nil
}

// nodeType derives the node type from the firmware's chassis type or, if there is none, as in
// virtual machines and containers, from the presence of a battery.
func nodeType(sysfsPath string) string {
	if kind := chassis(readWord(sysfsPath, "class", "dmi", "id", "chassis_type")); kind != "" {
		return kind
	}
	if hasBattery(sysfsPath) {
		return Laptop
	}
	return Server
}

// chassis returns the node type of a chassis type (SMBIOS 3.7, section 7.4.1); empty for
// "other", "unknown" and those that match none.
func chassis(text string) string {
	number, err := strconv.Atoi(text)
	if err != nil {
		return ""
	}
	switch number {
	case 3, 4, 5, 6, 7, 13, 15, 16, 24, 34, 35, 36: // desktops, towers, all in one, mini and stick PCs
		return Desktop
	case 8, 9, 10, 11, 14, 30, 31, 32: // portables, notebooks, tablets, convertibles
		return Laptop
	case 17, 23, 25, 28, 29: // server, rack, multi-system, blade
		return Server
	}
	return ""
}

// hasBattery reports whether the machine has a battery. It ignores those of peripherals, which
// have the scope Device.
func hasBattery(sysfsPath string) bool {
	supplies, _ := filepath.Glob(filepath.Join(sysfsPath, "class", "power_supply", "*"))
	for _, supply := range supplies {
		if readWord(supply, "type") == "Battery" && readWord(supply, "scope") != "Device" {
			return true
		}
	}
	return false
}

// osName returns PRETTY_NAME of os-release(5), else GOOS.
func osName() string {
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		file, err := os.Open(path)
		if err != nil {
			continue
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
				return strings.Trim(name, `"'`)
			}
		}
	}
	return runtime.GOOS
}
