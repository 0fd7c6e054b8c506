package fakehw

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func addChip(t *testing.T, tree *Tree, config ChipConfig) *Chip {
	t.Helper()
	chip, err := tree.AddChip(config)
	must(t, err)
	return chip
}

// The values are read through an open descriptor, as the agent does.
func TestSensorValues(t *testing.T) {
	tree := newTree(t)
	power := Ramp(0, 100, 10*time.Second)
	chip := addChip(t, tree, ChipConfig{Name: "fake", Device: "fake.0", Sensors: []SensorConfig{
		{File: "power1_input", Label: "CPU power", Power: power},
		{File: "power2_average", Power: power, Average: time.Second},
		{File: "power3_average", Power: power, Average: time.Second, Update: time.Second},
		{File: "energy1_input", Power: power},
	}})
	var files []*os.File
	for _, s := range chip.Sensors() {
		file, err := os.Open(s.Path())
		must(t, err)
		defer file.Close()
		files = append(files, file)
	}
	for _, want := range []struct {
		at     time.Duration
		values [4]float64
	}{
		{500 * time.Millisecond, [4]float64{5, 1.25, 0, 1.25}}, // half of the average is from before the start
		{2500 * time.Millisecond, [4]float64{25, 20, 15, 31.25}},
		{10 * time.Second, [4]float64{100, 95, 95, 500}},
		{12 * time.Second, [4]float64{100, 100, 100, 700}},
	} {
		must(t, tree.AdvanceTo(want.at))
		for i, file := range files {
			if got := float64(readCounter(t, file)) / 1e6; math.Abs(got-want.values[i]) > 1e-4 {
				t.Errorf("at %v: %s: got %v, want %v", want.at, chip.Sensors()[i].config.File, got, want.values[i])
			}
		}
	}
	if got := chip.Sensors()[3].Joules(0, 10*time.Second); math.Abs(got-500) > 1e-6 {
		t.Errorf("got true energy %v J, want 500 J", got)
	}
}

func TestChipLayout(t *testing.T) {
	tree := newTree(t)
	addChip(t, tree, ChipConfig{Name: "first", Device: "first.0"})
	chip := addChip(t, tree, ChipConfig{Name: "power_meter", Device: "ACPI000D:00", OnDevice: true,
		Sensors: []SensorConfig{{File: "power1_average", Label: "total", Power: Constant(7)}}})
	content := func(path ...string) string {
		text, err := os.ReadFile(tree.Sys(append([]string{"class", "hwmon"}, path...)...))
		if err != nil {
			return ""
		}
		return string(text)
	}
	if got := content("hwmon0", "name"); got != "first\n" {
		t.Errorf("got name %q, want first", got)
	}
	for _, file := range []string{"name", "power1_label"} {
		if content("hwmon1", file) != "" || content("hwmon1", "device", file) == "" {
			t.Errorf("%s is not in the device's directory", file)
		}
	}
	must(t, chip.Unload())
	if _, err := os.Stat(tree.Sys("class", "hwmon", "hwmon1")); err == nil {
		t.Error("the chip is still there after Unload")
	}
	must(t, tree.AdvanceTo(time.Second))
	must(t, chip.Load(5))
	device, err := filepath.EvalSymlinks(tree.Sys("class", "hwmon", "hwmon5", "device"))
	if err != nil || filepath.Base(device) != "ACPI000D:00" {
		t.Errorf("got device %s and error %v, want ACPI000D:00", device, err)
	}
	if got := content("hwmon5", "device", "power1_average"); got == "" {
		t.Error("got no power after Load")
	}
}
