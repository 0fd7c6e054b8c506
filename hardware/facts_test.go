package hardware

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

func TestFactsOfAMachine(t *testing.T) {
	tree := busyMachine(t, nil, nil)
	for path, content := range map[string]string{
		tree.Proc("sys/kernel/osrelease"):         "6.1.0-18-amd64\n",
		tree.Proc("sys/kernel/random/boot_id"):    "5f9a4a6e-0000-4000-8000-000000000000\n",
		tree.Sys("class/dmi/id/chassis_type"):     "10\n",
		tree.Sys("class/power_supply/BAT0/type"):  "Battery\n",
		tree.Sys("class/power_supply/AC/type"):    "Mains\n",
		tree.Sys("class/power_supply/BAT0/scope"): "System\n",
	} {
		if err := tree.Write(path, content); err != nil {
			t.Fatal(err)
		}
	}
	facts, err := Detect(Settings{tree.Sys(), tree.Proc()})
	if err != nil {
		t.Fatal(err)
	}
	if facts.Hostname == "" || facts.OS == "" {
		t.Errorf("%+v", facts)
	}
	facts.Hostname, facts.OS = "", ""
	want := Facts{
		CPUModel: "Fake CPU @ 3.00GHz", CPUThreads: 8, RAMTotal: 16 << 30, NodeType: Laptop,
		Arch: runtime.GOARCH, Kernel: "6.1.0-18-amd64", BootID: "5f9a4a6e-0000-4000-8000-000000000000",
	}
	if facts != want {
		t.Errorf("%+v, want %+v", facts, want)
	}
}

func TestFactsArePartialRatherThanMissing(t *testing.T) {
	empty := t.TempDir()
	facts, err := Detect(Settings{filepath.Join(empty, "sys"), filepath.Join(empty, "proc")})
	if err == nil || !strings.Contains(err.Error(), "processor") {
		t.Errorf("error %v", err)
	}
	if facts.CPUThreads != runtime.NumCPU() || facts.NodeType != Server || facts.CPUModel == "" || facts.Hostname == "" {
		t.Errorf("%+v", facts)
	}
}

