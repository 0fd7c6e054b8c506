package hardware

import (
	"math"
	"time"

	"ffmpeg-agent/hardware/energy"
)

const (
	// maxIntegrationGap is the longest time between two power readings across which power is
	// integrated. It exceeds the longest sampling interval.
	maxIntegrationGap = 90 * time.Second
	// integralStart in µJ leaves room for the step back at each gap.
	integralStart = 1 << 40
)

// powerIntegral computes energy from readings of power by the trapezoidal rule.
type powerIntegral struct {
	updateInterval time.Duration // of the sensor
	held           bool          // a reading is the power at the sensor's last update, not an average

	at     time.Time // of the last reading; zero before the first
	power  float64   // W, at the last reading
	gap    bool      // a reading has failed since
	energy float64   // µJ
	// uncertainty is the error bound in µJ: half the change in power times the time between
	// readings, which bounds the rule's error for monotonic power; or, if the sensor holds its
	// value, the whole change times one update interval.
	uncertainty float64
}

// markGap makes the energy up to the next reading unknown.
func (i *powerIntegral) markGap() { i.gap = true }

// add adds a reading. After a gap the counter steps back, which the ledger treats as unknown
// energy.
func (i *powerIntegral) add(power float64, at time.Time) {
	elapsed := at.Sub(i.at)
	switch {
	case i.at.IsZero():
	case elapsed <= 0:
		return
	case i.gap || elapsed > maxIntegrationGap:
		i.energy = math.Floor(i.energy) - 1
	default:
		i.energy += (i.power + power) / 2 * elapsed.Seconds() * 1e6
		open := elapsed.Seconds() / 2
		if i.held && elapsed < 2*i.updateInterval {
			open = i.updateInterval.Seconds()
		}
		i.uncertainty += math.Abs(power-i.power) * open * 1e6
	}
	i.at, i.power, i.gap = at, power, false
}

func (i *powerIntegral) counter() energy.Microjoules { return energy.Microjoules(i.energy) }
