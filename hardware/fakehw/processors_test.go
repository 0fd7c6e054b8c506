package fakehw

import "testing"

func TestProcessors(t *testing.T) {
	for _, p := range Processors() {
		last := p.Power(-1)
		if last != p.Idle() || p.Power(2) != p.Max() || p.Source == "" {
			t.Errorf("%s: got %v W idle and %v W maximum from source %q", p.Name, last, p.Power(2), p.Source)
		}
		for u := 0.0; u <= 1; u += 0.01 {
			if power := p.Power(u); power < last || power > p.Max() {
				t.Errorf("%s: got %v W at utilization %v, want %v to %v W", p.Name, power, u, last, p.Max())
			} else {
				last = power
			}
		}
	}
	if got := (Processor{Watts: []float64{10, 20, 40}}).Power(0.75); got != 30 {
		t.Errorf("got %v W, want 30 W", got)
	}
}
