//go:build linux && cgo

package hardware

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// Roles of this program, by its first argument.
const (
	roleNVMLChild  = "nvml-child"
	roleNVMLParent = "nvml-parent" // for TestNVMLChildEndsWithItsParent
)

// deadline is for waits that end sooner unless something hangs.
const deadline = 30 * time.Second

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == roleNVMLChild:
		if err := ServeNVML(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		syscall.Exit(0) // os.Exit(0) sleeps for 1 s with the race detector
	case len(os.Args) > 2 && os.Args[1] == roleNVMLParent:
		runNVMLParent(os.Args[2])
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		os.RemoveAll(nvmlBuilds.dir)
		os.Exit(status)
	}))
}

// nvmlBuilds caches the fake libraries by the symbols they lack: gcc takes longer than most
// tests.
var nvmlBuilds struct {
	sync.Mutex
	dir string
	by  map[string]string
}

func buildNVML(t testing.TB, without ...string) string {
	t.Helper()
	b := &nvmlBuilds
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
		must(t, err)
	}
	return b.by[key]
}

func nvmlConfig(library string) NVMLConfig {
	return NVMLConfig{Command: []string{"/proc/self/exe", roleNVMLChild}, Library: library, StartTimeout: deadline}
}

func newFakeNVML(t testing.TB, scenario fakehw.NVMLScenario, without ...string) *fakehw.NVML {
	t.Helper()
	library := filepath.Join(t.TempDir(), "libnvidia-ml.so")
	content, err := os.ReadFile(buildNVML(t, without...))
	must(t, err)
	must(t, os.WriteFile(library, content, 0o755))
	fake, err := fakehw.UseNVML(library, scenario)
	must(t, err)
	return fake
}

func openNVML(t testing.TB, fake *fakehw.NVML, options ...func(*NVMLConfig)) *NVML {
	t.Helper()
	config := nvmlConfig(fake.Library)
	for _, option := range options {
		option(&config)
	}
	n, err := OpenNVML(config)
	must(t, err)
	// A lost card is looked for sooner than in production.
	n.reader.reinits = newRetryDelay(100*time.Millisecond, 200*time.Millisecond)
	t.Cleanup(func() {
		n.reader.config.Timeout = deadline // a killed child exits, however busy the machine
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func change(t *testing.T, fake *fakehw.NVML, f func(*fakehw.NVMLScenario)) {
	t.Helper()
	must(t, fake.Change(f))
}

func signalChild(t *testing.T, n *NVML, s syscall.Signal) {
	t.Helper()
	must(t, syscall.Kill(n.reader.child.ID().PID, s))
}

// readAll reads all zones, none of which may have a fault.
func readAll(t testing.TB, n *NVML) []energy.Reading {
	t.Helper()
	readings, faults := n.Read()
	if len(faults) > 0 {
		t.Fatalf("got faults %+v, want none", faults)
	}
	return readings
}

// readUntil reads until the result meets a condition.
func readUntil(t *testing.T, n *NVML, what string, condition func([]energy.Reading, []energy.Fault) bool) ([]energy.Reading, []energy.Fault) {
	t.Helper()
	var readings []energy.Reading
	var faults []energy.Fault
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if readings, faults = n.Read(); condition(readings, faults) {
			return readings, faults
		}
	}
	t.Fatalf("no %s within %v; last: %d readings, faults %+v", what, deadline, len(readings), faults)
	return nil, nil
}

func noFault(readings []energy.Reading, faults []energy.Fault) bool {
	return len(readings) > 0 && len(faults) == 0
}

func anyFault(_ []energy.Reading, faults []energy.Fault) bool { return len(faults) > 0 }

// totals adds up the readings of each zone, by ID, as the ledger does.
type totals map[string]*zoneTotal

type zoneTotal struct {
	energy.Accumulator
	first, last energy.Reading
	crossCheck  energy.Microjoules
}

func (m totals) add(readings []energy.Reading) {
	for _, r := range readings {
		z := m[r.Zone.ID]
		if z == nil {
			z = &zoneTotal{first: r, last: r}
			m[r.Zone.ID] = z
		}
		if delta := z.Add(r); delta.Known() && r.CrossCheck != nil && z.last.CrossCheck != nil {
			z.crossCheck += *r.CrossCheck - *z.last.CrossCheck
		}
		z.last = r
	}
}

// sample reads at an interval for some time.
func (m totals) sample(t *testing.T, n *NVML, interval, length time.Duration) {
	t.Helper()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); <-ticker.C {
		m.add(readAll(t, n))
	}
}

// expectEnergy compares each zone's total with the energy of its card. Each end may be one
// sensor update off.
func (m totals) expectEnergy(t *testing.T, fake *fakehw.NVML) {
	t.Helper()
	for uuid, z := range m {
		expectNear(t, "energy of "+z.first.Zone.Name, float64(z.Total().Joules()), trueEnergy(t, fake, uuid, z.first.At, z.last.At), 2*fakeUpdate.Seconds()*200)
	}
}

func trueEnergy(t *testing.T, fake *fakehw.NVML, uuid string, from, to time.Time) float64 {
	t.Helper()
	joules, err := fake.Joules(uuid, from, to)
	must(t, err)
	return joules
}

func expectNear(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: got %.4f, want %.4f ± %.4f", what, got, want, tolerance)
	}
}

const fakeUpdate = 20 * time.Millisecond

// twoCards returns a card with constant power and one with square-wave power.
func twoCards() fakehw.NVMLScenario {
	cards := fakehw.NVMLCards(70, 0)
	cards[1].Power = fakehw.NVMLPower{Low: 40, High: 200, Length: 100 * time.Millisecond, Period: 300 * time.Millisecond}
	return fakehw.NVMLScenario{Update: fakeUpdate, Average: time.Second, Cards: cards}
}

func hangOnRead(s *fakehw.NVMLScenario) { s.Hang = "nvmlDeviceGetTotalEnergyConsumption" }
