package fakehw

import (
	"math"
	"time"
)

// Curve is power in W, 0 or more, as a function of the time since the tree
// began.
type Curve func(t time.Duration) float64

// Constant power.
func Constant(watts float64) Curve { return func(time.Duration) float64 { return watts } }

// Ramp goes from one power to another over a length of time and stays there.
func Ramp(from, to float64, over time.Duration) Curve {
	return func(t time.Duration) float64 {
		return from + (to-from)*min(1, max(0, t.Seconds()/over.Seconds()))
	}
}

// Sine swings around a mean, once a period.
func Sine(mean, swing float64, period time.Duration) Curve {
	return func(t time.Duration) float64 {
		return mean + swing*math.Sin(2*math.Pi*t.Seconds()/period.Seconds())
	}
}

// Bursts are at high power for the first part of each period and at low power
// for the rest of it.
func Bursts(low, high float64, length, period time.Duration) Curve {
	return func(t time.Duration) float64 {
		if t%period < length {
			return high
		}
		return low
	}
}

// grid is the step of the integral. Curves that jump on multiples of it are
// integrated exactly, smooth ones to within a billionth.
const grid = 100 * time.Microsecond

// Joules is the curve's integral between two moments, by the midpoint rule on a
// fixed grid, so that neighbouring integrals add up.
func (c Curve) Joules(from, to time.Duration) float64 {
	sum := 0.0
	for start := from; start < to; {
		end := min(to, start.Truncate(grid)+grid)
		sum += c(start+(end-start)/2) * (end - start).Seconds()
		start = end
	}
	return sum
}
