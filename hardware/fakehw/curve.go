package fakehw

import (
	"math"
	"time"
)

// Curve is power in W, not negative, as a function of the tree's time.
type Curve func(t time.Duration) float64

// Constant returns constant power.
func Constant(watts float64) Curve { return func(time.Duration) float64 { return watts } }

// Ramp changes linearly from one power to another and stays there.
func Ramp(from, to float64, over time.Duration) Curve {
	return func(t time.Duration) float64 {
		return from + (to-from)*min(1, max(0, t.Seconds()/over.Seconds()))
	}
}

// Sine oscillates around a mean.
func Sine(mean, amplitude float64, period time.Duration) Curve {
	return func(t time.Duration) float64 {
		return mean + amplitude*math.Sin(2*math.Pi*t.Seconds()/period.Seconds())
	}
}

// Bursts is a square wave: high power for the first length of each period, then low power.
func Bursts(low, high float64, length, period time.Duration) Curve {
	return func(t time.Duration) float64 {
		if t%period < length {
			return high
		}
		return low
	}
}

// grid is the step of the integral, which is exact for curves that jump at its multiples and
// accurate to 1e-9 for smooth ones.
const grid = 100 * time.Microsecond

// Joules integrates the curve by the midpoint rule. The grid is fixed, so that adjacent integrals
// add up.
func (c Curve) Joules(from, to time.Duration) float64 {
	sum := 0.0
	for start := from; start < to; {
		end := min(to, start.Truncate(grid)+grid)
		sum += c(start+(end-start)/2) * (end - start).Seconds()
		start = end
	}
	return sum
}
