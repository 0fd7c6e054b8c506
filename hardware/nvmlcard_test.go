package hardware

import (
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
)

func TestCardPowerIntegration(t *testing.T) {
	at := time.Now()
	w := func(v float64) *energy.Watts { p := energy.Watts(v); return &p }
	c := newNVMLCard("")
	for i, step := range []struct {
		after time.Duration
		power *energy.Watts
		moved energy.Microjoules // below 0: a gap
		known bool
	}{
		{0, w(100), 0, true},
		{time.Second, w(200), 150e6, true},
		{time.Second, nil, 0, false},
		{time.Second, w(200), 400e6, true}, // across a missing value
		{time.Second, nil, 0, false},
		{2 * time.Second, w(200), -1, true}, // missing for too long
		{time.Second, nil, 0, false},
		{2 * time.Second, w(200), -1, true}, // again, without energy in between
		{30 * time.Second, w(0), 3000e6, true},
		{time.Second, w(0), 0, true}, // 0 W is a value
	} {
		at = at.Add(step.after)
		before := c.power.counter()
		counter := c.integrate(at, step.power)
		moved := c.power.counter() - before
		if moved != step.moved || (counter != nil) != step.known || counter != nil && *counter != before+moved {
			t.Errorf("step %d: got counter %v, moved by %d; want moved by %d, known: %v", i, counter, moved, step.moved, step.known)
		}
	}
}
