package hardware

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestDetect(t *testing.T) {
	tree := newCPUTree(t, nil, nil)
	must(t, tree.Write(tree.Proc("sys/kernel/osrelease"), "6.1.0-18-amd64\n"))
	must(t, tree.Write(tree.Proc("sys/kernel/random/boot_id"), "5f9a4a6e-0000-4000-8000-000000000000\n"))
	writeSysfs(t, tree, map[string]string{
		"class/dmi/id/chassis_type":     "10",
		"class/power_supply/BAT0/type":  "Battery",
		"class/power_supply/AC/type":    "Mains",
		"class/power_supply/BAT0/scope": "System",
	})
	facts, err := Detect(Roots{SysfsPath: tree.Sys(), ProcfsPath: tree.Proc()})
	must(t, err)
	if facts.Hostname == "" || facts.OS == "" {
		t.Errorf("got hostname %q and OS %q, want both", facts.Hostname, facts.OS)
	}
	facts.Hostname, facts.OS = "", ""
	want := Facts{
		CPUModel: "Fake CPU @ 3.00GHz", CPUThreads: 8, RAMTotal: 16 << 30, NodeType: Laptop,
		Arch: runtime.GOARCH, Kernel: "6.1.0-18-amd64", BootID: "5f9a4a6e-0000-4000-8000-000000000000",
	}
	if facts != want {
		t.Errorf("got %+v, want %+v", facts, want)
	}
}

func TestDetectReturnsPartialFacts(t *testing.T) {
	empty := t.TempDir()
	facts, err := Detect(Roots{SysfsPath: filepath.Join(empty, "sys"), ProcfsPath: filepath.Join(empty, "proc")})
	if err == nil || !strings.Contains(err.Error(), "processor") {
		t.Errorf("got error %v, want one about the processor", err)
	}
	if facts.CPUThreads != runtime.NumCPU() || facts.NodeType != Server || facts.CPUModel == "" || facts.Hostname == "" {
		t.Errorf("got %+v, want defaults and the host name", facts)
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
		{"no firmware tables, battery of a mouse", "", "Battery", "Device", Server},
		{"garbage", "blade", "", "", Server},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tree, _ := newTree(t)
			for path, content := range map[string]string{
				"class/dmi/id/chassis_type": test.chassis, "class/power_supply/P0/type": test.supply, "class/power_supply/P0/scope": test.scope,
			} {
				if content != "" {
					writeSysfs(t, tree, map[string]string{path: content})
				}
			}
			if got := nodeType(tree.Sys()); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
