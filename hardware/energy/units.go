package energy

import (
	"math"
	"math/bits"
)

// Microjoules is energy in µJ, the unit of all accounting. It is an integer so that parts add up
// exactly; an int64 holds 9.2 TJ, 290 years at 1 kW.
type Microjoules int64

// Joules converts to J, for display and for JSON.
func (e Microjoules) Joules() Joules { return Joules(float64(e) / 1e6) }

// Joules is energy in J.
type Joules float64

// Microjoules converts to µJ, rounded to the nearest.
func (e Joules) Microjoules() Microjoules { return Microjoules(math.Round(float64(e) * 1e6)) }

// Watts is power in W.
type Watts float64

// portion is amount × part / whole, rounded down, without overflow between. The arguments must
// not be negative and the result must fit. With whole 0 it is the amount.
func portion[A, P ~int64](amount A, part, whole P) A {
	if whole <= 0 {
		return amount
	}
	high, low := bits.Mul64(uint64(amount), uint64(part))
	quotient, _ := bits.Div64(high, low, uint64(whole))
	return A(quotient)
}
