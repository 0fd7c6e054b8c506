package hardware

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

func addChip(t testing.TB, tree *fakehw.Tree, config fakehw.ChipConfig) *fakehw.Chip {
	t.Helper()
	chip, err := tree.AddChip(config)
	must(t, err)
	return chip
}

func openHwmon(t testing.TB, tree *fakehw.Tree) *Hwmon {
	t.Helper()
	h, err := OpenHwmon(tree.Sys(), nil)
	must(t, err)
	t.Cleanup(func() { h.Close() })
	h.now = treeClock(tree)
	return h
}

func meter(file, label string, watts float64) fakehw.SensorConfig {
	return fakehw.SensorConfig{File: file, Label: label, Power: fakehw.Constant(watts)}
}

// fam15h is the simplest chip of a processor.
func fam15h(sensor fakehw.SensorConfig) fakehw.ChipConfig {
	return fakehw.ChipConfig{Name: "fam15h_power", Device: "0000:00:18.4", Sensors: []fakehw.SensorConfig{sensor}}
}

func acpiMeter(device, info string, watts float64) fakehw.ChipConfig {
	files := map[string]string{"power1_average_interval": "50\n", "power1_accuracy": "97.5%\n"}
	if info != "" {
		files["power1_oem_info"] = info + "\n"
	}
	return fakehw.ChipConfig{Name: "power_meter", Device: device, OnDevice: true, Files: files,
		Sensors: []fakehw.SensorConfig{meter("power1_average", "", watts)}}
}

func smpro(device string) fakehw.ChipConfig {
	return fakehw.ChipConfig{Name: "smpro_hwmon", Device: device, Sensors: []fakehw.SensorConfig{
		meter("power1_input", "power1 CORE VRD", 80), meter("power2_input", "power2 SoC", 20),
		meter("power3_input", "power3 DIMM VRD1", 5), meter("power4_input", "power4 DIMM VRD2", 6),
		meter("power5_input", "power5 RCA VRD", 9),
	}}
}

var (
	ampere = []fakehw.ChipConfig{smpro("smpro-hwmon.2.auto"), smpro("smpro-hwmon.9.auto"), acpiMeter("ACPI000D:00", "", 400)}
	xgene  = []fakehw.ChipConfig{{Name: "apm_xgene", Device: "APMC0D29:00", Sensors: []fakehw.SensorConfig{
		meter("power1_input", "CPU power", 15), meter("power2_input", "IO power", 31),
	}}}
	grace = []fakehw.ChipConfig{
		acpiMeter("ACPI000D:00", "Module Power Socket 0", 600), acpiMeter("ACPI000D:01", "Grace Power Socket 0", 150),
		acpiMeter("ACPI000D:02", "CPU Power Socket 0", 120), acpiMeter("ACPI000D:03", "SysIO Power Socket 0", 10),
	}
	amdEnergy = []fakehw.ChipConfig{{Name: "amd_energy", Device: "amd_energy.0", Sensors: []fakehw.SensorConfig{
		meter("energy1_input", "Ecore000", 3), meter("energy2_input", "Ecore001", 3), meter("energy3_input", "Esocket0", 60),
	}}}
	power9 = []fakehw.ChipConfig{{Name: "ibmpowernv", Device: "opal-sensor", Sensors: []fakehw.SensorConfig{
		meter("power1_input", "System", 500), meter("power2_input", "Chip 0", 90), meter("power3_input", "Chip 0 Vdd", 70),
		meter("power4_input", "Chip 8", 91), meter("energy1_input", "Chip 0", 90),
	}}}
	board = []fakehw.ChipConfig{
		{Name: "ina226", Device: "0-0040", Files: map[string]string{"update_interval": "140\n"},
			Sensors: []fakehw.SensorConfig{meter("power1_input", "VDD_CPU_BIG", 9)}},
		{Name: "ina226", Device: "0-0041", Sensors: []fakehw.SensorConfig{meter("power1_input", "VDD_CPU_LIT", 3)}},
		{Name: "ina226", Device: "0-0042", Sensors: []fakehw.SensorConfig{meter("power1_input", "VDD_DDR", 2)}},
		{Name: "ina226", Device: "0-0043", Sensors: []fakehw.SensorConfig{meter("power1_input", "VDD_CPU_GPU_CV", 20)}},
		{Name: "ina226", Device: "0-0044", Sensors: []fakehw.SensorConfig{meter("power1_input", "SYSTEM_12V", 30)}},
		{Name: "ina226", Device: "0-0045", Sensors: []fakehw.SensorConfig{meter("power1_input", "", 7)}},
	}
	otherDevices = []fakehw.ChipConfig{
		{Name: "amdgpu", Device: "0000:03:00.0", Sensors: []fakehw.SensorConfig{meter("power1_average", "PPT", 200)}},
		{Name: "i915", Device: "0000:00:02.0", Sensors: []fakehw.SensorConfig{meter("energy1_input", "", 30)}},
		{Name: "nouveau", Device: "0000:04:00.0", Sensors: []fakehw.SensorConfig{meter("power1_input", "", 50)}},
		{Name: "BAT0", Device: "PNP0C0A:00", Sensors: []fakehw.SensorConfig{meter("power1_input", "", 8)}},
		{Name: "nvme", Device: "nvme0"},
	}
)

