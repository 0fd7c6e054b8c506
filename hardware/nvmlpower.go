package hardware

import (
	"time"

	"ffmpeg-agent/hardware/energy"
)

// bridged is the longest time across which a card's power is integrated though it
// could not be read meanwhile.
const bridged = 2 * time.Second

// cardPower adds up a card's power.
type cardPower struct {
	integral
	missed bool // it could not be read since the last reading
}

func newCardPower() cardPower {
	return cardPower{integral: integral{update: nvmlUpdate, counted: integralStart}}
}

// add takes a reading and returns the counter; nil where the power is not known.
func (p *cardPower) add(at time.Time, power *energy.Watts) *energy.Microjoules {
	if power == nil {
		p.missed = true
		return nil
	}
	if p.missed && at.Sub(p.at) > bridged {
		p.breakOff()
	}
	p.missed = false
	p.integral.add(float64(*power), at)
	counter := p.counter()
	return &counter
}

func watts(mw *uint64) *energy.Watts {
	if mw == nil {
		return nil
	}
	w := milliwatts(*mw)
	return &w
}

func milliwatts(mw uint64) energy.Watts { return energy.Watts(float64(mw) / 1000) }
