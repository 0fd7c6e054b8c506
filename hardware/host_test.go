package hardware

import (
	"path/filepath"
	"testing"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

func TestHostStatus(t *testing.T) {
	tree := newCPUTree(t, fakehw.Bursts(0.25, 0.75, time.Second, 2*time.Second), nil)
	throttleCount := "devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
	writeSysfs(t, tree, map[string]string{
		// Two CPUs of one package, whose counter counts once.
		"devices/system/cpu/cpu0/topology/physical_package_id": "0",
		"devices/system/cpu/cpu1/topology/physical_package_id": "0",
		throttleCount: "7",
		"devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": "7",
		"class/hwmon/hwmon0/name":        "nvme",
		"class/hwmon/hwmon0/temp1_input": "99000",
		"class/hwmon/hwmon1/name":        "coretemp",
		"class/hwmon/hwmon1/temp1_input": "61000",
		"class/hwmon/hwmon1/temp2_input": "64500",
	})
	host := NewHost(HostConfig{Roots: Roots{SysfsPath: tree.Sys(), ProcfsPath: tree.Proc()}, DataDir: t.TempDir()})
	status := func() HostStatus {
		t.Helper()
		status, err := host.Status()
		must(t, err)
		return status
	}
	first := status()
	if first.CPULoadPercent != nil || first.Throttled != nil {
		t.Errorf("first status: got %+v, want unknown load and throttling", first)
	}
	if *first.RAMFree != 5<<30 || *first.RAMTotal != 16<<30 || *first.DiskTotal == 0 || *first.DiskFree > *first.DiskTotal || *first.TemperatureCelsius != 64.5 {
		t.Errorf("first status: got %+v", first)
	}
	expect := func(at time.Duration, load float64, throttled bool) {
		t.Helper()
		advance(t, tree, at)
		s := status()
		if *s.CPULoadPercent < load-0.1 || *s.CPULoadPercent > load+0.1 || *s.Throttled != throttled {
			t.Errorf("at %v: got load %v %%, throttled %v; want %v %%, %v", at, *s.CPULoadPercent, *s.Throttled, load, throttled)
		}
	}
	expect(time.Second, 75, false)
	writeSysfs(t, tree, map[string]string{throttleCount: "9"})
	expect(2*time.Second, 25, true)
	expect(3*time.Second, 75, false)
}

func TestHostReturnsPartialStatus(t *testing.T) {
	empty := t.TempDir()
	host := NewHost(HostConfig{Roots: Roots{SysfsPath: empty, ProcfsPath: empty}, DataDir: empty})
	status, err := host.Status()
	if fixed := status.InodesTotal != nil; fixed && (*status.InodesTotal == 0 || *status.InodesFree > *status.InodesTotal) || fixed != (status.InodesFree != nil) {
		t.Errorf("got inodes %v free of %v", status.InodesFree, status.InodesTotal)
	}
	if err == nil || status.DiskFree == nil || status.CPULoadPercent != nil || status.TemperatureCelsius != nil || status.Throttled != nil {
		t.Errorf("empty roots: got %+v and error %v, want the disk only", status, err)
	}
	host = NewHost(HostConfig{DataDir: filepath.Join(empty, "missing")})
	if status, err := host.Status(); err == nil || status.DiskFree != nil || status.RAMFree == nil {
		t.Errorf("missing data dir: got %+v and error %v, want all but the disk", status, err)
	}
}

func TestHostUsesTheThermalZone(t *testing.T) {
	tree := newCPUTree(t, nil, nil)
	writeSysfs(t, tree, map[string]string{
		"class/thermal/thermal_zone0/type": "acpitz", "class/thermal/thermal_zone0/temp": "20000",
		"class/thermal/thermal_zone1/type": "x86_pkg_temp", "class/thermal/thermal_zone1/temp": "-5000",
	})
	status, err := NewHost(HostConfig{Roots: Roots{SysfsPath: tree.Sys(), ProcfsPath: tree.Proc()}}).Status()
	if err != nil || status.TemperatureCelsius == nil || *status.TemperatureCelsius != -5 {
		t.Errorf("got %+v and error %v, want -5 °C", status, err)
	}
}

func TestMemory(t *testing.T) {
	tree := newCPUTree(t, nil, nil)
	must(t, tree.Write(tree.Proc("meminfo"), "MemTotal: 1024 kB\nMemFree: 512 kB\n"))
	total, available, err := memory(tree.Proc())
	if err != nil || total == nil || *total != 1<<20 || available != nil {
		t.Errorf("without MemAvailable: got %v, %v, %v; want 1 MiB, nil, nil", total, available, err)
	}
	for _, text := range []string{"", "MemTotal: 0 kB\n", "MemFree: 512 kB\n", "MemTotal: many kB\n"} {
		must(t, tree.Write(tree.Proc("meminfo"), text))
		if total, _, err := memory(tree.Proc()); err == nil || total != nil {
			t.Errorf("%q: got %v and error %v, want an error", text, total, err)
		}
	}
}
