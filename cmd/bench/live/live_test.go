package live

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ffmpeg-agent/hardware/fakehw"
)

// A counter shows at most the energy used so far, and at least that before its lateness.
func TestCountersMatchTheirReportedLateness(t *testing.T) {
	dial := NewDial(100)
	m, err := New(t.TempDir(), fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: dial.Power})
	if err != nil {
		t.Fatal(err)
	}
	m.Run()
	m.Turn(dial, 300)
	type reading struct {
		before, after time.Duration
		joules        float64
	}
	var readings []reading
	file := filepath.Join(m.Tree.Sys("class", "powercap", "intel-rapl:0", "energy_uj"))
	for m.Now() < 100*time.Millisecond {
		before := m.Now()
		text, err := os.ReadFile(file)
		after := m.Now()
		value, parse := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil || parse != nil {
			t.Fatal(err, parse)
		}
		readings = append(readings, reading{before, after, float64(value) / 1e6})
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range readings {
		most := m.Joules(0, r.after, "intel-rapl:0")
		least := m.Joules(0, r.before-m.Late(r.before, r.after), "intel-rapl:0")
		if r.joules > most+1e-5 || r.joules < least-1e-5 {
			t.Fatalf("got %v J between %v and %v, want %v to %v J", r.joules, r.before, r.after, least, most)
		}
	}
	if got, want := m.Joules(0, 100*time.Millisecond, "intel-rapl:0"), 30.0; math.Abs(got-want) > 10 || got >= want {
		t.Errorf("got %v J after turning the dial, want a little less than %v J", got, want)
	}
}
