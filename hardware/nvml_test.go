//go:build linux && cgo

package hardware

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

func TestNVMLEnergyMatchesKnownCards(t *testing.T) {
	t.Parallel()
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake)
	m := totals{}
	m.sample(t, n, 50*time.Millisecond, 1700*time.Millisecond)
	if len(m) != 2 {
		t.Fatalf("got %d zones, want 2", len(m))
	}
	m.expectEnergy(t, fake)
	for _, z := range m {
		if z.Gaps() != 0 {
			t.Errorf("%s: got %d gaps, want none", z.first.Zone.Name, z.Gaps())
		}
	}
	constant := m[n.Zones()[0].ID]
	expectNear(t, "cross-check", float64(constant.crossCheck), float64(constant.Total()), 0.05*float64(constant.Total()))
}

func TestNVMLZonesAndCards(t *testing.T) {
	scenario := twoCards()
	scenario.Driver = "535.183.01"
	scenario.Cards[1].Throttle = 1 | 4 | 0x40 | 1<<40
	n := openNVML(t, newFakeNVML(t, scenario))
	readings := readAll(t, n)
	for i, z := range n.Zones() {
		want := energy.Zone{
			ID: scenario.Cards[i].UUID, Name: fmt.Sprint("gpu", i), Domain: energy.DomainGPU, Counted: true,
			Source: energy.Measured, Method: "nvml", UpdateInterval: nvmlUpdateInterval, Uncertainty: 0.05, MaxPower: 700,
		}
		if *z != want {
			t.Errorf("zone %d: got %+v, want %+v", i, *z, want)
		}
	}
	if got := readings[1].Utilization; got == nil || *got != 0.6 {
		t.Errorf("got utilization %s, want the encoder's 0.6", show(got))
	}
	card := n.Cards()[1]
	if time.Since(card.At) > deadline || card.Fault != "" || card.MIG || card.Driver != "535.183.01" || card.Name != "NVIDIA Fake L4" || card.Index != 1 {
		t.Errorf("got card %+v", card)
	}
	if want := []string{"sw_power_cap", "hw_thermal_slowdown", "bit_40"}; !slices.Equal(card.ThrottleReasons, want) {
		t.Errorf("got throttle reasons %q, want %q", card.ThrottleReasons, want)
	}
	if got := n.Cards()[0].ThrottleReasons; got == nil || len(got) != 0 {
		t.Errorf("got throttle reasons %#v, want an empty list", got)
	}
	for what, value := range map[string]struct {
		got  *float64
		want float64
	}{
		"temperature": {card.TemperatureCelsius, 51}, "utilization": {card.UtilizationPercent, 40}, "memory utilization": {card.MemoryUtilizationPercent, 20},
		"encoder": {card.EncoderUtilizationPercent, 60}, "decoder": {card.DecoderUtilizationPercent, 30},
		"graphics clock": {card.ClockGraphicsMHz, 2040}, "SM clock": {card.ClockSMMHz, 2040}, "memory clock": {card.ClockMemoryMHz, 6251},
		"power limit": {(*float64)(card.PowerLimit), 300}, "power": {(*float64)(n.Cards()[0].Power), 70},
		"instant power": {(*float64)(n.Cards()[0].PowerInstant), 70},
	} {
		if value.got == nil || *value.got != value.want {
			t.Errorf("%s: got %s, want %v", what, show(value.got), value.want)
		}
	}
	if card.MemoryUsed == nil || *card.MemoryUsed != 1<<30 || card.MemoryTotal == nil || *card.MemoryTotal != 24<<30 {
		t.Errorf("got memory %v of %v, want 1 GiB of 24 GiB", card.MemoryUsed, card.MemoryTotal)
	}
}

func show(v *float64) string {
	if v == nil {
		return "unknown"
	}
	return fmt.Sprint(*v)
}