func TestNodeType(t *testing.T) {
	tests := []struct {
		name, chassis, supply, scope, want string
	}{
		{"desktop", "3", "", "", Desktop},
		{"mini PC", "35", "", "", Desktop},
		{"notebook", "10", "Battery", "System", Laptop},
		{"convertible", "31", "", "", Laptop},
		{"rack mount", "23", "", "", Server},
		{"desktop with a wireless mouse", "3", "Battery", "Device", Desktop},
		{"desktop on a UPS", "", "UPS", "", Server},
		{"virtual machine", "1", "", "", Server},
		{"no firmware tables, battery", "", "Battery", "", Laptop},
		{"no firmware tables, a mouse's battery", "", "Battery", "Device", Server},
		{"garbage", "blade", "", "", Server},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tree, _ := machine(t)
			for path, content := range map[string]string{
				"class/dmi/id/chassis_type": test.chassis, "class/power_supply/P0/type": test.supply, "class/power_supply/P0/scope": test.scope,
			} {
				if content == "" {
					continue
				}
				if err := tree.Write(tree.Sys(path), content+"\n"); err != nil {
					t.Fatal(err)
				}
			}
			if got := nodeType(tree.Sys()); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestHostLooks(t *testing.T) {
	tree := busyMachine(t, fakehw.Bursts(0.25, 0.75, time.Second, 2*time.Second), nil)
	write := func(path, content string) {
		t.Helper()
		if err := tree.Write(tree.Sys(path), content+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	for _, cpu := range []string{"cpu0", "cpu1"} { // of one package, which is counted once
		write("devices/system/cpu/"+cpu+"/topology/physical_package_id", "0")
		write("devices/system/cpu/"+cpu+"/thermal_throttle/package_throttle_count", "7")
	}
	write("class/hwmon/hwmon0/name", "nvme")
	write("class/hwmon/hwmon0/temp1_input", "99000")
	write("class/hwmon/hwmon1/name", "coretemp")
	write("class/hwmon/hwmon1/temp1_input", "61000")
	write("class/hwmon/hwmon1/temp2_input", "64500")

	host := NewHost(HostConfig{Settings: Settings{tree.Sys(), tree.Proc()}, DataDir: t.TempDir()})
	look := func() HostStatus {
		t.Helper()
		status, err := host.Look()
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	first := look()
	if first.CPULoadPercent != nil || first.Throttled != nil {
		t.Errorf("known from one look: %+v", first)
	}
	if *first.RAMFree != 5<<30 || *first.RAMTotal != 16<<30 || *first.DiskTotal == 0 || *first.DiskFree > *first.DiskTotal || *first.TemperatureCelsius != 64.5 {
		t.Errorf("%+v", first)
	}
	step(t, tree, time.Second)
	second := look()
	if load := *second.CPULoadPercent; load < 74.9 || load > 75.1 || *second.Throttled {
		t.Errorf("load %v, throttled %v", load, *second.Throttled)
	}
	step(t, tree, 2*time.Second)
	write("devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "9")
	third := look()
	if load := *third.CPULoadPercent; load < 24.9 || load > 25.1 || !*third.Throttled {
		t.Errorf("load %v, throttled %v", load, *third.Throttled)
	}
	step(t, tree, 3*time.Second)
	if fourth := look(); *fourth.Throttled {
		t.Error("still throttled when the count stands")
	}
}

func TestHostStatusIsPartialRatherThanMissing(t *testing.T) {
	empty := t.TempDir()
	host := NewHost(HostConfig{Settings: Settings{empty, empty}, DataDir: empty})
	status, err := host.Look()
	if err == nil || status.DiskFree == nil || status.CPULoadPercent != nil || status.TemperatureCelsius != nil || status.Throttled != nil {
		t.Errorf("%+v, %v", status, err)
	}
	gone := NewHost(HostConfig{DataDir: filepath.Join(empty, "gone")})
	if status, err := gone.Look(); err == nil || status.DiskFree != nil || status.RAMFree == nil {
		t.Errorf("%+v, %v", status, err)
	}
}

func TestHostFallsBackToTheThermalZone(t *testing.T) {
	tree := busyMachine(t, nil, nil)
	for path, content := range map[string]string{
		"class/thermal/thermal_zone0/type": "acpitz\n", "class/thermal/thermal_zone0/temp": "20000\n",
		"class/thermal/thermal_zone1/type": "x86_pkg_temp\n", "class/thermal/thermal_zone1/temp": "-5000\n",
	} {
		if err := tree.Write(tree.Sys(path), content); err != nil {
			t.Fatal(err)
		}
	}
	status, err := NewHost(HostConfig{Settings: Settings{tree.Sys(), tree.Proc()}}).Look()
	if err != nil || status.TemperatureCelsius == nil || *status.TemperatureCelsius != -5 {
		t.Errorf("%+v, %v", status, err)
	}
}

func TestMemoryWithoutMemAvailable(t *testing.T) {
	tree := busyMachine(t, nil, nil)
	if err := tree.Write(tree.Proc("meminfo"), "MemTotal: 1024 kB\nMemFree: 512 kB\n"); err != nil {
		t.Fatal(err)
	}
	total, available, err := memory(tree.Proc())
	if err != nil || total == nil || *total != 1<<20 || available != nil {
		t.Errorf("memory() = %v, %v, %v; want 1 MiB, nil, nil", total, available, err)
	}
	for _, text := range []string{"", "MemTotal: 0 kB\n", "MemFree: 512 kB\n", "MemTotal: many kB\n"} {
		if err := tree.Write(tree.Proc("meminfo"), text); err != nil {
			t.Fatal(err)
		}
		if total, _, err := memory(tree.Proc()); err == nil || total != nil {
			t.Errorf("memory() of %q = %v, %v; want an error", text, total, err)
		}
	}
}
