package job

import "testing"

func TestLeastInodes(t *testing.T) {
	for total, want := range map[uint64]uint64{0: 0, 4: 0, 20_000: 200, 1_000_000: 10_000, 20_000_000: 10_000} {
		if got := LeastInodes(total); got != want {
			t.Errorf("of %d: got %d, want %d", total, got, want)
		}
	}
}
