package hardware

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/hardware/energy"
)

// The two processes speak in lines of JSON. The parent writes an nvmlSetup and then
// nvmlRequests, one at a time; the child answers each with an nvmlAnswer. The first
// answer comes when NVML has started, which takes seconds on some machines.

// nvmlSetup is the parent's first line.
type nvmlSetup struct {
	Library    string `json:"library"`
	ProcfsPath string `json:"procfs_path"`
}

// nvmlRequest asks for one look at the cards.
type nvmlRequest struct {
	ID   uint64 `json:"id"`
	Full bool   `json:"full"` // with all that changes slowly, not only energy and power
}

// nvmlAnswer is what the child saw.
type nvmlAnswer struct {
	ID      uint64       `json:"id"`
	Failure *nvmlFailure `json:"failure,omitempty"` // there are no cards to look at, and the child ends
	// Stale: NVML has to be started again for the sake of some card.
	Stale bool       `json:"stale,omitempty"`
	Cards []nvmlCard `json:"cards,omitempty"`
}

// nvmlFailure is why NVML did not start.
type nvmlFailure struct {
	None   bool   `json:"none"` // there is nothing to be started: no library, driver, or card
	Reason string `json:"reason"`
}

// nvmlCard is one card in an answer. A figure it does not tell is nil.
type nvmlCard struct {
	UUID    string  `json:"uuid"`
	At      int64   `json:"at_ns"`                // when the energy or, without it, power was read; CLOCK_MONOTONIC
	Energy  *uint64 `json:"energy_mj,omitempty"`  // since the driver was loaded
	Power   *uint64 `json:"power_mw,omitempty"`   // as the driver averages it
	Instant *uint64 `json:"instant_mw,omitempty"` // not averaged
	Fault   string  `json:"fault,omitempty"`      // why energy and power could not be read

	// Of a full look: what else the card tells, the highest power that its limit can be
	// set to, and its processes, of which there may be none, or none known.
	Details   *energy.GPU            `json:"details,omitempty"`
	MaxPower  *uint64                `json:"max_power_mw,omitempty"`
	Processes map[int]energy.GPUTime `json:"processes,omitzero"`
}

// averaged is the card's power as it is to be integrated. The average loses nothing
// between two looks; where there is none, what the sensor says at each has to do.
func (c *nvmlCard) averaged() *uint64 {
	if c.Power != nil {
		return c.Power
	}
	return c.Instant
}

// Bounds of what can be true.
const (
	maxCards      = 64
	maxCardMW     = 10e6 // 10 kW, several times what the biggest module draws
	maxCounterMJ  = math.MaxInt64 / 1000
	maxUUIDLength = 96
	// maxAnswer bounds a line of the child: 64 cards with a hundred processes each
	// take about half of it.
	maxAnswer = 1 << 20
)

// parseAnswer reads what must be the answer to a request, of which the child looked
// at the cards between two moments of CLOCK_MONOTONIC.
func parseAnswer(line []byte, id uint64, from, to int64) (nvmlAnswer, error) {
	var a nvmlAnswer
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("not an answer: %.60q", line)
	}
	if a.ID != id {
		return a, fmt.Errorf("answered request %d instead of %d", a.ID, id)
	}
	if a.Failure != nil {
		return a, nil
	}
	if len(a.Cards) == 0 || len(a.Cards) > maxCards {
		return a, fmt.Errorf("answered for %d cards", len(a.Cards))
	}
	seen := map[string]bool{}
	for i := range a.Cards {
		c := &a.Cards[i]
		if c.UUID == "" || len(c.UUID) > maxUUIDLength || seen[c.UUID] {
			return a, fmt.Errorf("answered for a card %.60q", c.UUID)
		}
		seen[c.UUID] = true
		if err := c.check(from, to); err != nil {
			return a, fmt.Errorf("card %s: %w", c.UUID, err)
		}
	}
	return a, nil
}

func (c *nvmlCard) check(from, to int64) error {
	if c.Fault == "" && (c.At < from || c.At > to) {
		return errors.New("looked at before or after it was asked for")
	}
	if c.Energy != nil && *c.Energy > maxCounterMJ {
		return fmt.Errorf("energy of %d mJ", *c.Energy)
	}
	for _, power := range []*uint64{c.Power, c.Instant, c.MaxPower} {
		if power != nil && *power > maxCardMW {
			return fmt.Errorf("power of %d mW", *power)
		}
	}
	if c.Details == nil {
		return nil
	}
	if d := c.Details; d.UUID != c.UUID || d.Index < 0 || d.Index >= maxCards {
		return fmt.Errorf("has details of card %d, %.60q", d.Index, d.UUID)
	}
	return c.checkUse()
}

func (c *nvmlCard) checkUse() error {
	d := c.Details
	for _, percent := range []*float64{d.UtilizationPercent, d.MemoryUtilizationPercent, d.EncoderUtilizationPercent, d.DecoderUtilizationPercent} {
		if percent != nil && !(*percent >= 0 && *percent <= 100) {
			return fmt.Errorf("used to %v %%", *percent)
		}
	}
	for pid, use := range c.Processes {
		if pid <= 0 || use.SM < 0 || use.Encoder < 0 || use.Decoder < 0 {
			return fmt.Errorf("process %d has used it for %v", pid, use)
		}
	}
	return nil
}

// monotonic is CLOCK_MONOTONIC in ns, which both processes share. Go's own clock is
// the same one.
func monotonic() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(fmt.Sprintf("reading CLOCK_MONOTONIC: %v", err)) // every system has it
	}
	return now.Nano()
}

// onClock puts a moment of CLOCK_MONOTONIC on Go's clock.
func onClock(moment int64) time.Time {
	now, mono := time.Now(), monotonic()
	return now.Add(time.Duration(moment - mono))
}