// The energy counter of some virtual cards stays at 0.
func TestNVMLIntegratesPowerWhenTheCounterIsZero(t *testing.T) {
	t.Parallel()
	scenario := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70)}
	scenario.Cards[0].Scale = 1e-12
	n := openNVML(t, newFakeNVML(t, scenario))
	m := totals{}
	m.sample(t, n, 20*time.Millisecond, 200*time.Millisecond)
	z := m[scenario.Cards[0].UUID]
	expectNear(t, "power", float64(z.Total().Joules())/z.last.At.Sub(z.first.At).Seconds(), 70, 0.1)
	if z.last.Zone.Method != "nvml power" {
		t.Errorf("got method %s, want nvml power", z.last.Zone.Method)
	}
}

// What the driver lacks or the card does not report is unknown, and never 0.
func TestNVMLUnknownValues(t *testing.T) {
	unsupported := func(calls string) fakehw.NVMLScenario {
		s := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70)}
		s.Cards[0].Fail = map[string]int{}
		for call := range strings.SplitSeq(calls, " ") {
			s.Cards[0].Fail[call] = fakehw.NVMLNotSupported
		}
		return s
	}
	plain := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70)}
	const power, fields = "nvmlDeviceGetPowerUsage", "power_average power_instant"
	for name, test := range map[string]struct {
		scenario fakehw.NVMLScenario
		without  []string
		method   string // of the zone; "": there is none
		unknown  string // of the values checked below
	}{
		"all supported": {scenario: plain, method: "nvml"},
		"old driver": {
			scenario: plain, method: "nvml",
			without: []string{"nvmlDeviceGetFieldValues", "nvmlDeviceGetMigMode", "nvmlDeviceGetProcessUtilization", "nvmlErrorString",
				"nvmlDeviceGetName", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetPowerManagementLimitConstraints", "nvmlDeviceGetHandleByUUID"},
			unknown: "instant name",
		},
		"minimal driver": {
			scenario: plain, method: "nvml",
			without: []string{power, "nvmlDeviceGetFieldValues", "nvmlSystemGetDriverVersion", "nvmlDeviceGetTemperature", "nvmlDeviceGetUtilizationRates",
				"nvmlDeviceGetEncoderUtilization", "nvmlDeviceGetDecoderUtilization", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetClockInfo",
				"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetEnforcedPowerLimit"},
			unknown: "power instant cross-check driver temperature utilization encoder decoder memory clock throttle limit",
		},
		"no counter in the library":  {scenario: plain, without: []string{"nvmlDeviceGetTotalEnergyConsumption"}, method: "nvml power", unknown: "cross-check"},
		"no counter on the card":     {scenario: unsupported("nvmlDeviceGetTotalEnergyConsumption"), method: "nvml power", unknown: "cross-check"},
		"no power":                   {scenario: unsupported(power + " " + fields), method: "nvml", unknown: "power instant cross-check"},
		"power from a field":         {scenario: unsupported(power), method: "nvml"},
		"instant power only":         {scenario: unsupported(power + " power_average"), method: "nvml", unknown: "power"},
		"neither energy nor power":   {scenario: unsupported("nvmlDeviceGetTotalEnergyConsumption " + power + " " + fields), unknown: "power instant cross-check"},
		"temperature not supported":  {scenario: unsupported("nvmlDeviceGetTemperature"), method: "nvml", unknown: "temperature"},
		"clock speeds not supported": {scenario: unsupported("nvmlDeviceGetClockInfo"), method: "nvml", unknown: "clock"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := openNVML(t, newFakeNVML(t, test.scenario, test.without...))
			readings := readAll(t, n)
			if test.method == "" {
				if len(readings) != 0 || len(n.Zones()) != 0 {
					t.Errorf("got readings %+v of zones %+v, want none", readings, n.Zones())
				}
			} else if len(readings) != 1 || readings[0].Zone.Method != test.method {
				t.Fatalf("got readings %+v, want one by %s", readings, test.method)
			}
			card := n.Cards()[0]
			for value, known := range map[string]bool{
				"power": card.Power != nil, "instant": card.PowerInstant != nil, "limit": card.PowerLimit != nil,
				"cross-check": len(readings) > 0 && readings[0].CrossCheck != nil,
				"temperature": card.TemperatureCelsius != nil, "utilization": card.UtilizationPercent != nil, "encoder": card.EncoderUtilizationPercent != nil,
				"decoder": card.DecoderUtilizationPercent != nil, "memory": card.MemoryTotal != nil, "clock": card.ClockSMMHz != nil,
				"throttle": card.ThrottleReasons != nil, "name": card.Name != "", "driver": card.Driver != "",
			} {
				if want := !slices.Contains(strings.Fields(test.unknown), value); known != want {
					t.Errorf("%s: got known %v, want %v", value, known, want)
				}
			}
		})
	}
}

