package hardware

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestNetworkLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sys := t.TempDir()
		write := func(name, text string) {
			t.Helper()
			path := filepath.Join(sys, "class", "net", name)
			must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			must(t, os.WriteFile(path, []byte(text+"\n"), 0o644))
		}
		count := func(nic string, received, sent int) {
			t.Helper()
			write(nic+"/statistics/rx_bytes", strconv.Itoa(received))
			write(nic+"/statistics/tx_bytes", strconv.Itoa(sent))
		}
		for nic, speed := range map[string]string{"eth0": "1000", "eth1": "10000", "wlan0": "-1"} {
			must(t, os.MkdirAll(filepath.Join(sys, "class", "net", nic, "device"), 0o755))
			write(nic+"/speed", speed)
			count(nic, 5_000, 5_000)
		}
		write("docker0/speed", "10") // virtual
		count("docker0", 0, 0)

		host := NewHost(HostConfig{Roots: Roots{SysfsPath: sys, ProcfsPath: "/proc"}})
		expect := func(what string, want float64) {
			t.Helper()
			if got := host.networkLoad(); got == nil || *got < want-0.001 || *got > want+0.001 {
				t.Errorf("%s: got %v, want %v %%", what, got, want)
			}
			time.Sleep(10 * time.Second)
		}
		if got := host.networkLoad(); got != nil {
			t.Errorf("first call: got %v, want unknown", *got)
		}
		time.Sleep(10 * time.Second)
		count("docker0", 1e9, 1e9)
		count("wlan0", 1e9, 1e9)
		expect("idle", 0)
		count("eth0", 5_000, 312_505_000) // 250 Mbit/s
		expect("sending", 25)
		count("eth1", 6_250_005_000, 5_000) // 5 Gbit/s
		expect("the busier of two", 50)
		count("eth1", 0, 0) // reset
		expect("after a reset, the other", 0)
		count("eth0", 1e12, 1e12)
		expect("more than its speed", 100)
		must(t, os.RemoveAll(filepath.Join(sys, "class", "net", "eth0")))
		must(t, os.RemoveAll(filepath.Join(sys, "class", "net", "eth1")))
		if got := host.networkLoad(); got != nil {
			t.Errorf("no interface with a speed: got %v, want unknown", *got)
		}
	})
}
