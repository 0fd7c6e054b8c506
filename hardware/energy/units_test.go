package energy

import (
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestJoulesRoundToTheNearestMicrojoule(t *testing.T) {
	for joules, want := range map[Joules]Microjoules{
		0: 0, 1: 1e6, 1.4e-6: 1, 1.5e-6: 2, -1.4e-6: -1, -1.6e-6: -2, 262144.123456: 262144123456,
	} {
		if got := joules.Microjoules(); got != want {
			t.Errorf("%v J: got %d µJ, want %d", joules, got, want)
		}
	}
	if got := Microjoules(2_500_000).Joules(); got != 2.5 {
		t.Errorf("got %v J, want 2.5", got)
	}
}

func TestPortion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.Int64Min(0).Draw(t, "amount")
		whole := rapid.Int64Min(1).Draw(t, "whole")
		part := rapid.Int64Range(0, whole).Draw(t, "part")
		want := new(big.Int).Mul(big.NewInt(amount), big.NewInt(part))
		want.Div(want, big.NewInt(whole))
		if got := portion(Microjoules(amount), part, whole); int64(got) != want.Int64() {
			t.Fatalf("%d × %d / %d: got %d, want %v", amount, part, whole, got, want)
		}
	})
	if got := portion(Microjoules(math.MaxInt64), time.Hour, 0); got != math.MaxInt64 {
		t.Errorf("of nothing: got %d, want all", got)
	}
}
