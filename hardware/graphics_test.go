package hardware

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func writeTree(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestNVIDIACardsOfTheDriver(t *testing.T) {
	proc := writeTree(t, map[string]string{
		"driver/nvidia/version":                       "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\nGCC version:\n",
		"driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA A10\nIRQ:   \t\t 42\nGPU UUID: \t GPU-1\n",
		"driver/nvidia/gpus/0000:02:00.0/information": "IRQ:   \t\t 43\n",
	})
	const driver = "NVRM version: NVIDIA UNIX x86_64 Kernel Module 550.54.14 Thu Feb 22"
	want := []Graphics{{"NVIDIA A10", true, driver}, {"NVIDIA", true, driver}}
	// NVML is not asked: there is no such command.
	got := FindGraphics(Roots{ProcfsPath: proc, SysfsPath: t.TempDir()}, NVMLConfig{Command: []string{"/no/such/command"}})
	if len(got) < 2 || !slices.Equal(got[:2], want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDevicesOfRenderNodes(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  Graphics
	}{
		"product name": {map[string]string{"vendor": "0x1002\n", "device": "0x744c\n", "product_name": "AMD Radeon PRO W7900\n"}, Graphics{Name: "AMD Radeon PRO W7900", Driver: "i915"}},
		"unknown id":   {map[string]string{"vendor": "0x8086\n", "device": "0xfffe\n"}, Graphics{Name: "Intel [8086:fffe]", Driver: "i915"}},
		"nouveau":      {map[string]string{"vendor": "0x10de\n", "device": "0xfffe\n"}, Graphics{Name: "NVIDIA [10de:fffe]", NVIDIA: true, Driver: "i915"}},
		"no PCI":       {nil, Graphics{Name: "i915", Driver: "i915"}},
	} {
		dir := writeTree(t, c.files)
		if err := os.Symlink("../bus/pci/drivers/i915", filepath.Join(dir, "driver")); err != nil {
			t.Fatal(err)
		}
		if got := renderDevice(dir); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestNameInPCIIDs(t *testing.T) {
	const ids = "# comment\n1002  Advanced Micro Devices\n\t4680  Another\n8086  Intel Corporation\n\t467f  Volume Management Device\n" +
		"\t4680  AlderLake-S GT1\n\t\t1028 0b10  A subsystem\nC 03  Display controller\n\t80  Display\n"
	for device, want := range map[string]string{"4680": "AlderLake-S GT1", "1028": "", "80": "", "1234": ""} {
		if got := findPCIName(bufio.NewScanner(strings.NewReader(ids)), "8086", device); got != want {
			t.Errorf("8086:%s: got %q, want %q", device, got, want)
		}
	}
}

func TestGraphicsIdentityChanges(t *testing.T) {
	a, b := Graphics{"NVIDIA A10", true, "550"}, Graphics{Name: "Intel", Driver: "i915"}
	same := GraphicsIdentity("6.1", []Graphics{a, b})
	if got := GraphicsIdentity("6.1", []Graphics{b, a}); got != same {
		t.Errorf("got %q and %q for the same devices", got, same)
	}
	updated := a
	updated.Driver = "560"
	for what, got := range map[string]string{
		"kernel": GraphicsIdentity("6.2", []Graphics{a, b}), "driver": GraphicsIdentity("6.1", []Graphics{updated, b}), "card": GraphicsIdentity("6.1", []Graphics{a}),
	} {
		if got == same {
			t.Errorf("another %s has the same identity %q", what, got)
		}
	}
}