func TestNVMLIntegratesPowerWithoutACounter(t *testing.T) {
	t.Parallel()
	scenario := twoCards()
	for i := range scenario.Cards {
		scenario.Cards[i].Fail = map[string]int{"nvmlDeviceGetTotalEnergyConsumption": fakehw.NVMLNotSupported}
	}
	fake := newFakeNVML(t, scenario)
	n := openNVML(t, fake)
	m := totals{}
	m.sample(t, n, 50*time.Millisecond, 1700*time.Millisecond)
	constant := m[scenario.Cards[0].UUID]
	expectNear(t, "energy of constant power", float64(constant.Total().Joules()), trueEnergy(t, fake, scenario.Cards[0].UUID, constant.first.At, constant.last.At), 0.5)
	wave := m[scenario.Cards[1].UUID]
	// The average over the past second partly covers the time before the window.
	expectNear(t, "energy of square-wave power", float64(wave.Total().Joules()), trueEnergy(t, fake, scenario.Cards[1].UUID, wave.first.At, wave.last.At), 40)
	if got := wave.last.Zone.AveragedOver; got != time.Second {
		t.Errorf("got power averaged over %v, want 1 s", got)
	}
	if constant.last.Zone.Method != "nvml power" || constant.last.CrossCheck != nil {
		t.Errorf("got reading %+v, want one by nvml power without a cross-check", constant.last)
	}
}

func TestNVMLCrossCheckShowsAWrongCounter(t *testing.T) {
	t.Parallel()
	scenario := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(100)}
	scenario.Cards[0].Scale = 1.3
	n := openNVML(t, newFakeNVML(t, scenario))
	m := totals{}
	m.sample(t, n, 50*time.Millisecond, time.Second)
	z := m[scenario.Cards[0].UUID]
	expectNear(t, "counter over cross-check", float64(z.Total())/float64(z.crossCheck), 1.3, 0.05)
}

// Power is only the counter's cross-check.
func TestNVMLCounterContinuesWithoutPower(t *testing.T) {
	t.Parallel()
	const power, instant, average = "nvmlDeviceGetPowerUsage", "power_instant", "power_average"
	lost := map[string]int{power: fakehw.NVMLUnknownError, instant: fakehw.NVMLUnknownError, average: fakehw.NVMLUnknownError}
	scenario := fakehw.NVMLScenario{Update: fakeUpdate, Cards: fakehw.NVMLCards(70)}
	fake := newFakeNVML(t, scenario)
	n := openNVML(t, fake)
	child := n.reader.child.ID().PID
	m := totals{}
	expect := func(crossCheck bool) {
		t.Helper()
		time.Sleep(2 * fakeUpdate)
		readings := readAll(t, n)
		m.add(readings)
		if r := readings[0]; (r.CrossCheck != nil) != crossCheck || r.Zone.Method != "nvml" {
			t.Errorf("got reading %+v, want one by nvml with a cross-check: %v", r, crossCheck)
		}
	}
	expect(true)
	for range 3 {
		change(t, fake, func(s *fakehw.NVMLScenario) { s.Cards[0].Fail = lost })
		expect(false)
		n.reader.reinits.at = time.Now() // a stale card would be reinitialized now
		expect(false)
		change(t, fake, func(s *fakehw.NVMLScenario) { s.Cards[0].Fail = map[string]int{power: fakehw.NVMLUnknownError} })
		expect(true) // from a field
		change(t, fake, func(s *fakehw.NVMLScenario) { s.Cards[0].Fail = nil })
		expect(true)
	}
	if got := n.reader.child.ID().PID; got != child {
		t.Errorf("got a new child %d, want %d", got, child)
	}
	z := m[scenario.Cards[0].UUID]
	expectNear(t, "energy", float64(z.Total().Joules()), trueEnergy(t, fake, scenario.Cards[0].UUID, z.first.At, z.last.At), 2*fakeUpdate.Seconds()*70)
}

