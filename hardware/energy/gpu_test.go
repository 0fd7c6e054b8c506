package energy

import "testing"

func TestGPUTime(t *testing.T) {
	a, b := GPUTime{SM: 10, Encoder: 200, Decoder: 3000}, GPUTime{SM: 4, Encoder: 50, Decoder: 600}
	if got, want := a.Add(b), (GPUTime{14, 250, 3600}); got != want {
		t.Errorf("sum: got %v, want %v", got, want)
	}
	if got, want := a.Sub(b), (GPUTime{6, 150, 2400}); got != want {
		t.Errorf("difference: got %v, want %v", got, want)
	}
	if a.Total() != 3210 {
		t.Errorf("total: got %d, want 3210", a.Total())
	}
}
