package fakehw

import (
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFakeNVMLCompilesWithNVIDIAsHeader(t *testing.T) {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").Output()
	must(t, err)
	header := filepath.Join(strings.TrimSpace(string(module)), "pkg", "nvml")
	out, err := exec.Command("gcc", "-fsyntax-only", "-Wall", "-Werror", "-I", header, filepath.Join("nvml", "nvml.c")).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFakeNVMLEnergy(t *testing.T) {
	cards := NVMLCards(70, 0)
	cards[1].Power = NVMLPower{Low: 40, High: 200, Length: 100 * time.Millisecond, Period: 400 * time.Millisecond}
	fake, err := NewNVML(t.TempDir(), NVMLScenario{Cards: cards})
	must(t, err)
	begin := time.Now()
	energy := func(uuid string, from, to time.Duration) float64 {
		t.Helper()
		joules, err := fake.Joules(uuid, begin.Add(from), begin.Add(to))
		must(t, err)
		return joules
	}
	if got := energy(cards[0].UUID, 0, 10*time.Second); math.Abs(got-700) > 1e-6 {
		t.Errorf("constant power: got %v J, want 700 J", got)
	}
	if got := energy(cards[1].UUID, 0, 4*time.Second); math.Abs(got-320) > 0.02 {
		t.Errorf("square-wave power: got %v J, want 320 J", got)
	}
	must(t, fake.Change(func(s *NVMLScenario) { s.Cards[0].Power.High = 100 }))
	changed := time.Since(begin).Seconds()
	if got, want := energy(cards[0].UUID, 0, 10*time.Second), 700+30*(10-changed); got < want || got > want+30*changed {
		t.Errorf("after a change: got %v J, want about %v J", got, want)
	}
	if _, err := fake.Joules("GPU-unknown", begin, begin); err == nil {
		t.Error("unknown card: got no error")
	}
}

func TestBuildNVMLFails(t *testing.T) {
	if _, err := BuildNVML(filepath.Join(t.TempDir(), "nowhere")); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("got error %v, want one with the directory", err)
	}
}
