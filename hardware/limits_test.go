package hardware

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMemoryLimitIsTheTightestAbove(t *testing.T) {
	for name, c := range map[string]struct {
		cgroup string
		files  map[string]string
		want   uint64
	}{
		"no limit":       {"0::/a/b\n", map[string]string{"a/memory.max": "max"}, 4 << 30},
		"of a parent":    {"0::/a/b\n", map[string]string{"a/memory.max": "1048576", "a/b/memory.max": "2097152"}, 1 << 20},
		"of a container": {"0::/\n", map[string]string{"memory.max": "3145728"}, 3 << 20},
		"version 1":      {"5:cpu:/x\n4:memory:/x\n", map[string]string{"memory/x/memory.limit_in_bytes": "5242880"}, 5 << 20},
		"more than all":  {"4:memory:/\n", map[string]string{"memory/memory.limit_in_bytes": "9223372036854771712"}, 4 << 30},
		"no cgroups":     {"", nil, 4 << 30},
	} {
		roots := limitedMachine(t, c.cgroup, c.files)
		if got := MemoryLimit(roots); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
}

// limitedMachine is a machine of 4 GiB with these files of cgroups.
func limitedMachine(t *testing.T, cgroup string, files map[string]string) Roots {
	t.Helper()
	dir := t.TempDir()
	roots := Roots{SysfsPath: filepath.Join(dir, "sys"), ProcfsPath: filepath.Join(dir, "proc")}
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(roots.ProcfsPath, "meminfo"), "MemTotal: 4194304 kB\nMemFree: 512 kB\n")
	write(filepath.Join(roots.ProcfsPath, "cpuinfo"), strings.Repeat("processor: 0\n", 8))
	write(filepath.Join(roots.ProcfsPath, "self", "cgroup"), cgroup)
	for path, text := range files {
		write(filepath.Join(roots.SysfsPath, "fs", "cgroup", path), text+"\n")
	}
	return roots
}

// A container registers with what it may use, not with what its host has.
func TestFactsKeepToTheLimitsOfTheContainer(t *testing.T) {
	for name, c := range map[string]struct {
		cgroup  string
		files   map[string]string
		threads int
	}{
		"no limit":           {"0::/\n", map[string]string{"cpu.max": "max 100000", "cpuset.cpus.effective": "0-7"}, 8},
		"quota":              {"0::/\n", map[string]string{"cpu.max": "250000 100000"}, 3},
		"quota of a parent":  {"0::/a/b\n", map[string]string{"a/cpu.max": "100000 100000", "a/b/cpu.max": "400000 100000"}, 1},
		"more than all":      {"0::/\n", map[string]string{"cpu.max": "9900000 100000"}, 8},
		"CPU set":            {"0::/\n", map[string]string{"cpuset.cpus.effective": "0-1,5"}, 3},
		"version 1":          {"3:cpu,cpuacct:/x\n", map[string]string{"cpu/x/cpu.cfs_quota_us": "150000", "cpu/x/cpu.cfs_period_us": "100000"}, 2},
		"version 1, none":    {"3:cpu:/x\n", map[string]string{"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, 8},
		"version 1, CPU set": {"3:cpuset:/\n", map[string]string{"cpuset/cpuset.effective_cpus": "2"}, 1},
		"path on the host":   {"0::/system.slice/docker-abc.scope\n", map[string]string{"cpu.max": "200000 100000"}, 2},
	} {
		c.files["memory.max"] = "1073741824"
		facts, _ := Detect(limitedMachine(t, c.cgroup, c.files))
		if facts.CPUThreads != c.threads {
			t.Errorf("%s: got %d threads, want %d", name, facts.CPUThreads, c.threads)
		}
		if want := uint64(1 << 30); strings.HasPrefix(c.cgroup, "0::") && facts.RAMTotal != want {
			t.Errorf("%s: got %d bytes of memory, want %d", name, facts.RAMTotal, want)
		}
	}
}
