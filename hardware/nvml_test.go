//go:build linux && cgo

package hardware

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// What this program is when its first argument says so.
const (
	asNVMLChild  = "be-the-nvml-child"
	asNVMLParent = "be-a-parent-that-is-killed"
)

// hangs is when a test that waits has waited too long.
const hangs = 30 * time.Second

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == asNVMLChild:
		if err := ServeNVML(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	case len(os.Args) > 2 && os.Args[1] == asNVMLParent:
		parentThatIsKilled(os.Args[2])
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		os.RemoveAll(builtNVML.dir)
		os.Exit(status)
	}))
}

// builtNVML are the fake libraries by what was left out of them: gcc takes longer than
// most tests.
var builtNVML struct {
	sync.Mutex
	dir string
	by  map[string]string
}

func buildNVML(t testing.TB, without ...string) string {
	t.Helper()
	b := &builtNVML
	b.Lock()
	defer b.Unlock()
	key := strings.Join(without, " ")
	if b.by[key] == "" {
		var err error
		if b.dir == "" {
			b.by = map[string]string{}
			b.dir, err = os.MkdirTemp("", "nvml-")
		}
		dir := filepath.Join(b.dir, fmt.Sprint(len(b.by)))
		err = errors.Join(err, os.Mkdir(dir, 0o755))
		if err == nil {
			b.by[key], err = fakehw.BuildNVML(dir, without...)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.by[key]
}

func nvmlConfig(library string) NVMLConfig {
	return NVMLConfig{Command: []string{"/proc/self/exe", asNVMLChild}, Library: library, StartTimeout: hangs}
}

func newFakeNVML(t testing.TB, scenario fakehw.NVMLScenario, without ...string) *fakehw.NVML {
	t.Helper()
	library := filepath.Join(t.TempDir(), "libnvidia-ml.so")
	content, err := os.ReadFile(buildNVML(t, without...))
	if err == nil {
		err = os.WriteFile(library, content, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	fake, err := fakehw.NVMLOf(library, scenario)
	if err != nil {
		t.Fatal(err)
	}
	return fake
}

func openNVML(t testing.TB, fake *fakehw.NVML, change ...func(*NVMLConfig)) *NVML {
	t.Helper()
	config := nvmlConfig(fake.Library)
	for _, c := range change {
		c(&config)
	}
	n, err := OpenNVML(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.config.Timeout = hangs // however busy the machine, what was killed ends
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func change(t *testing.T, fake *fakehw.NVML, f func(*fakehw.NVMLScenario)) {
	t.Helper()
	if err := fake.Change(f); err != nil {
		t.Fatal(err)
	}
}

// must reads all zones, of which none may fail.
func must(t testing.TB, n *NVML) []energy.Reading {
	t.Helper()
	readings, faults := n.Read()
	if len(faults) > 0 {
		t.Fatalf("faults: %+v", faults)
	}
	return readings
}

// until reads until what was read is as it should be.
func until(t *testing.T, n *NVML, what string, good func([]energy.Reading, []energy.Fault) bool) ([]energy.Reading, []energy.Fault) {
	t.Helper()
	var readings []energy.Reading
	var faults []energy.Fault
	for deadline := time.Now().Add(hangs); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if readings, faults = n.Read(); good(readings, faults) {
			return readings, faults
		}
	}
	t.Fatalf("no %s within %v; last: %d readings, faults %+v", what, hangs, len(readings), faults)
	return nil, nil
}

func allWell(readings []energy.Reading, faults []energy.Fault) bool {
	return len(readings) > 0 && len(faults) == 0
}

func someFault(_ []energy.Reading, faults []energy.Fault) bool { return len(faults) > 0 }

// tally adds up the readings of every zone, as the ledger does.
type tally map[string]*tallied // by zone's ID

type tallied struct {
	energy.Accumulator
	first, last energy.Reading
	cross       energy.Microjoules
}

func (m tally) add(readings []energy.Reading) {
	for _, r := range readings {
		z := m[r.Zone.ID]
		if z == nil {
			z = &tallied{first: r, last: r}
			m[r.Zone.ID] = z
		}
		if delta := z.Add(r); delta.Known() && r.CrossCheck != nil && z.last.CrossCheck != nil {
			z.cross += *r.CrossCheck - *z.last.CrossCheck
		}
		z.last = r
	}
}

// sample reads at an interval for a length of time.
func (m tally) sample(t *testing.T, n *NVML, interval, length time.Duration) {
	t.Helper()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); <-ticker.C {
		m.add(must(t, n))
	}
}

func truth(t *testing.T, fake *fakehw.NVML, uuid string, from, to time.Time) float64 {
	t.Helper()
	joules, err := fake.Joules(uuid, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return joules
}

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if !(math.Abs(got-want) <= within) {
		t.Errorf("%s is %.4f, want %.4f ± %.4f", what, got, want, within)
	}
}

const fakeUpdate = 20 * time.Millisecond

// twoCards are one of constant power and one whose power jumps.
func twoCards() fakehw.NVMLScenario {
	cards := fakehw.NVMLCards(70, 0)
	cards[1].Power = fakehw.NVMLPower{Low: 40, High: 200, Length: 100 * time.Millisecond, Period: 300 * time.Millisecond}
	return fakehw.NVMLScenario{Update: fakeUpdate, Average: time.Second, Cards: cards}
}

func TestNVMLEnergyOfKnownCards(t *testing.T) {
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake)
	m := tally{}
	m.sample(t, n, 50*time.Millisecond, 1700*time.Millisecond)
	if len(m) != 2 {
		t.Fatalf("%d zones were read, want 2", len(m))
	}
	for uuid, z := range m {
		want := truth(t, fake, uuid, z.first.At, z.last.At)
		// Both ends may lie one renewal of the sensor off.
		near(t, "energy of "+z.first.Zone.Name, float64(z.Total().Joules()), want, 2*fakeUpdate.Seconds()*200)
		if z.Gaps() != 0 {
			t.Errorf("%s has %d gaps", z.first.Zone.Name, z.Gaps())
		}
	}
	steady := m[n.Zones()[0].ID]
	near(t, "the second opinion", float64(steady.cross), float64(steady.Total()), 0.05*float64(steady.Total()))
}

func TestNVMLZonesAndCards(t *testing.T) {
	scenario := twoCards()
	scenario.Driver = "535.183.01"
	scenario.Cards[1].Throttle = 1 | 4 | 0x40 | 1<<40
	fake := newFakeNVML(t, scenario)
	n := openNVML(t, fake)
	must(t, n)
	for i, z := range n.Zones() {
		want := energy.Zone{
			ID: scenario.Cards[i].UUID, Name: fmt.Sprint("gpu", i), Domain: energy.DomainGPU, Counted: true,
			Source: energy.Measured, Method: "nvml", UpdateInterval: nvmlUpdate, Uncertainty: 0.05, MaxPower: 700,
		}
		if *z != want {
			t.Errorf("zone %d is %+v, want %+v", i, *z, want)
		}
	}
	if busy := must(t, n)[1].Utilization; busy == nil || *busy != 0.6 {
		t.Errorf("in use by %s, want its encoder's 0.6", figure(busy))
	}
	card := n.Cards()[1]
	if time.Since(card.At) > hangs || card.Fault != "" || card.MIG || card.Driver != "535.183.01" || card.Name != "NVIDIA Fake L4" || card.Index != 1 {
		t.Errorf("card is %+v", card)
	}
	if want := []string{"sw_power_cap", "hw_thermal_slowdown", "bit_40"}; !slices.Equal(card.ThrottleReasons, want) {
		t.Errorf("throttled for %q, want %q", card.ThrottleReasons, want)
	}
	if idle := n.Cards()[0].ThrottleReasons; idle == nil || len(idle) != 0 {
		t.Errorf("throttled for %#v, want nothing", idle)
	}
	for what, f := range map[string]struct {
		got  *float64
		want float64
	}{
		"temperature": {card.TemperatureCelsius, 51}, "use": {card.UtilizationPercent, 40}, "memory use": {card.MemoryUtilizationPercent, 20},
		"encoder": {card.EncoderUtilizationPercent, 60}, "decoder": {card.DecoderUtilizationPercent, 30},
		"graphics": {card.ClockGraphicsMHz, 2040}, "SM": {card.ClockSMMHz, 2040}, "memory": {card.ClockMemoryMHz, 6251},
		"limit": {(*float64)(card.PowerLimit), 300}, "power": {(*float64)(n.Cards()[0].Power), 70},
		"instant power": {(*float64)(n.Cards()[0].PowerInstant), 70},
	} {
		if f.got == nil || *f.got != f.want {
			t.Errorf("%s is %s, want %v", what, figure(f.got), f.want)
		}
	}
	if card.MemoryUsed == nil || *card.MemoryUsed != 1<<30 || card.MemoryTotal == nil || *card.MemoryTotal != 24<<30 {
		t.Errorf("memory is %v of %v", card.MemoryUsed, card.MemoryTotal)
	}
}

func figure(v *float64) string {
	if v == nil {
		return "not known"
	}
	return fmt.Sprint(*v)
}

// A counter that stays at 0, as some virtual cards have it, is none where power is told.
func TestNVMLCounterThatStaysAtZero(t *testing.T) {
	scenario := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70)}
	scenario.Cards[0].Scale = 1e-12
	n := openNVML(t, newFakeNVML(t, scenario))
	m := tally{}
	m.sample(t, n, 20*time.Millisecond, 200*time.Millisecond)
	z := m[scenario.Cards[0].UUID]
	near(t, "power", float64(z.Total().Joules())/z.last.At.Sub(z.first.At).Seconds(), 70, 0.1)
	if z.last.Zone.Method != "nvml power" {
		t.Errorf("by %s", z.last.Zone.Method)
	}
}

// What a driver does not have, or a card does not tell, is not known and never 0.
func TestNVMLFiguresThatAreNotThere(t *testing.T) {
	all := func(call string) fakehw.NVMLScenario {
		s := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70)}
		s.Cards[0].Fail = map[string]int{}
		for name := range strings.SplitSeq(call, " ") {
			s.Cards[0].Fail[name] = fakehw.NVMLNotSupported
		}
		return s
	}
	plain := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70)}
	const power, fields = "nvmlDeviceGetPowerUsage", "power_average power_instant"
	for name, test := range map[string]struct {
		scenario fakehw.NVMLScenario
		without  []string
		method   string // of the zone; "": there is none
		unknown  string // figures, of those that are told else
	}{
		"everything": {scenario: plain, method: "nvml"},
		"an old driver": {
			scenario: plain, method: "nvml",
			without: []string{"nvmlDeviceGetFieldValues", "nvmlDeviceGetMigMode", "nvmlDeviceGetProcessUtilization", "nvmlErrorString",
				"nvmlDeviceGetName", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetPowerManagementLimitConstraints", "nvmlDeviceGetHandleByUUID"},
			unknown: "instant name",
		},
		"hardly a driver": {
			scenario: plain, method: "nvml",
			without: []string{power, "nvmlDeviceGetFieldValues", "nvmlSystemGetDriverVersion", "nvmlDeviceGetTemperature", "nvmlDeviceGetUtilizationRates",
				"nvmlDeviceGetEncoderUtilization", "nvmlDeviceGetDecoderUtilization", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetClockInfo",
				"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetEnforcedPowerLimit"},
			unknown: "power instant cross driver temperature use encoder decoder memory clock throttles limit",
		},
		"no counter in the library": {scenario: plain, without: []string{"nvmlDeviceGetTotalEnergyConsumption"}, method: "nvml power", unknown: "cross"},
		"no counter on the card":    {scenario: all("nvmlDeviceGetTotalEnergyConsumption"), method: "nvml power", unknown: "cross"},
		"power N/A":                 {scenario: all(power + " " + fields), method: "nvml", unknown: "power instant cross"},
		"power from a field":        {scenario: all(power), method: "nvml"},
		"instant power alone":       {scenario: all(power + " power_average"), method: "nvml", unknown: "power"},
		"neither energy nor power":  {scenario: all("nvmlDeviceGetTotalEnergyConsumption " + power + " " + fields), unknown: "power instant cross"},
		"temperature N/A":           {scenario: all("nvmlDeviceGetTemperature"), method: "nvml", unknown: "temperature"},
		"clocks N/A":                {scenario: all("nvmlDeviceGetClockInfo"), method: "nvml", unknown: "clock"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNVML(t, test.scenario, test.without...)
			n := openNVML(t, fake)
			readings := must(t, n)
			if test.method == "" {
				if len(readings) != 0 || len(n.Zones()) != 0 {
					t.Errorf("readings %+v of zones %+v, want none", readings, n.Zones())
				}
			} else if len(readings) != 1 || readings[0].Zone.Method != test.method {
				t.Fatalf("readings %+v, want one by %s", readings, test.method)
			}
			card := n.Cards()[0]
			for figure, told := range map[string]bool{
				"power": card.Power != nil, "instant": card.PowerInstant != nil, "limit": card.PowerLimit != nil,
				"cross":       len(readings) > 0 && readings[0].CrossCheck != nil,
				"temperature": card.TemperatureCelsius != nil, "use": card.UtilizationPercent != nil, "encoder": card.EncoderUtilizationPercent != nil,
				"decoder": card.DecoderUtilizationPercent != nil, "memory": card.MemoryTotal != nil, "clock": card.ClockSMMHz != nil,
				"throttles": card.ThrottleReasons != nil, "name": card.Name != "", "driver": card.Driver != "",
			} {
				if unknown := slices.Contains(strings.Fields(test.unknown), figure); told == unknown {
					t.Errorf("%s is told: %v", figure, told)
				}
			}
		})
	}
}