func TestHwmonChips(t *testing.T) {
	for _, test := range []struct {
		name  string
		chips []fakehw.ChipConfig
		card  bool
	}{
		{"hwmon_ampere", ampere, true},
		{"hwmon_xgene", xgene, false},
		{"hwmon_grace", grace, true},
		{"hwmon_grace_and_memory", append(grace[1:2:2], board[2]), true},
		{"hwmon_grace_rails", grace[2:], true},
		{"hwmon_amd_energy", amdEnergy, false},
		{"hwmon_power9", power9, false},
		{"hwmon_board", board, false},
		{"hwmon_other_devices", otherDevices, false},
		{"hwmon_nothing", nil, false},
		{"hwmon_whole_machine", append(otherDevices[:len(otherDevices):len(otherDevices)], acpiMeter("ACPI000D:00", "", 350)), false},
		{"hwmon_whole_machine_with_card", []fakehw.ChipConfig{acpiMeter("ACPI000D:00", "", 350)}, true},
		{"hwmon_two_whole_machines", []fakehw.ChipConfig{acpiMeter("ACPI000D:00", "", 350), acpiMeter("ACPI000D:01", "", 340)}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			tree, _ := newTree(t)
			for _, config := range test.chips {
				addChip(t, tree, config)
			}
			if test.card {
				writeSysfs(t, tree, map[string]string{
					"bus/pci/devices/0000:41:00.0/vendor": "0x10de", "bus/pci/devices/0000:41:00.0/class": "0x030200",
				})
			}
			var text strings.Builder
			defer func() { golden(t, test.name, text.String()) }()
			if _, err := OpenHwmon(tree.Sys(), nil); err != nil {
				if !errors.Is(err, ErrNoHwmon) {
					t.Errorf("got error %v, want ErrNoHwmon", err)
				}
				fmt.Fprintln(&text, "no source:", err)
				return
			}
			h := openHwmon(t, tree)
			describeZones(t, &text, h)
			ledger := energy.NewLedger()
			record(t, ledger, h)
			ledger.Open("job", h.now())
			for at := 100 * time.Millisecond; at <= 2*time.Second; at += 100 * time.Millisecond {
				advance(t, tree, at)
				if _, faults := record(t, ledger, h); len(faults) > 0 {
					t.Fatalf("got faults %+v", faults)
				}
			}
			describeTotal(&text, ledger.Close("job", h.now()).Machine)
		})
	}
}

// integration is the result of reading one sensor for 20 s, over the 15 s in the middle.
type integration struct {
	got, want, uncertainty float64 // J
	peak                   float64 // W, the highest power read
	zone                   *energy.Zone
}

func integrate(t *testing.T, sensor fakehw.SensorConfig, files map[string]string, every time.Duration) integration {
	t.Helper()
	tree, _ := newTree(t)
	config := fam15h(sensor)
	config.Files = files
	chip := addChip(t, tree, config)
	h := openHwmon(t, tree)
	result := integration{zone: h.zones[0]}
	integral := h.sensors[0].integral
	var from, to time.Duration
	var first, last energy.Microjoules
	var before, after float64 // uncertainty in µJ
	for at := time.Duration(0); at <= 20*time.Second; at += every {
		advance(t, tree, at)
		readings, faults := h.Read()
		if len(faults) > 0 {
			t.Fatalf("got faults %+v", faults)
		}
		result.peak = max(result.peak, integral.power)
		switch {
		case at < 3*time.Second:
			first, before, from = readings[0].Counter, integral.uncertainty, at
		case at <= 18*time.Second:
			last, after, to = readings[0].Counter, integral.uncertainty, at
		}
	}
	result.got = float64((last - first).Joules())
	result.want = chip.Sensors()[0].Joules(from, to)
	result.uncertainty = (after - before) / 1e6
	return result
}