func TestNVMLPowerFailureWithoutACounterIsAFault(t *testing.T) {
	t.Parallel()
	const power = "nvmlDeviceGetPowerUsage"
	fail := map[string]int{"nvmlDeviceGetTotalEnergyConsumption": fakehw.NVMLNotSupported}
	scenario := fakehw.NVMLScenario{Update: fakeUpdate, Cards: fakehw.NVMLCards(70)}
	scenario.Cards[0].Fail = fail
	fake := newFakeNVML(t, scenario)
	n := openNVML(t, fake)
	if r := readAll(t, n); r[0].Zone.Method != "nvml power" {
		t.Errorf("got reading %+v, want one by nvml power", r[0])
	}
	change(t, fake, func(s *fakehw.NVMLScenario) {
		s.Cards[0].Fail = map[string]int{"power_instant": fakehw.NVMLUnknownError, "power_average": fakehw.NVMLUnknownError, power: fakehw.NVMLUnknownError}
		for call, code := range fail {
			s.Cards[0].Fail[call] = code
		}
	})
	if _, faults := n.Read(); len(faults) != 1 || !strings.Contains(faults[0].Err, power) {
		t.Errorf("got faults %+v, want one of %s", faults, power)
	}
}

func TestNVMLWithMIG(t *testing.T) {
	scenario := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(100)}
	scenario.Cards[0].MIG = true
	scenario.Cards[0].Processes = []fakehw.NVMLProcess{{PID: os.Getpid(), SM: 50}}
	n := openNVML(t, newFakeNVML(t, scenario))
	readings := readAll(t, n)
	if len(readings) != 1 {
		t.Fatalf("got %d readings, want one of the whole card", len(readings))
	}
	if got := readings[0].Utilization; got != nil {
		t.Errorf("got utilization %v, want unknown", *got)
	}
	card := n.Cards()[0]
	if !card.MIG || card.EncoderUtilizationPercent != nil || card.UtilizationPercent != nil || card.Processes != nil || card.Power == nil {
		t.Errorf("got card %+v, want power only", card)
	}
}

func TestNVMLCounterResetIsAGap(t *testing.T) {
	t.Parallel()
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake)
	m := totals{}
	m.sample(t, n, 50*time.Millisecond, 300*time.Millisecond)
	must(t, fake.ResetCounters())
	m.add(readAll(t, n))
	for _, z := range m {
		if z.Gaps() != 1 {
			t.Errorf("%s: got %d gaps, want 1", z.last.Zone.Name, z.Gaps())
		}
	}
}

