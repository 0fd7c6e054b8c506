package energy

// Microjoules is energy in µJ, the unit of all accounting: integers, so that
// what is split adds up again. An int64 holds 9.2 TJ, 290 years at 1 kW.
type Microjoules int64

// Joules converts to J, for people and for the wire.
func (e Microjoules) Joules() Joules { return Joules(float64(e) / 1e6) }

// Joules is energy in J.
type Joules float64

// Microjoules converts to µJ, rounded to the nearest.
func (e Joules) Microjoules() Microjoules {
	if e < 0 {
		return Microjoules(e*1e6 - 0.5)
	}
	return Microjoules(e*1e6 + 0.5)
}

// Watts is power in W, that is J/s.
type Watts float64