func TestNVMLPowerIsIntegratedWithoutACounter(t *testing.T) {
	scenario := twoCards()
	for i := range scenario.Cards {
		scenario.Cards[i].Fail = map[string]int{"nvmlDeviceGetTotalEnergyConsumption": fakehw.NVMLNotSupported}
	}
	fake := newFakeNVML(t, scenario)
	n := openNVML(t, fake)
	m := tally{}
	m.sample(t, n, 50*time.Millisecond, 1700*time.Millisecond)
	steady := m[scenario.Cards[0].UUID]
	near(t, "energy of steady power", float64(steady.Total().Joules()), truth(t, fake, scenario.Cards[0].UUID, steady.first.At, steady.last.At), 0.5)
	jumpy := m[scenario.Cards[1].UUID]
	// The mean of the past second tells of other times than the window.
	near(t, "energy of jumping power", float64(jumpy.Total().Joules()), truth(t, fake, scenario.Cards[1].UUID, jumpy.first.At, jumpy.last.At), 40)
	if jumpy.last.Zone.AveragedOver != time.Second {
		t.Errorf("power is said to be the mean of %v", jumpy.last.Zone.AveragedOver)
	}
	if steady.last.Zone.Method != "nvml power" || steady.last.CrossCheck != nil {
		t.Errorf("reading is %+v", steady.last)
	}
}

