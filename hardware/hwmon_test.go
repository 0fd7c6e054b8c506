package hardware

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

func addChip(t testing.TB, tree *fakehw.Tree, config fakehw.ChipConfig) *fakehw.Chip {
	t.Helper()
	chip, err := tree.AddChip(config)
	if err != nil {
		t.Fatal(err)
	}
	return chip
}

// openHwmon with the tree's own time.
func openHwmon(t testing.TB, tree *fakehw.Tree) *Hwmon {
	t.Helper()
	h, err := OpenHwmon(tree.Sys(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	begin := time.Now()
	h.now = func() time.Time { return begin.Add(tree.Now()) }
	return h
}

func meter(file, label string, watts float64) fakehw.SensorConfig {
	return fakehw.SensorConfig{File: file, Label: label, Power: fakehw.Constant(watts)}
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
	strangers = []fakehw.ChipConfig{
		{Name: "amdgpu", Device: "0000:03:00.0", Sensors: []fakehw.SensorConfig{meter("power1_average", "PPT", 200)}},
		{Name: "i915", Device: "0000:00:02.0", Sensors: []fakehw.SensorConfig{meter("energy1_input", "", 30)}},
		{Name: "nouveau", Device: "0000:04:00.0", Sensors: []fakehw.SensorConfig{meter("power1_input", "", 50)}},
		{Name: "BAT0", Device: "PNP0C0A:00", Sensors: []fakehw.SensorConfig{meter("power1_input", "", 8)}},
		{Name: "nvme", Device: "nvme0"},
	}
)

func TestChipsOfEveryMachine(t *testing.T) {
	card := func(t *testing.T, tree *fakehw.Tree) {
		for name, content := range map[string]string{"vendor": "0x10de\n", "class": "0x030200\n"} {
			if err := tree.Write(tree.Sys("bus", "pci", "devices", "0000:41:00.0", name), content); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name  string
		chips []fakehw.ChipConfig
		cards bool
	}{
		{"hwmon_ampere", ampere, true},
		{"hwmon_xgene", xgene, false},
		{"hwmon_grace", grace, true},
		{"hwmon_grace_and_memory", append(grace[1:2:2], board[2]), true},
		{"hwmon_grace_rails", grace[2:], true},
		{"hwmon_amd_energy", amdEnergy, false},
		{"hwmon_power9", power9, false},
		{"hwmon_board", board, false},
		{"hwmon_strangers", strangers, false},
		{"hwmon_nothing", nil, false},
		{"hwmon_whole_machine", append(strangers[:len(strangers):len(strangers)], acpiMeter("ACPI000D:00", "", 350)), false},
		{"hwmon_whole_machine_with_card", []fakehw.ChipConfig{acpiMeter("ACPI000D:00", "", 350)}, true},
		{"hwmon_two_whole_machines", []fakehw.ChipConfig{acpiMeter("ACPI000D:00", "", 350), acpiMeter("ACPI000D:01", "", 340)}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			tree, _ := machine(t)
			for _, config := range test.chips {
				addChip(t, tree, config)
			}
			if test.cards {
				card(t, tree)
			}
			var text strings.Builder
			defer func() { golden(t, filepath.Join("testdata", test.name+".golden"), text.String()) }()
			if _, err := OpenHwmon(tree.Sys(), nil); err != nil {
				if !errors.Is(err, ErrNoHwmon) {
					t.Error(err)
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
				step(t, tree, at)
				if _, faults := record(t, ledger, h); len(faults) > 0 {
					t.Fatalf("%+v", faults)
				}
			}
			account := ledger.Close("job", h.now())
			describeTotal(&text, account.Machine)
		})
	}
}

// integrated follows one sensor for 20 s and gives its counter and doubt over the 15 s
// in the middle, what truly was used then, and the highest power read.
func integrated(t *testing.T, config fakehw.SensorConfig, files map[string]string, every time.Duration) (got, want, doubt, peak float64, zone *energy.Zone) {
	t.Helper()
	tree, _ := machine(t)
	chip := addChip(t, tree, fakehw.ChipConfig{Name: "fam15h_power", Device: "0000:00:18.4", Files: files, Sensors: []fakehw.SensorConfig{config}})
	h := openHwmon(t, tree)
	var first, last energy.Microjoules
	var from, to time.Duration
	var doubted float64
	for at := time.Duration(0); at <= 20*time.Second; at += every {
		step(t, tree, at)
		readings, faults := h.Read()
		if len(faults) > 0 {
			t.Fatalf("%+v", faults)
		}
		sum := h.sensors[0].integral
		peak = max(peak, sum.power)
		switch {
		case at < 3*time.Second:
			first, from, doubted = readings[0].Counter, at, sum.doubt
		case at <= 18*time.Second:
			last, to, doubt = readings[0].Counter, at, (sum.doubt-doubted)/1e6
		}
	}
	return float64((last - first).Joules()), chip.Sensors()[0].Joules(from, to), doubt, peak, h.zones[0]
}

// The integral of what a chip says against the truth: within what the readings leave
// open and what lies on the wrong side of a window's edges.
func TestIntegratedPower(t *testing.T) {
	curves := map[string]fakehw.Curve{
		"constant": fakehw.Constant(120),
		"ramp":     fakehw.Ramp(10, 200, 20*time.Second),
		"sine":     fakehw.Sine(100, 80, 7300*time.Millisecond),
		"swift":    fakehw.Sine(100, 80, 1300*time.Millisecond),
		"steps":    fakehw.Bursts(20, 250, 3*time.Second, 5*time.Second),
		"bursts":   fakehw.Bursts(15, 280, 150*time.Millisecond, 770*time.Millisecond),
	}
	chips := []struct {
		name   string
		sensor fakehw.SensorConfig
		files  map[string]string
		update time.Duration
	}{
		{"mean of 1 s", fakehw.SensorConfig{File: "power1_average", Average: time.Second},
			map[string]string{"power1_average_interval": "1000\n"}, time.Second},
		{"mean of 1 s each second", fakehw.SensorConfig{File: "power1_average", Average: time.Second, Update: time.Second}, nil, time.Second},
		{"mean of 50 ms", fakehw.SensorConfig{File: "power1_average", Average: 50 * time.Millisecond},
			map[string]string{"power1_average_interval": "50\n"}, 50 * time.Millisecond},
		{"moments", fakehw.SensorConfig{File: "power1_input"}, map[string]string{"update_interval": "1\n"}, time.Millisecond},
		{"moments each 200 ms", fakehw.SensorConfig{File: "power1_input", Update: 200 * time.Millisecond},
			map[string]string{"update_interval": "200\n"}, 200 * time.Millisecond},
		{"moments each second", fakehw.SensorConfig{File: "power1_input", Update: time.Second}, nil, time.Second},
	}
	for _, chip := range chips {
		for name, curve := range curves {
			for _, every := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 700 * time.Millisecond} {
				t.Run(fmt.Sprintf("%s/%s/%v", chip.name, name, every), func(t *testing.T) {
					sensor := chip.sensor
					sensor.Power = curve
					got, want, doubt, peak, zone := integrated(t, sensor, chip.files, every)
					if zone.UpdateInterval != chip.update {
						t.Errorf("renewed each %v", zone.UpdateInterval)
					}
					edges := 2 * zone.UpdateInterval.Seconds() * peak
					if math.Abs(got-want) > doubt+edges+1e-3 {
						t.Errorf("%.1f J, truly %.1f J: %.1f J apart, more than %.1f J between the readings and %.1f J at the edges",
							got, want, math.Abs(got-want), doubt, edges)
					}
					if name == "constant" && (doubt > 1e-3 || math.Abs(got-want) > 1e-3) {
						t.Errorf("%.4f ± %.4f J of a constant power, truly %.4f J", got, doubt, want)
					}
					if name == "ramp" && chip.name == "moments" && math.Abs(got-want) > 1e-3 {
						t.Errorf("%.4f J of what the trapezoidal rule has exactly, truly %.4f J", got, want)
					}
				})
			}
		}
	}
}

// The chip's own energy counter needs no integral.
func TestEnergyCounterOfAChip(t *testing.T) {
	tree, _ := machine(t)
	chip := addChip(t, tree, fakehw.ChipConfig{Name: "amd_energy", Device: "amd_energy.0", Sensors: []fakehw.SensorConfig{
		{File: "energy1_input", Label: "Esocket0", Power: fakehw.Bursts(10, 250, 30*time.Millisecond, 470*time.Millisecond)},
	}})
	h := openHwmon(t, tree)
	first, _ := h.Read()
	step(t, tree, 10*time.Second)
	last, _ := h.Read()
	got, want := float64((last[0].Counter - first[0].Counter).Joules()), chip.Sensors()[0].Joules(0, 10*time.Second)
	if math.Abs(got-want) > 1e-5 {
		t.Errorf("%v J, truly %v J", got, want)
	}
}

// What a sensor that says nothing has used is not known: a gap, and no 0.
func TestNothingFromASensorIsAGap(t *testing.T) {
	for _, nonsense := range []string{"0\n", "N/A\n", "", "-3000000\n", "99999999999999999999\n", "2000000001\n"} {
		t.Run(fmt.Sprintf("%q", nonsense), func(t *testing.T) {
			tree, _ := machine(t)
			chip := addChip(t, tree, fakehw.ChipConfig{Name: "fam15h_power", Device: "0000:00:18.4", Sensors: []fakehw.SensorConfig{
				meter("power1_input", "", 100),
			}})
			h := openHwmon(t, tree)
			ledger := energy.NewLedger()
			ledger.Open("job", h.now())
			for i := range 11 {
				step(t, tree, time.Duration(i)*time.Second)
				if i == 5 || i == 1 {
					if err := tree.Write(chip.Sensors()[0].Path(), nonsense); err != nil {
						t.Fatal(err)
					}
				}
				readings, faults := record(t, ledger, h)
				if failed := i == 5 || i == 1; failed != (len(faults) == 1) || failed == (len(readings) == 1) {
					t.Fatalf("at %d s: readings %+v, faults %+v", i, readings, faults)
				}
			}
			account := ledger.Close("job", h.now())
			if account.Total.Gaps != 2 || math.Abs(account.Total.CoveragePercent-60) > 1e-9 || math.Abs(float64(*account.Total.Energy)-600) > 1e-3 {
				t.Errorf("%+v, %v J", account.Total, *account.Total.Energy)
			}
		})
	}
}

// A value that the chip holds was true of one moment only; a mean is of all the time.
func TestDoubtOfAChange(t *testing.T) {
	for _, test := range []struct {
		name    string
		held    bool
		elapsed time.Duration
		want    float64 // J
	}{
		{"read more often than renewed", true, 100 * time.Millisecond, 50},
		{"read seldom", true, 4 * time.Second, 100},
		{"mean", false, 100 * time.Millisecond, 2.5},
	} {
		sum := integral{update: time.Second, held: test.held}
		begin := time.Now()
		sum.add(100, begin)
		sum.add(150, begin.Add(test.elapsed))
		if got := sum.doubt / 1e6; math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%s: ±%v J, want ±%v J", test.name, got, test.want)
		}
	}
}

func TestLongSilenceIsAGap(t *testing.T) {
	sum := integral{update: time.Second, counted: integralStart}
	begin := time.Now()
	sum.add(100, begin)
	sum.add(100, begin.Add(hwmonSilence))
	if got := float64((sum.counter() - integralStart).Joules()); math.Abs(got-100*hwmonSilence.Seconds()) > 1e-3 {
		t.Errorf("%v J", got)
	}
	before := sum.counter()
	sum.add(100, begin.Add(2*hwmonSilence+1))
	if sum.counter() >= before {
		t.Errorf("the counter went on from %d to %d", before, sum.counter())
	}
	sum.add(5000, begin) // from the past
	if sum.power != 100 {
		t.Errorf("%+v", sum)
	}
}

// A driver that is removed and loaded again gets another number; the sensor is the same.
func TestChipThatReturnsUnderAnotherNumber(t *testing.T) {
	tree, _ := machine(t)
	addChip(t, tree, fakehw.ChipConfig{Name: "nvme", Device: "nvme0"})
	chip := addChip(t, tree, xgene[0])
	h := openHwmon(t, tree)
	expect := func(at time.Duration, zones, missing int) {
		t.Helper()
		step(t, tree, at)
		readings, faults := h.Read()
		if len(readings) != zones || len(faults) != missing {
			t.Fatalf("at %v: readings %+v, faults %+v", at, readings, faults)
		}
		for i, r := range readings {
			if want := []string{"hwmon:apm_xgene:APMC0D29:00:cpu-power", "hwmon:apm_xgene:APMC0D29:00:io-power"}[i]; r.Zone.ID != want {
				t.Errorf("%s, want %s", r.Zone.ID, want)
			}
		}
	}
	expect(0, 2, 0)
	if err := chip.Unload(); err != nil {
		t.Fatal(err)
	}
	expect(time.Second, 0, 2)
	if err := chip.Load(7); err != nil {
		t.Fatal(err)
	}
	expect(2*time.Second, 2, 0)
	addChip(t, tree, fakehw.ChipConfig{Name: "smpro_hwmon", Device: "later", Sensors: []fakehw.SensorConfig{meter("power3_input", "power3 DIMM VRD1", 5)}})
	expect(3*time.Second, 2, 0)
	step(t, tree, 2*lookAgain)
	readings, _ := h.Read()
	if len(readings) != 3 || readings[2].Zone.Domain != energy.DomainDRAM || !readings[2].Zone.Counted {
		t.Errorf("after a minute: %+v", readings)
	}
}

// A stopgap ends as soon as there is something better.
func TestBetterSourceThatComesLater(t *testing.T) {
	tree := busyMachine(t, nil, nil)
	open := func(want string) PowerSensors {
		t.Helper()
		sensors, err := OpenCPUPower(CPUPowerConfig{SysfsPath: tree.Sys(), ProcfsPath: tree.Proc()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sensors.Close() })
		if sensors.Name() != want {
			t.Fatalf("%s, want %s", sensors.Name(), want)
		}
		return sensors
	}
	ends := func(sensors PowerSensors, reason string) {
		t.Helper()
		if readings, faults := sensors.Read(); len(readings) != 1 || !readings[0].Zone.Counted || len(faults) > 0 {
			t.Fatalf("too soon: %+v, %+v", readings, faults)
		}
		later := time.Now().Add(lookAgain)
		sensors.(*stopgap).now = func() time.Time { return later }
		if readings, _ := sensors.Read(); len(readings) != 1 || readings[0].Zone.Counted {
			t.Fatalf("at last: %+v", readings)
		}
		if readings, faults := sensors.Read(); len(readings) != 0 || len(faults) != 1 || faults[0].Err != reason {
			t.Fatalf("afterwards: %+v, %+v", readings, faults)
		}
	}
	estimate := open("estimate")
	addChip(t, tree, fakehw.ChipConfig{Name: "fam15h_power", Device: "0000:00:18.4", Sensors: []fakehw.SensorConfig{meter("power1_input", "", 100)}})
	ends(estimate, "hwmon has come")
	hwmon := open("hwmon")
	if _, err := tree.AddZone(zone("intel-rapl:0", "package-0")); err != nil {
		t.Fatal(err)
	}
	ends(hwmon, "rapl has come")
	open("rapl")
}

// A source that has ended counts no more, whatever it says afterwards: the one that came
// measures the same processor.
func TestStopgapThatHasEndedStaysOutOfTheTotal(t *testing.T) {
	tree := busyMachine(t, fakehw.Constant(1), nil)
	estimate, err := OpenCPUPower(CPUPowerConfig{SysfsPath: tree.Sys(), ProcfsPath: tree.Proc(), MaxWatts: 100})
	if err != nil {
		t.Fatal(err)
	}
	gap, begin := estimate.(*stopgap), time.Now()
	clock := func() time.Time { return begin.Add(tree.Now()) }
	gap.now, gap.looked, gap.PowerSensors.(*Estimator).now = clock, begin, clock
	ledger := energy.NewLedger()
	ledger.Open("job", begin)
	for at := time.Duration(0); at < lookAgain; at += time.Second {
		step(t, tree, at)
		record(t, ledger, estimate)
	}
	if _, err := tree.AddZone(zone("intel-rapl:0", "package-0")); err != nil {
		t.Fatal(err)
	}
	for at := lookAgain; at < lookAgain+5*time.Second; at += time.Second {
		step(t, tree, at)
		record(t, ledger, estimate)
		for _, z := range estimate.Zones() {
			if z.Counted {
				t.Errorf("at %v: %s counts", at, z.ID)
			}
		}
	}
	rapl := openRAPL(t, tree)
	rapl.now = clock
	for at := lookAgain + 5*time.Second; at <= 2*lookAgain; at += time.Second {
		step(t, tree, at)
		record(t, ledger, rapl)
	}
	account := ledger.Close("job", clock())
	if want := 10 * (lookAgain - 5*time.Second).Seconds(); account.Total.Method != "rapl: package-0" || math.Abs(float64(*account.Total.Energy)-want) > 1e-3 {
		t.Errorf("%v J, want %v J: %+v", *account.Total.Energy, want, account.Total)
	}
	if percent := account.Total.CoveragePercent; percent > 50 {
		t.Errorf("%v %% covered", percent)
	}
}

func TestUnreadableChip(t *testing.T) {
	tree, _ := machine(t)
	chip := addChip(t, tree, xgene[0])
	for _, s := range chip.Sensors() {
		if err := tree.Write(s.Path(), "N/A\n"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := OpenHwmon(tree.Sys(), nil)
	if err == nil || errors.Is(err, ErrNoHwmon) || !strings.Contains(err.Error(), `power1_input: "N/A" is no power in µW`) {
		t.Errorf("%v", err)
	}
}

func BenchmarkHwmonRead(b *testing.B) {
	tree, _ := machine(b)
	config := smpro("smpro-hwmon.2.auto")
	config.Sensors = append(config.Sensors, meter("power6_input", "power2 SoC spare", 1))
	addChip(b, tree, config)
	h, err := OpenHwmon(tree.Sys(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	b.ReportAllocs()
	for b.Loop() {
		if readings, _ := h.Read(); len(readings) != 6 {
			b.Fatal(readings)
		}
	}
}