// The error is within the uncertainty plus the energy on the wrong side of the window's edges.
func TestHwmonPowerIsIntegrated(t *testing.T) {
	curves := map[string]fakehw.Curve{
		"constant": fakehw.Constant(120),
		"ramp":     fakehw.Ramp(10, 200, 20*time.Second),
		"sine":     fakehw.Sine(100, 80, 7300*time.Millisecond),
		"fast":     fakehw.Sine(100, 80, 1300*time.Millisecond),
		"steps":    fakehw.Bursts(20, 250, 3*time.Second, 5*time.Second),
		"bursts":   fakehw.Bursts(15, 280, 150*time.Millisecond, 770*time.Millisecond),
	}
	chips := []struct {
		name   string
		sensor fakehw.SensorConfig
		files  map[string]string
		update time.Duration
	}{
		{"average of 1 s", fakehw.SensorConfig{File: "power1_average", Average: time.Second},
			map[string]string{"power1_average_interval": "1000\n"}, time.Second},
		{"average of 1 s, updated each second", fakehw.SensorConfig{File: "power1_average", Average: time.Second, Update: time.Second}, nil, time.Second},
		{"average of 50 ms", fakehw.SensorConfig{File: "power1_average", Average: 50 * time.Millisecond},
			map[string]string{"power1_average_interval": "50\n"}, 50 * time.Millisecond},
		{"instant", fakehw.SensorConfig{File: "power1_input"}, map[string]string{"update_interval": "1\n"}, time.Millisecond},
		{"instant, updated each 200 ms", fakehw.SensorConfig{File: "power1_input", Update: 200 * time.Millisecond},
			map[string]string{"update_interval": "200\n"}, 200 * time.Millisecond},
		{"instant, updated each second", fakehw.SensorConfig{File: "power1_input", Update: time.Second}, nil, time.Second},
	}
	for _, chip := range chips {
		for name, curve := range curves {
			for _, every := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 700 * time.Millisecond} {
				t.Run(fmt.Sprintf("%s/%s/%v", chip.name, name, every), func(t *testing.T) {
					sensor := chip.sensor
					sensor.Power = curve
					r := integrate(t, sensor, chip.files, every)
					if r.zone.UpdateInterval != chip.update {
						t.Errorf("got update interval %v, want %v", r.zone.UpdateInterval, chip.update)
					}
					edges, off := 2*r.zone.UpdateInterval.Seconds()*r.peak, math.Abs(r.got-r.want)
					if off > r.uncertainty+edges+1e-3 {
						t.Errorf("got %.1f J, want %.1f J ± %.1f J and ± %.1f J at the edges", r.got, r.want, r.uncertainty, edges)
					}
					if name == "constant" && (r.uncertainty > 1e-3 || off > 1e-3) {
						t.Errorf("got %.4f ± %.4f J, want exactly %.4f J", r.got, r.uncertainty, r.want)
					}
					if name == "ramp" && chip.name == "instant" && off > 1e-3 {
						t.Errorf("got %.4f J, want exactly %.4f J: the trapezoidal rule is exact for a ramp", r.got, r.want)
					}
				})
			}
		}
	}
}

func TestHwmonEnergyCounter(t *testing.T) {
	tree, _ := newTree(t)
	chip := addChip(t, tree, fakehw.ChipConfig{Name: "amd_energy", Device: "amd_energy.0", Sensors: []fakehw.SensorConfig{
		{File: "energy1_input", Label: "Esocket0", Power: fakehw.Bursts(10, 250, 30*time.Millisecond, 470*time.Millisecond)},
	}})
	h := openHwmon(t, tree)
	first, _ := h.Read()
	advance(t, tree, 10*time.Second)
	last, _ := h.Read()
	got, want := float64((last[0].Counter - first[0].Counter).Joules()), chip.Sensors()[0].Joules(0, 10*time.Second)
	if math.Abs(got-want) > 1e-5 {
		t.Errorf("got %v J, want %v J", got, want)
	}
}

