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

// A counter never says more than was used, nor less than it is said to be late.
func TestCountersAreAsLateAsTheyAreSaidToBe(t *testing.T) {
	dial := NewDial(100)
	m, err := New(t.TempDir(), fakehw.ZoneConfig{ID: "intel-rapl:0", Name: "package-0", Power: dial.Power})
	if err != nil {
		t.Fatal(err)
	}
	m.Run()
	m.Turn(dial, 300)
	type look struct {
		before, after time.Duration
		joules        float64
	}
	var looks []look
	file := filepath.Join(m.Tree.Sys("class", "powercap", "intel-rapl:0", "energy_uj"))
	for m.Now() < 100*time.Millisecond {
		before := m.Now()
		text, err := os.ReadFile(file)
		after := m.Now()
		value, parse := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil || parse != nil {
			t.Fatal(err, parse)
		}
		looks = append(looks, look{before, after, float64(value) / 1e6})
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range looks {
		most := m.Joules(0, l.after, "intel-rapl:0")
		least := m.Joules(0, l.before-m.Late(l.before, l.after), "intel-rapl:0")
		if l.joules > most+1e-5 || l.joules < least-1e-5 {
			t.Fatalf("%v J between %v and %v, truly %v to %v J", l.joules, l.before, l.after, least, most)
		}
	}
	if got, want := m.Joules(0, 100*time.Millisecond, "intel-rapl:0"), 30.0; math.Abs(got-want) > 10 || got >= want {
		t.Errorf("the dial was turned, and %v J used", got)
	}
}
