package hardware

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MemoryLimit returns how much memory this process and its children can use, in bytes: the RAM
// of the machine, or less if a cgroup of this process or one above it has a limit. 0: unknown.
func MemoryLimit(roots Roots) uint64 {
	roots = roots.withDefaults()
	limit := uint64(math.MaxUint64)
	if total, _, err := memory(roots.ProcfsPath); err == nil {
		limit = *total
	}
	for _, dir := range roots.ownCgroups("memory") {
		for _, file := range []string{"memory.max", "memory.limit_in_bytes"} { // version 2 and 1
			if n, err := strconv.ParseUint(readWord(dir, file), 10, 64); err == nil && n > 0 {
				limit = min(limit, n)
			}
		}
	}
	if limit == math.MaxUint64 {
		return 0
	}
	return limit
}

// threadLimit returns how many of the machine's logical processors this process and its
// children can keep busy: less where a cgroup of this process or one above it has a CPU quota,
// rounded up, or a CPU set.
func threadLimit(roots Roots, threads int) int {
	for _, dir := range roots.ownCgroups("cpu") {
		if quota, period, ok := cpuQuota(dir); ok {
			threads = min(threads, int(math.Ceil(quota/period)))
		}
	}
	for _, dir := range roots.ownCgroups("cpuset") {
		for _, file := range []string{"cpuset.cpus.effective", "cpuset.effective_cpus"} { // version 2 and 1
			if n := countCPUs(readWord(dir, file)); n > 0 {
				threads = min(threads, n)
			}
		}
	}
	return threads
}

// cpuQuota reads the CPU time of a cgroup in each period, both in microseconds; false if it
// has no limit.
func cpuQuota(dir string) (quota, period float64, limited bool) {
	text, err := os.ReadFile(filepath.Join(dir, "cpu.max")) // version 2: "QUOTA PERIOD" or "max PERIOD"
	words := strings.Fields(string(text))
	if err != nil { // version 1; a quota of -1 means none
		words = []string{readWord(dir, "cpu.cfs_quota_us"), readWord(dir, "cpu.cfs_period_us")}
	}
	if len(words) != 2 {
		return 0, 0, false
	}
	quota, err1 := strconv.ParseFloat(words[0], 64)
	period, err2 := strconv.ParseFloat(words[1], 64)
	return quota, period, err1 == nil && err2 == nil && quota > 0 && period > 0
}

// countCPUs counts the CPUs of a list such as 0-3,8; 0 if it is not one.
func countCPUs(list string) (n int) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err1 := strconv.Atoi(first)
		to := from
		var err2 error
		if isRange {
			to, err2 = strconv.Atoi(last)
		}
		if err1 != nil || err2 != nil || to < from {
			return 0
		}
		n += to - from + 1
	}
	return n
}

// ownCgroups lists the directories of this process's cgroup and those above it, of the unified
// hierarchy and, where it is one of version 1, of the controller's.
func (r Roots) ownCgroups(controller string) (dirs []string) {
	own, _ := os.ReadFile(filepath.Join(r.ProcfsPath, "self", "cgroup"))
	for line := range strings.Lines(string(own)) {
		// HIERARCHY:CONTROLLERS:PATH, see cgroups(7). Version 2 has no list of controllers.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount := r.CgroupPath
		if parts[1] != "" {
			if !strings.Contains(","+parts[1]+",", ","+controller+",") {
				continue
			}
			mount = filepath.Join(mount, controller)
		}
		// In a container the path may be that on the host while the mount is the container's.
		for dir := filepath.Join(mount, parts[2]); ; dir = filepath.Dir(dir) {
			dirs = append(dirs, dir)
			if len(dir) <= len(mount) {
				break
			}
		}
	}
	return dirs
}
