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
	own, _ := os.ReadFile(filepath.Join(roots.ProcfsPath, "self", "cgroup"))
	for line := range strings.Lines(string(own)) {
		// HIERARCHY:CONTROLLERS:PATH, see cgroups(7). Version 2 has no list of controllers.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, file := filepath.Join(roots.SysfsPath, "fs", "cgroup"), "memory.max"
		if parts[1] != "" {
			if !strings.Contains(","+parts[1]+",", ",memory,") {
				continue
			}
			mount, file = filepath.Join(mount, "memory"), "memory.limit_in_bytes"
		}
		// In a container the path may be that on the host while the mount is the container's.
		for dir := filepath.Join(mount, parts[2]); ; dir = filepath.Dir(dir) {
			if n, err := strconv.ParseUint(readWord(dir, file), 10, 64); err == nil && n > 0 {
				limit = min(limit, n)
			}
			if len(dir) <= len(mount) {
				break
			}
		}
	}
	if limit == math.MaxUint64 {
		return 0
	}
	return limit
}