func TestImplausiblePowerIsAGap(t *testing.T) {
	for _, content := range []string{"0\n", "N/A\n", "", "-3000000\n", "99999999999999999999\n", "2000000001\n"} {
		t.Run(fmt.Sprintf("%q", content), func(t *testing.T) {
			tree, _ := newTree(t)
			chip := addChip(t, tree, fam15h(meter("power1_input", "", 100)))
			h := openHwmon(t, tree)
			ledger := energy.NewLedger()
			ledger.Open("job", h.now())
			for i := range 11 {
				advance(t, tree, time.Duration(i)*time.Second)
				fail := i == 5 || i == 1
				if fail {
					must(t, tree.Write(chip.Sensors()[0].Path(), content))
				}
				readings, faults := record(t, ledger, h)
				if fail != (len(faults) == 1) || fail == (len(readings) == 1) {
					t.Fatalf("at %d s: got readings %+v and faults %+v, want a fault: %v", i, readings, faults, fail)
				}
			}
			total := ledger.Close("job", h.now()).Total
			if total.Gaps != 2 || math.Abs(total.CoveragePercent-60) > 1e-9 || math.Abs(float64(*total.Energy)-600) > 1e-3 {
				t.Errorf("got %v J, %+v; want 600 J, 60 %% coverage and 2 gaps", *total.Energy, total)
			}
		})
	}
}

// A driver that is unloaded and loaded again gets another number.
func TestRescanFindsAChipUnderAnotherNumber(t *testing.T) {
	tree, _ := newTree(t)
	addChip(t, tree, fakehw.ChipConfig{Name: "nvme", Device: "nvme0"})
	chip := addChip(t, tree, xgene[0])
	h := openHwmon(t, tree)
	expect := func(at time.Duration, wantReadings, wantFaults int) {
		t.Helper()
		advance(t, tree, at)
		readings, faults := h.Read()
		if len(readings) != wantReadings || len(faults) != wantFaults {
			t.Fatalf("at %v: got readings %+v and faults %+v, want %d and %d", at, readings, faults, wantReadings, wantFaults)
		}
		for i, r := range readings {
			if want := []string{"hwmon:apm_xgene:APMC0D29:00:cpu-power", "hwmon:apm_xgene:APMC0D29:00:io-power"}[i]; r.Zone.ID != want {
				t.Errorf("at %v: got zone %s, want %s", at, r.Zone.ID, want)
			}
		}
	}
	expect(0, 2, 0)
	must(t, chip.Unload())
	expect(time.Second, 0, 2)
	must(t, chip.Load(7))
	expect(2*time.Second, 2, 0)
	addChip(t, tree, fakehw.ChipConfig{Name: "smpro_hwmon", Device: "later", Sensors: []fakehw.SensorConfig{meter("power3_input", "power3 DIMM VRD1", 5)}})
	expect(3*time.Second, 2, 0)
	advance(t, tree, 2*rescanInterval)
	readings, _ := h.Read()
	if len(readings) != 3 || readings[2].Zone.Domain != energy.DomainDRAM || !readings[2].Zone.Counted {
		t.Errorf("after a minute: got readings %+v, want a third, counted one of memory", readings)
	}
}

func TestOpenHwmonWithUnreadableSensors(t *testing.T) {
	tree, _ := newTree(t)
	chip := addChip(t, tree, xgene[0])
	for _, s := range chip.Sensors() {
		must(t, tree.Write(s.Path(), "N/A\n"))
	}
	_, err := OpenHwmon(tree.Sys(), nil)
	if err == nil || errors.Is(err, ErrNoHwmon) || !strings.Contains(err.Error(), `power1_input: invalid power in µW: "N/A"`) {
		t.Errorf("got error %v, want one about power1_input", err)
	}
}

func BenchmarkHwmonRead(b *testing.B) {
	tree, _ := newTree(b)
	config := smpro("smpro-hwmon.2.auto")
	config.Sensors = append(config.Sensors, meter("power6_input", "power2 SoC spare", 1))
	addChip(b, tree, config)
	h, err := OpenHwmon(tree.Sys(), nil)
	must(b, err)
	defer h.Close()
	b.ReportAllocs()
	for b.Loop() {
		if readings, _ := h.Read(); len(readings) != 6 {
			b.Fatal(readings)
		}
	}
}
