package fakehw

import (
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The fake's declarations are NVIDIA's: a difference does not compile.
func TestFakeNVMLHasTheRealInterface(t *testing.T) {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").Output()
	if err != nil {
		t.Fatal(err)
	}
	header := filepath.Join(strings.TrimSpace(string(module)), "pkg", "nvml")
	out, err := exec.Command("gcc", "-fsyntax-only", "-Wall", "-Werror", "-I", header, filepath.Join("nvml", "nvml.c")).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFakeNVMLKnowsWhatItsCardsUsed(t *testing.T) {
	cards := NVMLCards(70, 0)
	cards[1].Power = NVMLPower{Low: 40, High: 200, Length: 100 * time.Millisecond, Period: 400 * time.Millisecond}
	fake, err := NewNVML(t.TempDir(), NVMLScenario{Cards: cards})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	used := func(uuid string, from, to time.Duration) float64 {
		t.Helper()
		joules, err := fake.Joules(uuid, begin.Add(from), begin.Add(to))
		if err != nil {
			t.Fatal(err)
		}
		return joules
	}
	if got := used(cards[0].UUID, 0, 10*time.Second); math.Abs(got-700) > 1e-6 {
		t.Errorf("constant card used %v J, want 700", got)
	}
	if got := used(cards[1].UUID, 0, 4*time.Second); math.Abs(got-320) > 0.02 {
		t.Errorf("jumping card used %v J, want 320", got)
	}
	if err := fake.Change(func(s *NVMLScenario) { s.Cards[0].Power.High = 100 }); err != nil {
		t.Fatal(err)
	}
	changed := time.Since(begin).Seconds()
	if got, want := used(cards[0].UUID, 0, 10*time.Second), 700+30*(10-changed); got < want || got > want+30*changed {
		t.Errorf("after a change the card uses %v J, want about %v", got, want)
	}
	if _, err := fake.Joules("GPU-of-nobody", begin, begin); err == nil {
		t.Error("a card that is not there has used something")
	}
}

func TestBuildNVMLFails(t *testing.T) {
	if _, err := BuildNVML(filepath.Join(t.TempDir(), "nowhere")); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("error is %v, want one that names the folder", err)
	}
}