func TestNVMLCounterAndPowerApart(t *testing.T) {
	scenario := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(100)}
	scenario.Cards[0].Scale = 1.3
	n := openNVML(t, newFakeNVML(t, scenario))
	m := tally{}
	m.sample(t, n, 50*time.Millisecond, time.Second)
	z := m[scenario.Cards[0].UUID]
	near(t, "counter against power", float64(z.Total())/float64(z.cross), 1.3, 0.05)
}

// Power is the counter's second opinion and no more: without it the counter goes on.
func TestNVMLPowerThatFailsLeavesTheCounter(t *testing.T) {
	const power, instant, average = "nvmlDeviceGetPowerUsage", "power_instant", "power_average"
	lost := map[string]int{power: fakehw.NVMLUnknownError, instant: fakehw.NVMLUnknownError, average: fakehw.NVMLUnknownError}
	scenario := fakehw.NVMLScenario{Update: fakeUpdate, Cards: fakehw.NVMLCards(70)}
	fake := newFakeNVML(t, scenario)
	n := openNVML(t, fake)
	child := n.child.ID().PID
	m := tally{}
	look := func(crossed bool) {
		t.Helper()
		time.Sleep(2 * fakeUpdate)
		readings := must(t, n)
		m.add(readings)
		if r := readings[0]; (r.CrossCheck != nil) != crossed || r.Zone.Method != "nvml" {
			t.Errorf("reading is %+v, want a second opinion: %v", r, crossed)
		}
	}
	look(true)
	for range 3 {
		change(t, fake, func(s *fakehw.NVMLScenario) { s.Cards[0].Fail = lost })
		look(false)
		n.renewals.next = time.Now() // it is time for a new child, if one is needed
		look(false)
		change(t, fake, func(s *fakehw.NVMLScenario) { s.Cards[0].Fail = map[string]int{power: fakehw.NVMLUnknownError} })
		look(true) // by a field
		change(t, fake, func(s *fakehw.NVMLScenario) { s.Cards[0].Fail = nil })
		look(true)
	}
	if n.child.ID().PID != child {
		t.Error("there is a new child")
	}
	z := m[scenario.Cards[0].UUID]
	near(t, "energy", float64(z.Total().Joules()), truth(t, fake, scenario.Cards[0].UUID, z.first.At, z.last.At), 2*fakeUpdate.Seconds()*70)

	// Where power is all there is, its failure is the card's.
	change(t, fake, func(s *fakehw.NVMLScenario) {
		s.Cards[0].Fail = map[string]int{"nvmlDeviceGetTotalEnergyConsumption": fakehw.NVMLNotSupported}
	})
	other := openNVML(t, fake)
	if r := must(t, other); r[0].Zone.Method != "nvml power" {
		t.Errorf("reading is %+v", r[0])
	}
	change(t, fake, func(s *fakehw.NVMLScenario) {
		s.Cards[0].Fail = map[string]int{"nvmlDeviceGetTotalEnergyConsumption": fakehw.NVMLNotSupported}
		for call, code := range lost {
			s.Cards[0].Fail[call] = code
		}
	})
	if _, faults := other.Read(); len(faults) != 1 || !strings.Contains(faults[0].Err, power) {
		t.Errorf("faults are %+v", faults)
	}
}

