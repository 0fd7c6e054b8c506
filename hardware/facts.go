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

// Kinds of machine.
const (
	Server  = "server"
	Desktop = "desktop"
	Laptop  = "laptop"
)

// Settings say where the machine is described; empty paths are the real /sys and
// /proc.
type Settings struct {
	SysfsPath, ProcfsPath string
}

// Facts are what does not change while the machine runs. What could not be found
// out is empty or 0.
type Facts struct {
	CPUModel   string
	CPUThreads int    // logical processors
	RAMTotal   uint64 // bytes
	NodeType   string // Server, Desktop or Laptop
	Hostname   string
	OS         string // such as "Debian GNU/Linux 12 (bookworm)"
	Arch       string // as Go names it: amd64, arm64
	Kernel     string // release, such as 6.1.0-18-amd64
	BootID     string // changes with each boot
}

// Detect finds out what can be found out. The error names what could not; the
// facts are good beside it.
func Detect(settings Settings) (Facts, error) {
	sysfs, proc := orDefault(settings.SysfsPath, "/sys"), orDefault(settings.ProcfsPath, "/proc")
	facts := Facts{NodeType: nodeType(sysfs), OS: osName(), Arch: runtime.GOARCH}
	var errs [3]error
	facts.CPUModel, facts.CPUThreads, errs[0] = processor(proc)
	var memTotal *uint64
	if memTotal, _, errs[1] = memory(proc); memTotal != nil {
		facts.RAMTotal = *memTotal
	}
	facts.Hostname, errs[2] = os.Hostname()
	facts.Kernel = readWord(proc, "sys", "kernel", "osrelease")
	facts.BootID = readWord(proc, "sys", "kernel", "random", "boot_id")
	if facts.CPUThreads == 0 {
		facts.CPUThreads = runtime.NumCPU()
	}
	if facts.CPUModel == "" {
		facts.CPUModel = facts.Arch
	}
	if err := errors.Join(errs[:]...); err != nil {
		return facts, fmt.Errorf("looking at the machine: %w", err)
	}
	return facts, nil
}

// processor is the name of the CPU, empty where /proc/cpuinfo has none as on many
// Arm machines, and how many threads it has.
func processor(procfsPath string) (model string, threads int, err error) {
	file, err := os.Open(filepath.Join(procfsPath, "cpuinfo"))
	if err != nil {
		return "", 0, fmt.Errorf("reading the processor's name: %w", err)
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
		return "", 0, fmt.Errorf("reading the processor's name: %w", err)
	}
	if threads == 0 {
		return "", 0, fmt.Errorf("reading the processor's name: no processor in %s", file.Name())
	}
	return model, threads, nil
}

// nodeType by the chassis that the firmware names, and where it names none, as in
// virtual machines and containers, by a battery.
func nodeType(sysfsPath string) string {
	if kind := chassis(readWord(sysfsPath, "class", "dmi", "id", "chassis_type")); kind != "" {
		return kind
	}
	if hasBattery(sysfsPath) {
		return Laptop
	}
	return Server
}

// chassis is the kind of machine of a chassis type (SMBIOS 3.7, section 7.4.1);
// empty for "other", "unknown" and whatever is none of the three.
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

// hasBattery of the machine's own: a mouse's has the scope Device.
func hasBattery(sysfsPath string) bool {
	supplies, _ := filepath.Glob(filepath.Join(sysfsPath, "class", "power_supply", "*"))
	for _, supply := range supplies {
		if readWord(supply, "type") == "Battery" && readWord(supply, "scope") != "Device" {
			return true
		}
	}
	return false
}

// osName is what os-release(5) calls this system, else Go's name of it.
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

// readWord is a small file's content without the space around it; empty when it
// cannot be read.
func readWord(elem ...string) string {
	text, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
