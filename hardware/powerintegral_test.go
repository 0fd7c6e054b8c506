package hardware

import (
	"math"
	"testing"
	"time"
)

// A held value was the power at one moment; an average covers all of the time.
func TestUncertaintyOfAChangeInPower(t *testing.T) {
	for _, test := range []struct {
		name    string
		held    bool
		elapsed time.Duration
		want    float64 // J
	}{
		{"held, read more often than updated", true, 100 * time.Millisecond, 50},
		{"held, read less often than updated", true, 4 * time.Second, 100},
		{"average", false, 100 * time.Millisecond, 2.5},
	} {
		i := powerIntegral{updateInterval: time.Second, held: test.held}
		begin := time.Now()
		i.add(100, begin)
		i.add(150, begin.Add(test.elapsed))
		if got := i.uncertainty / 1e6; math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%s: got ±%v J, want ±%v J", test.name, got, test.want)
		}
	}
}

func TestLongIntegrationGap(t *testing.T) {
	i := powerIntegral{updateInterval: time.Second, energy: integralStart}
	begin := time.Now()
	i.add(100, begin)
	i.add(100, begin.Add(maxIntegrationGap))
	if got, want := float64((i.counter() - integralStart).Joules()), 100*maxIntegrationGap.Seconds(); math.Abs(got-want) > 1e-3 {
		t.Errorf("got %v J, want %v J", got, want)
	}
	before := i.counter()
	i.add(100, begin.Add(2*maxIntegrationGap+1))
	if i.counter() >= before {
		t.Errorf("after a longer gap: got counter %d, want less than %d", i.counter(), before)
	}
	i.add(5000, begin)
	if i.power != 100 {
		t.Errorf("after a reading from the past: got power %v W, want 100 W", i.power)
	}
}
