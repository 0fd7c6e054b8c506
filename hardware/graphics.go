package hardware

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Vendors of graphics devices, by PCI vendor id.
var graphicsVendors = map[string]string{"0x8086": "Intel", "0x1002": "AMD", nvidiaVendor: "NVIDIA"}

const nvidiaVendor = "0x10de"

// Graphics is a device that may encode video.
type Graphics struct {
	Name   string // model, else vendor and PCI id, else kernel driver; never empty
	NVIDIA bool
	Driver string // kernel driver, with its version where known
}

// FindGraphics lists the NVIDIA cards, and after them the render nodes of other devices in
// /dev/dri. NVML is queried only if procfs lists no NVIDIA card. An empty list means that this
// machine cannot encode in hardware.
func FindGraphics(roots Roots, nvml NVMLConfig) []Graphics {
	roots = roots.withDefaults()
	found := nvidiaCards(roots.ProcfsPath)
	if len(found) == 0 {
		found = nvmlCards(nvml)
	}
	nodes, _ := filepath.Glob("/dev/dri/renderD*")
	for _, node := range nodes {
		device := filepath.Join(roots.SysfsPath, "class", "drm", filepath.Base(node), "device")
		if g := renderDevice(device); !g.NVIDIA || len(found) == 0 {
			found = append(found, g)
		}
	}
	return found
}

// nvidiaCards returns the cards in the NVIDIA driver's files.
func nvidiaCards(procfsPath string) []Graphics {
	dir := filepath.Join(procfsPath, "driver", "nvidia")
	infos, _ := filepath.Glob(filepath.Join(dir, "gpus", "*", "information"))
	driver := ""
	if version, err := os.ReadFile(filepath.Join(dir, "version")); err == nil {
		driver, _, _ = strings.Cut(string(version), "\n")
		driver = strings.Join(strings.Fields(driver), " ")
	}
	var cards []Graphics
	for _, path := range infos {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		name := "NVIDIA"
		for line := range strings.Lines(string(text)) {
			if model, ok := strings.CutPrefix(line, "Model:"); ok {
				name = cmp.Or(strings.TrimSpace(model), name)
			}
		}
		cards = append(cards, Graphics{Name: name, NVIDIA: true, Driver: driver})
	}
	return cards
}

// nvmlCards returns the cards that NVML lists. A driver that is present but fails counts as a
// card.
func nvmlCards(config NVMLConfig) []Graphics {
	n, err := OpenNVML(config)
	switch {
	case errors.Is(err, ErrNoNVML):
		return nil
	case err != nil:
		return []Graphics{{Name: "NVIDIA", NVIDIA: true}}
	}
	defer n.Close() //nolint:errcheck // the next child would report the same error
	var cards []Graphics
	for _, c := range n.Cards() {
		cards = append(cards, Graphics{Name: cmp.Or(c.Name, "NVIDIA"), NVIDIA: true, Driver: c.Driver})
	}
	return cards
}

// renderDevice describes the device of a render node.
func renderDevice(dir string) Graphics {
	driver := ""
	if target, err := os.Readlink(filepath.Join(dir, "driver")); err == nil {
		driver = filepath.Base(target)
	}
	vendor, model := readWord(dir, "vendor"), readWord(dir, "device")
	g := Graphics{NVIDIA: vendor == nvidiaVendor, Driver: driver}
	switch product := readWord(dir, "product_name"); {
	case product != "":
		g.Name = product
	case vendor != "":
		g.Name = pciName(vendor, model)
	default: // no PCI device
		g.Name = cmp.Or(driver, "render node")
	}
	return g
}

// pciIDs are the paths at which distributions install the names of PCI devices.
var pciIDs = []string{"/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"}

// pciName returns the name of a PCI device with ids such as 0x8086 and 0x4680. If pci.ids is not
// installed, it consists of the ids.
func pciName(vendor, device string) string {
	maker := cmp.Or(graphicsVendors[vendor], vendor)
	for _, path := range pciIDs {
		file, err := os.Open(path)
		if err != nil {
			continue
		}
		name := findPCIName(bufio.NewScanner(file), strings.TrimPrefix(vendor, "0x"), strings.TrimPrefix(device, "0x"))
		_ = file.Close()
		if name != "" {
			return maker + " " + name
		}
	}
	return fmt.Sprintf("%s [%s:%s]", maker, strings.TrimPrefix(vendor, "0x"), strings.TrimPrefix(device, "0x"))
}

// findPCIName looks a device up in pci.ids: a line for each vendor, and below it one for each
// device, indented by a tab.
func findPCIName(lines *bufio.Scanner, vendor, device string) string {
	for inVendor := false; lines.Scan(); {
		line := lines.Text()
		id, name, ok := strings.Cut(strings.TrimPrefix(line, "\t"), "  ")
		switch {
		case !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "\t\t"):
		case !strings.HasPrefix(line, "\t"):
			inVendor = id == vendor
		case inVendor && id == device:
			return strings.TrimSpace(name)
		}
	}
	return ""
}

// GraphicsIdentity returns a string that changes with the graphics devices, their drivers and
// the kernel. Results of trial encodes are valid as long as it stays the same.
func GraphicsIdentity(kernel string, devices []Graphics) string {
	parts := []string{kernel}
	for _, g := range devices {
		parts = append(parts, g.Name+" "+g.Driver)
	}
	slices.Sort(parts[1:])
	return strings.Join(parts, "; ")
}
