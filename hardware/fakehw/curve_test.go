package fakehw

import (
	"math"
	"testing"
	"time"
)

func TestCurveIntegrals(t *testing.T) {
	const second = time.Second
	tests := []struct {
		name     string
		curve    Curve
		from, to time.Duration
		want     float64
	}{
		{"constant", Constant(80), second, 3 * second, 160},
		{"ramp", Ramp(0, 100, 10*second), 0, 10 * second, 500},
		{"after the ramp", Ramp(0, 100, 10*second), 20 * second, 21 * second, 100},
		{"a whole sine", Sine(100, 50, 2*second), 0, 2 * second, 200},
		{"half a sine", Sine(100, 50, 2*second), 0, second, 100 + 100/math.Pi},
		{"bursts", Bursts(10, 110, 50*time.Millisecond, 200*time.Millisecond), 0, 2 * second, 20 + 50},
		{"part of a burst", Bursts(0, 100, 50*time.Millisecond, 200*time.Millisecond), 25050 * time.Microsecond, 40 * time.Millisecond, 1.495},
		{"no time", Constant(80), second, second, 0},
	}
	for _, test := range tests {
		if got := test.curve.Joules(test.from, test.to); math.Abs(got-test.want) > 1e-6 {
			t.Errorf("%s: got %v J, want %v J", test.name, got, test.want)
		}
	}
}

func TestAdjacentIntegralsAddUp(t *testing.T) {
	curve := Sine(100, 90, 777*time.Millisecond)
	whole, sum := curve.Joules(0, time.Second), 0.0
	for at := time.Duration(0); at < time.Second; at += 12345678 {
		sum += curve.Joules(at, min(time.Second, at+12345678))
	}
	if math.Abs(whole-sum) > 1e-6 {
		t.Errorf("got %v J in parts, want %v J", sum, whole)
	}
}