func TestNVMLMIG(t *testing.T) {
	scenario := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(100)}
	scenario.Cards[0].MIG = true
	scenario.Cards[0].Processes = []fakehw.NVMLProcess{{PID: os.Getpid(), SM: 50}}
	n := openNVML(t, newFakeNVML(t, scenario))
	if readings := must(t, n); len(readings) != 1 {
		t.Errorf("%d readings, want one: power is the whole card's", len(readings))
	}
	if busy := must(t, n)[0].Utilization; busy != nil {
		t.Errorf("in use by %v, want not known", *busy)
	}
	card := n.Cards()[0]
	if !card.MIG || card.EncoderUtilizationPercent != nil || card.UtilizationPercent != nil || card.Processes != nil || card.Power == nil {
		t.Errorf("card is %+v", card)
	}
}

// The library's faults, and what becomes of them.
func TestNVMLFaultsOfTheLibrary(t *testing.T) {
	for name, test := range map[string]struct {
		breakIt func(*fakehw.NVMLScenario)
		says    string
	}{
		"segmentation fault": {func(s *fakehw.NVMLScenario) { s.Crash = "nvmlDeviceGetTotalEnergyConsumption" }, "SIGSEGV"},
		"hanging call":       {func(s *fakehw.NVMLScenario) { s.Hang = "nvmlDeviceGetPowerUsage" }, "did not answer within 500ms"},
		"driver gone": {func(s *fakehw.NVMLScenario) {
			s.Fail = map[string]int{"nvmlInit_v2": fakehw.NVMLDriverNotLoaded, "nvmlDeviceGetTotalEnergyConsumption": fakehw.NVMLDriverNotLoaded}
		}, "Driver Not Loaded"},
		"no cards left": {func(s *fakehw.NVMLScenario) { s.Cards = nil }, "GPU is lost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNVML(t, twoCards())
			n := openNVML(t, fake, func(c *NVMLConfig) { c.Timeout = 500 * time.Millisecond })
			n.config.StartTimeout = 2 * time.Second // of those that come after the first
			m := tally{}
			first, _ := until(t, n, "reading", allWell)
			m.add(first)
			zones := n.Zones()

			change(t, fake, test.breakIt)
			_, faults := until(t, n, "fault", someFault)
			if len(faults) != 2 || faults[0].Zone != zones[0] || !strings.Contains(faults[0].Err, test.says) {
				t.Fatalf("faults are %+v, want one of each zone with %q", faults, test.says)
			}
			if card := n.Cards()[0]; !strings.Contains(card.Fault, test.says) || card.Power != nil || card.UUID != zones[0].ID || card.TemperatureCelsius != nil {
				t.Errorf("card is %+v", card)
			}
			until(t, n, "fault of a new child", someFault)

			whole := twoCards()
			change(t, fake, func(s *fakehw.NVMLScenario) { *s = whole })
			readings, _ := until(t, n, "recovery", allWell)
			m.add(readings)
			if !slices.Equal(n.Zones(), zones) {
				t.Errorf("zones are %v, want the same as before", n.Zones())
			}
			for uuid, z := range m { // the counter went on
				want := truth(t, fake, uuid, z.first.At, z.last.At)
				near(t, "energy across the fault", float64(z.Total().Joules()), want, 2*fakeUpdate.Seconds()*200)
			}
		})
	}
}

