package hardware

import (
	"os"
	"path/filepath"
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
		write(filepath.Join(roots.ProcfsPath, "self", "cgroup"), c.cgroup)
		for path, text := range c.files {
			write(filepath.Join(roots.SysfsPath, "fs", "cgroup", path), text+"\n")
		}
		if got := MemoryLimit(roots); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
}