func TestNVMLProcessTimes(t *testing.T) {
	t.Parallel()
	procfs := t.TempDir()
	for _, pid := range []string{"100", "200"} {
		must(t, os.Mkdir(filepath.Join(procfs, pid), 0o755))
	}
	scenario := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70, 70)}
	scenario.Cards[0].Processes = []fakehw.NVMLProcess{{PID: 100, SM: 10, Encoder: 50, Decoder: 30}, {PID: 200, SM: 20}}
	fake := newFakeNVML(t, scenario)
	n := openNVML(t, fake, func(c *NVMLConfig) { c.ProcfsPath = procfs })
	readDetails := func() []energy.GPU {
		n.reader.detailsAt = time.Time{}
		readAll(t, n)
		return n.Cards()
	}
	first := readDetails()
	began := time.Now()
	var cards []energy.GPU
	readUntil(t, n, "process time", func([]energy.Reading, []energy.Fault) bool {
		cards = readDetails()
		return cards[0].Processes[100].Encoder-first[0].Processes[100].Encoder > 100*time.Millisecond
	})
	elapsed := time.Since(began).Seconds()
	a, b := cards[0].Processes[100], cards[0].Processes[200]
	if encoder := (a.Encoder - first[0].Processes[100].Encoder).Seconds(); encoder > 0.5*(elapsed+0.5) {
		t.Errorf("got %.3f s of encoder time in %.3f s, want 50 %%", encoder, elapsed)
	}
	expectNear(t, "SM time", a.SM.Seconds(), a.Encoder.Seconds()/5, 1e-3)
	expectNear(t, "decoder time", a.Decoder.Seconds(), a.Encoder.Seconds()*3/5, 1e-3)
	expectNear(t, "SM time of the other process", b.SM.Seconds(), 2*a.SM.Seconds(), 1e-3)
	if got := cards[1].Processes; got == nil || len(got) != 0 {
		t.Errorf("got processes %#v of the idle card, want an empty map", got)
	}
	// A new child starts at 0. The totals continue.
	before := cards[0].Processes[100]
	signalChild(t, n, syscall.SIGKILL)
	readUntil(t, n, "recovery", noFault)
	if after := readDetails()[0]; after.Processes[100].SM < before.SM || after.Processes[200].SM < 2*before.SM || time.Since(after.ProcessesAt) > deadline {
		t.Errorf("after a restart of the child: got processes %v as of %v, want at least %v", after.Processes, after.ProcessesAt, before)
	}
	// An invisible process: the PIDs belong to another namespace.
	change(t, fake, func(s *fakehw.NVMLScenario) {
		s.Cards[0].Processes = append(s.Cards[0].Processes, fakehw.NVMLProcess{PID: 300, SM: 1})
	})
	if cards := readDetails(); cards[0].Processes != nil {
		t.Errorf("with an invisible process: got processes %v, want unknown", cards[0].Processes)
	}
}

// BenchmarkNVMLAtTenHertz reports the CPU time of parent and child at the sampling rate of a
// running job, with two cards: -benchtime 100x takes 10 s.
func BenchmarkNVMLAtTenHertz(b *testing.B) {
	n := openNVML(b, newFakeNVML(b, twoCards()))
	readAll(b, n)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	begin, parent, child := time.Now(), ownCPUTime(b), cpuTimeOf(b, n.reader.child.ID().PID)
	for b.Loop() {
		<-ticker.C
		readAll(b, n)
	}
	elapsed := time.Since(begin)
	b.ReportMetric(100*float64(ownCPUTime(b)-parent)/float64(elapsed), "parent-%core")
	b.ReportMetric(100*float64(cpuTimeOf(b, n.reader.child.ID().PID)-child)/float64(elapsed), "child-%core")
}

func ownCPUTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage unix.Rusage
	must(tb, unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// cpuTimeOf adds up /proc/PID/task/TID/schedstat, which is in ns.
func cpuTimeOf(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(stats) == 0 {
		tb.Fatalf("no schedstat: %v", err)
	}
	var sum time.Duration
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		must(tb, err)
		var ns int64
		_, err = fmt.Sscan(string(text), &ns)
		must(tb, err)
		sum += time.Duration(ns)
	}
	return sum
}