func TestNVMLOneCardIsLost(t *testing.T) {
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake)
	m := tally{}
	m.add(must(t, n))
	zones := n.Zones()
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Cards[1].Fail = map[string]int{"*": fakehw.NVMLGPUIsLost} })
	for range 20 { // across new children, which find one card only
		until(t, n, "reading beside a fault", func(readings []energy.Reading, faults []energy.Fault) bool {
			m.add(readings)
			return len(readings) == 1 && readings[0].Zone == zones[0] && len(faults) == 1 && faults[0].Zone == zones[1]
		})
	}
	first := n.child.ID().PID
	until(t, n, "new child", func(readings []energy.Reading, _ []energy.Fault) bool {
		m.add(readings)
		return n.child.ID().PID != first && len(readings) == 1
	})
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Cards[1].Fail = nil })
	readings, _ := until(t, n, "recovery", func(readings []energy.Reading, faults []energy.Fault) bool {
		m.add(readings)
		return allWell(readings, faults)
	})
	if len(readings) != 2 || !slices.Equal(n.Zones(), zones) {
		t.Errorf("readings %+v of zones %v", readings, n.Zones())
	}
	for uuid, z := range m {
		near(t, "energy across the loss", float64(z.Total().Joules()), truth(t, fake, uuid, z.first.At, z.last.At), 2*fakeUpdate.Seconds()*200)
	}
}

// After a reload the cards come in another order, with one more, and count from 0.
func TestNVMLDriverIsLoadedAgain(t *testing.T) {
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake)
	m := tally{}
	m.add(must(t, n))
	zones := n.Zones()
	change(t, fake, func(s *fakehw.NVMLScenario) {
		third := fakehw.NVMLCards(0, 0, 30)[2]
		s.Cards = []fakehw.NVMLCard{third, s.Cards[1], s.Cards[0]}
	})
	if err := fake.Reload(); err != nil {
		t.Fatal(err)
	}
	until(t, n, "fault", someFault)
	until(t, n, "recovery", func(readings []energy.Reading, faults []energy.Fault) bool {
		m.add(readings)
		return len(readings) == 3 && len(faults) == 0
	})
	m.add(must(t, n))
	after := n.Zones()
	if len(after) != 3 || !slices.Equal(after[:2], zones) {
		t.Fatalf("zones are %v, want those from before and one more", after)
	}
	if after[0].Name != "gpu0" || after[1].Name != "gpu1" || after[2].Name != "gpu2" {
		t.Errorf("names are %s, %s, %s", after[0].Name, after[1].Name, after[2].Name)
	}
	if cards := n.Cards(); cards[0].UUID != after[2].ID || cards[2].UUID != after[0].ID {
		t.Errorf("cards are in the order of %+v", cards)
	}
	begin := map[string]energy.Reading{}
	for uuid, z := range m {
		begin[uuid] = z.last
		if want := map[bool]int{true: 0, false: 1}[uuid == after[2].ID]; z.Gaps() != want {
			t.Errorf("%s has %d gaps, want %d", z.last.Zone.Name, z.Gaps(), want)
		}
	}
	m.sample(t, n, 50*time.Millisecond, 500*time.Millisecond)
	for uuid, z := range m {
		got := (z.last.Counter - begin[uuid].Counter).Joules()
		near(t, "energy since", float64(got), truth(t, fake, uuid, begin[uuid].At, z.last.At), 2*fakeUpdate.Seconds()*200)
	}
}

// A child that is to make room for a new one, and cannot, is killed.
func TestNVMLChildCannotLeave(t *testing.T) {
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake)
	must(t, n)
	sendSignal(t, n, syscall.SIGSTOP)
	n.renewals.next = time.Now() // it is time
	n.renewIfStale(true)
	if _, faults := n.Read(); len(faults) != 2 || !strings.Contains(faults[0].Err, "does not end") {
		t.Errorf("faults are %+v", faults)
	}
	until(t, n, "recovery", allWell)
}

func TestNVMLCounterIsReset(t *testing.T) {
	scenario := twoCards()
	fake := newFakeNVML(t, scenario)
	n := openNVML(t, fake)
	m := tally{}
	m.sample(t, n, 50*time.Millisecond, 300*time.Millisecond)
	if err := fake.ResetCounters(); err != nil {
		t.Fatal(err)
	}
	m.add(must(t, n))
	for _, z := range m {
		if z.Gaps() != 1 {
			t.Errorf("%s has %d gaps, want 1", z.last.Zone.Name, z.Gaps())
		}
	}
}

func TestOpenNVMLSaysWhatIsMissing(t *testing.T) {
	t.Cleanup(func() { noChildren(t) })
	failing := func(call string, code int) fakehw.NVMLScenario {
		return fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70), Fail: map[string]int{call: code}}
	}
	fakeOf := func(s fakehw.NVMLScenario, without ...string) func(*testing.T) string {
		return func(t *testing.T) string { return newFakeNVML(t, s, without...).Library }
	}
	for name, test := range map[string]struct {
		library func(*testing.T) string
		none    bool
		says    string
	}{
		"no library":        {func(t *testing.T) string { return filepath.Join(t.TempDir(), "libnvidia-ml.so") }, true, "No such file"},
		"driver not loaded": {fakeOf(failing("nvmlInit_v2", fakehw.NVMLDriverNotLoaded)), true, "Driver Not Loaded"},
		"no card":           {fakeOf(fakehw.NVMLScenario{}), true, "the NVIDIA driver has no card"},
		"no library at all": {func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "libnvidia-ml.so")
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			return path
		}, false, "file too short"},
		"no permission":        {fakeOf(failing("nvmlInit_v2", fakehw.NVMLNoPermission)), false, "NVML error 4"},
		"cannot count":         {fakeOf(failing("nvmlDeviceGetCount_v2", fakehw.NVMLUnknownError)), false, "counting cards"},
		"only card lost":       {fakeOf(failing("nvmlDeviceGetHandleByIndex_v2", fakehw.NVMLGPUIsLost)), false, "opening card 0: GPU is lost"},
		"crash at the start":   {fakeOf(fakehw.NVMLScenario{Crash: "nvmlInit_v2"}), false, "SIGSEGV"},
		"crash at first look":  {fakeOf(fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70), Crash: "nvmlDeviceGetMemoryInfo"}), false, "SIGSEGV"},
		"an ancient library":   {fakeOf(fakehw.NVMLScenario{}, "nvmlInit_v2"), false, "lacks nvmlInit_v2"},
		"hanging at the start": {fakeOf(fakehw.NVMLScenario{Hang: "nvmlInit_v2"}), false, "NVML did not start within 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := nvmlConfig(test.library(t))
			if strings.HasPrefix(name, "hanging") {
				config.StartTimeout = time.Second
			}
			n, err := OpenNVML(config)
			if err == nil {
				n.Close()
				t.Fatal("opened")
			}
			if errors.Is(err, ErrNoNVML) != test.none || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error is %q (nothing there: %v), want %q (%v)", err, errors.Is(err, ErrNoNVML), test.says, test.none)
			}
		})
	}
	if _, err := OpenNVML(NVMLConfig{Command: []string{filepath.Join(t.TempDir(), "agent")}}); err == nil || errors.Is(err, ErrNoNVML) {
		t.Errorf("error of a missing program is %v", err)
	}
}

// While NVML takes its time to start, nobody waits for it.
func TestNVMLStartsSlowly(t *testing.T) {
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake, func(c *NVMLConfig) { c.Timeout = 200 * time.Millisecond })
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Hang = "nvmlInit_v2" })
	first := n.child.ID().PID
	sendSignal(t, n, syscall.SIGKILL)
	until(t, n, "fault of starting", func(_ []energy.Reading, faults []energy.Fault) bool {
		return len(faults) == 2 && strings.Contains(faults[0].Err, "NVML has been starting for")
	})
	second := n.child.ID().PID
	_, faults := n.Read()
	if second == first || n.child.ID().PID != second || len(faults) != 2 {
		t.Errorf("children %d, %d, %d and faults %+v: want the second one to be waited for", first, second, n.child.ID().PID, faults)
	}
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Hang = "" })
	sendSignal(t, n, syscall.SIGKILL) // the fake one hangs for good
	until(t, n, "recovery", allWell)
}

func sendSignal(t *testing.T, n *NVML, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(n.child.ID().PID, s); err != nil {
		t.Fatal(err)
	}
}

// What may happen to the child, again and again.
func TestNVMLChildIsBroken(t *testing.T) {
	say := func(text string) func(*testing.T, *NVML) {
		return func(t *testing.T, n *NVML) {
			out, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", n.child.ID().PID), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			_ = out.SetWriteDeadline(time.Now().Add(hangs))
			if _, err := out.WriteString(text); err != nil && !errors.Is(err, syscall.EPIPE) {
				t.Fatal(err)
			}
		}
	}
	for name, breakIt := range map[string]func(*testing.T, *NVML){
		"killed":              func(t *testing.T, n *NVML) { sendSignal(t, n, syscall.SIGKILL) },
		"stopped":             func(t *testing.T, n *NVML) { sendSignal(t, n, syscall.SIGSTOP) },
		"garbage":             say("\x00\xff nvidia\n"),
		"half a line":         say(`{"id":`),
		"another's answer":    say(`{"id":1,"cards":[]}` + "\n"),
		"a line without end":  say(strings.Repeat("x", 2*maxAnswer)),
		"more than we read":   say(strings.Repeat("x\n", 1000)),
		"nothing but answers": say(strings.Repeat(`{"id":7}`+"\n", 1000)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNVML(t, twoCards())
			n := openNVML(t, fake, func(c *NVMLConfig) { c.Timeout = 300 * time.Millisecond })
			m := tally{}
			first, _ := until(t, n, "reading", allWell)
			m.add(first)
			for range 3 {
				breakIt(t, n)
				until(t, n, "fault", someFault)
				readings, _ := until(t, n, "recovery", allWell)
				m.add(readings)
			}
			for uuid, z := range m {
				near(t, "energy across it all", float64(z.Total().Joules()), truth(t, fake, uuid, z.first.At, z.last.At), 2*fakeUpdate.Seconds()*200)
			}
		})
	}
}

// A child that keeps failing is left alone for longer and longer, and nobody waits for it.
func TestNVMLBacksOff(t *testing.T) {
	fake := newFakeNVML(t, twoCards())
	n := openNVML(t, fake)
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Crash = "nvmlInit_v2" })
	sendSignal(t, n, syscall.SIGKILL)
	until(t, n, "backoff", func(_ []energy.Reading, faults []energy.Fault) bool {
		return n.failures.count >= 4 && len(faults) == 2 && strings.Contains(faults[0].Err, "SIGSEGV") && strings.Contains(faults[0].Err, "next attempt in")
	})
	pid := n.child.ID().PID
	for range 5 {
		if _, faults := n.Read(); len(faults) != 2 || n.child.ID().PID != pid {
			t.Errorf("faults %+v of child %d, want no new one", faults, n.child.ID().PID)
		}
	}
	change(t, fake, func(s *fakehw.NVMLScenario) { s.Crash = "" })
	until(t, n, "recovery", allWell)
}

func TestPace(t *testing.T) {
	p := pace{least: 100 * time.Millisecond, most: 30 * time.Second, firstAtOnce: true}
	now := time.Now()
	var waits []time.Duration
	for range 12 {
		p.failed(now)
		waits = append(waits, p.wait(now))
	}
	ms := time.Millisecond
	want := []time.Duration{0, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 25600 * ms, 30000 * ms, 30000 * ms}
	if !slices.Equal(waits, want) {
		t.Errorf("waits are %v, want %v", waits, want)
	}
	if p.well(); p.wait(now) > 0 {
		t.Errorf("when all is well it waits for %v", p.wait(now))
	}
}

// The child gets neither our secrets nor our group's signals.
func TestNVMLChildIsApart(t *testing.T) {
	t.Setenv("MASTER_API_KEY", "a-secret")
	t.Setenv("LD_LIBRARY_PATH", "/nowhere")
	n := openNVML(t, newFakeNVML(t, twoCards()))
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", n.child.ID().PID))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(environ); strings.Contains(text, "a-secret") || !strings.Contains(text, "LD_LIBRARY_PATH=/nowhere") {
		t.Errorf("the child's environment is %q", text)
	}
	if group, err := syscall.Getpgid(n.child.ID().PID); err != nil || group != n.child.ID().PID {
		t.Errorf("the child's group is %d, %v", group, err)
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		sendSignal(t, n, s)
	}
	must(t, n) // it is for its parent to end it
}

func TestNVMLLeavesNothingBehind(t *testing.T) {
	fake := newFakeNVML(t, twoCards())
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := 0
	for round := range 4 {
		n, err := OpenNVML(nvmlConfig(fake.Library))
		if err != nil {
			t.Fatal(err)
		}
		must(t, n)
		sendSignal(t, n, syscall.SIGKILL)
		until(t, n, "recovery", allWell)
		if round == 2 {
			sendSignal(t, n, syscall.SIGSTOP)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if _, faults := n.Read(); len(faults) != 2 || faults[0].Err != "closed" {
			t.Errorf("faults after the end are %+v", faults)
		}
		if err := n.Close(); err != nil {
			t.Errorf("closing again: %v", err)
		}
		noChildren(t)
		if round == 0 {
			before = files() // what the runtime keeps open is open now
		}
	}
	if after := files(); after > before {
		t.Errorf("%d files are open, %d were", after, before)
	}
}

// noChildren fails when this process has a child, living or not waited for.
func noChildren(t *testing.T) {
	t.Helper()
	for _, pid := range childrenOf(t, os.Getpid()) {
		t.Errorf("process %d was left behind", pid)
	}
}

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(lists) == 0 {
		t.Fatalf("listing children: %v", err)
	}
	var pids []int
	for _, list := range lists {
		text, _ := os.ReadFile(list) // of a thread that may have ended
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}

// parentThatIsKilled says who its child is and reads for ever.
func parentThatIsKilled(library string) {
	n, err := OpenNVML(nvmlConfig(library))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(n.child.ID().PID)
	for {
		n.Read()
		time.Sleep(10 * time.Millisecond)
	}
}

// The child of a parent that is killed ends as well, whatever it does at the time.
func TestNVMLChildEndsWithItsParent(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
	for name, before := range map[string]func(*testing.T, *fakehw.NVML, int){
		"answering": func(*testing.T, *fakehw.NVML, int) {},
		"hanging":   func(t *testing.T, f *fakehw.NVML, _ int) { change(t, f, hang) },
		"stopped":   func(_ *testing.T, _ *fakehw.NVML, pid int) { _ = syscall.Kill(pid, syscall.SIGSTOP) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNVML(t, twoCards())
			parent := exec.Command("/proc/self/exe", asNVMLParent, fake.Library)
			out, err := parent.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := parent.Start(); err != nil {
				t.Fatal(err)
			}
			line, _ := bufio.NewReader(out).ReadString('\n')
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatalf("the parent says %q", line)
			}
			before(t, fake, pid)
			if err := parent.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = parent.Wait()
			ended(t, pid)
		})
	}
}

func hang(s *fakehw.NVMLScenario) { s.Hang = "nvmlDeviceGetTotalEnergyConsumption" }

// ended waits for the end of an orphan that came to us.
func ended(t *testing.T, pid int) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := syscall.Wait4(pid, nil, 0, nil)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("waiting for the orphan: %v", err)
		}
	case <-time.After(hangs):
		t.Errorf("process %d still runs", pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
		<-done
	}
}

// Where the kernel does not tell of a parent's death, the end of the input does, also
// while a call hangs.
func TestNVMLChildEndsWithItsInput(t *testing.T) {
	for name, scenario := range map[string]fakehw.NVMLScenario{
		"answering":          twoCards(),
		"hanging":            {Cards: fakehw.NVMLCards(70), Hang: "nvmlDeviceGetTotalEnergyConsumption"},
		"hanging at start":   {Hang: "nvmlInit_v2"},
		"hanging at its end": {Cards: fakehw.NVMLCards(70), Hang: "nvmlShutdown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNVML(t, scenario)
			child := exec.Command("/proc/self/exe", asNVMLChild)
			in, err := child.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(hangs, func() {
				t.Error("the child outlives its input")
				_ = child.Process.Kill()
			})
			defer timer.Stop()
			fmt.Fprintf(in, `{"library":%q,"procfs_path":"/proc"}`+"\n"+`{"id":1,"full":true}`+"\n", fake.Library)
			in.Close()
			_ = child.Wait()
		})
	}
}

func TestNVMLProcessUse(t *testing.T) {
	procfs := t.TempDir()
	for _, pid := range []string{"100", "200"} {
		if err := os.Mkdir(filepath.Join(procfs, pid), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	scenario := fakehw.NVMLScenario{Cards: fakehw.NVMLCards(70, 70)}
	scenario.Cards[0].Processes = []fakehw.NVMLProcess{{PID: 100, SM: 10, Encoder: 50, Decoder: 30}, {PID: 200, SM: 20}}
	fake := newFakeNVML(t, scenario)
	n := openNVML(t, fake, func(c *NVMLConfig) { c.ProcfsPath = procfs })
	fully := func() []energy.GPU {
		n.fullAt = time.Time{}
		must(t, n)
		return n.Cards()
	}
	begin := fully()
	began := time.Now()
	var cards []energy.GPU
	until(t, n, "use", func([]energy.Reading, []energy.Fault) bool {
		cards = fully()
		return cards[0].Processes[100].Encoder-begin[0].Processes[100].Encoder > 100*time.Millisecond
	})
	took := time.Since(began).Seconds()
	a, b := cards[0].Processes[100], cards[0].Processes[200]
	used := (a.Encoder - begin[0].Processes[100].Encoder).Seconds()
	if used > 0.5*(took+0.5) {
		t.Errorf("encoder used for %.3f s in %.3f s at 50 %%", used, took)
	}
	near(t, "SM against encoder", a.SM.Seconds(), a.Encoder.Seconds()/5, 1e-3)
	near(t, "decoder against encoder", a.Decoder.Seconds(), a.Encoder.Seconds()*3/5, 1e-3)
	near(t, "the other's SM", b.SM.Seconds(), 2*a.SM.Seconds(), 1e-3)
	if cards[1].Processes == nil || len(cards[1].Processes) != 0 {
		t.Errorf("processes of an idle card are %#v, want none", cards[1].Processes)
	}
	// A new child begins at 0, and the sums go on.
	before := cards[0].Processes[100]
	sendSignal(t, n, syscall.SIGKILL)
	until(t, n, "recovery", allWell)
	if after := fully()[0]; after.Processes[100].SM < before.SM || after.Processes[200].SM < 2*before.SM || time.Since(after.ProcessesAt) > hangs {
		t.Errorf("after a new child processes are %v of %v, before %v", after.Processes, after.ProcessesAt, before)
	}
	// A process that is not ours to see: the numbers are of another namespace.
	change(t, fake, func(s *fakehw.NVMLScenario) {
		s.Cards[0].Processes = append(s.Cards[0].Processes, fakehw.NVMLProcess{PID: 300, SM: 1})
	})
	if cards := fully(); cards[0].Processes != nil {
		t.Errorf("processes are %v, want not known", cards[0].Processes)
	}
}

// BenchmarkNVMLAtTenHertz tells what parent and child cost while a job runs, with two
// cards: -benchtime 100x takes 10 s.
func BenchmarkNVMLAtTenHertz(b *testing.B) {
	n := openNVML(b, newFakeNVML(b, twoCards()))
	must(b, n)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	begin, parent, child := time.Now(), ownCPU(b), taskCPU(b, n.child.ID().PID)
	for b.Loop() {
		<-ticker.C
		must(b, n)
	}
	took := time.Since(begin)
	b.ReportMetric(100*float64(ownCPU(b)-parent)/float64(took), "parent-%core")
	b.ReportMetric(100*float64(taskCPU(b, n.child.ID().PID)-child)/float64(took), "child-%core")
}

func ownCPU(tb testing.TB) time.Duration {
	tb.Helper()
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// taskCPU adds up what each thread of a process ran, in ns (/proc/PID/task/TID/schedstat).
func taskCPU(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(stats) == 0 {
		tb.Fatalf("no schedstat: %v", err)
	}
	var sum time.Duration
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			tb.Fatal(err)
		}
		ran, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}
