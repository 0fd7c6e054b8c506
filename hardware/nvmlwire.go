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

// Parent and child exchange lines of JSON. The parent writes an nvmlSetup and then one
// nvmlRequest at a time; the child answers each request with an nvmlResponse. It sends the first
// one once NVML is initialized, which takes seconds on some machines.

// nvmlSetup is the parent's first line.
type nvmlSetup struct {
	Library    string `json:"library"`
	ProcfsPath string `json:"procfs_path"`
}

// nvmlRequest asks for one read of all cards.
type nvmlRequest struct {
	ID      uint64 `json:"id"`
	Details bool   `json:"details"` // not only energy and power, but also values that change slowly
}

// nvmlResponse is the result of one read.
type nvmlResponse struct {
	ID      uint64       `json:"id"`
	Failure *nvmlFailure `json:"failure,omitempty"` // NVML did not start; the child exits
	// Stale means that NVML must be initialized again to read some card.
	Stale bool         `json:"stale,omitempty"`
	Cards []nvmlValues `json:"cards,omitempty"`
}

// nvmlFailure describes why NVML did not start.
type nvmlFailure struct {
	Missing bool   `json:"missing"` // the library, the driver or a card is not there
	Reason  string `json:"reason"`
}

// nvmlValues are the values of one card. A value that the card does not report is nil.
type nvmlValues struct {
	UUID    string  `json:"uuid"`
	At      int64   `json:"at_ns"`                // when energy or, without it, power was read; CLOCK_MONOTONIC
	Energy  *uint64 `json:"energy_mj,omitempty"`  // since the driver was loaded
	Power   *uint64 `json:"power_mw,omitempty"`   // as the driver averages it
	Instant *uint64 `json:"instant_mw,omitempty"` // not averaged
	Fault   string  `json:"fault,omitempty"`      // why energy and power could not be read

	// Only in responses with details. MaxPower is the highest power limit that can be set.
	// Processes is empty where none uses the card, and nil where they are unknown.
	Details   *energy.GPU            `json:"details,omitempty"`
	MaxPower  *uint64                `json:"max_power_mw,omitempty"`
	Processes map[int]energy.GPUTime `json:"processes,omitzero"`
}

// power returns the power to integrate: the average, which includes peaks between two reads,
// else the instant power.
func (v *nvmlValues) power() *uint64 {
	if v.Power != nil {
		return v.Power
	}
	return v.Instant
}

// Limits of plausible values.
const (
	maxCards      = 64
	maxCardMW     = 10e6 // several times what the biggest module draws
	maxCounterMJ  = math.MaxInt64 / 1000
	maxUUIDLength = 96
	// maxResponse limits a line of the child in bytes. 64 cards with a hundred processes each
	// take about half of it.
	maxResponse = 1 << 20
)

// parseResponse parses the response to a request. Its values must have been read between two
// times of CLOCK_MONOTONIC.
func parseResponse(line []byte, id uint64, from, to int64) (nvmlResponse, error) {
	var r nvmlResponse
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("malformed: %.60q", line)
	}
	if r.ID != id {
		return r, fmt.Errorf("response to request %d, want %d", r.ID, id)
	}
	if r.Failure != nil {
		return r, nil
	}
	if len(r.Cards) == 0 || len(r.Cards) > maxCards {
		return r, fmt.Errorf("values of %d cards", len(r.Cards))
	}
	seen := map[string]bool{}
	for i := range r.Cards {
		v := &r.Cards[i]
		if v.UUID == "" || len(v.UUID) > maxUUIDLength || seen[v.UUID] {
			return r, fmt.Errorf("empty, long or repeated UUID %.60q", v.UUID)
		}
		seen[v.UUID] = true
		if err := v.validate(from, to); err != nil {
			return r, fmt.Errorf("card %s: %w", v.UUID, err)
		}
	}
	return r, nil
}

func (v *nvmlValues) validate(from, to int64) error {
	if v.Fault == "" && (v.At < from || v.At > to) {
		return errors.New("read time outside the request")
	}
	if v.Energy != nil && *v.Energy > maxCounterMJ {
		return fmt.Errorf("energy of %d mJ", *v.Energy)
	}
	for _, power := range []*uint64{v.Power, v.Instant, v.MaxPower} {
		if power != nil && *power > maxCardMW {
			return fmt.Errorf("power of %d mW", *power)
		}
	}
	if v.Details == nil {
		return nil
	}
	if d := v.Details; d.UUID != v.UUID || d.Index < 0 || d.Index >= maxCards {
		return fmt.Errorf("details of card %d, %.60q", d.Index, d.UUID)
	}
	return v.validateUtilization()
}

func (v *nvmlValues) validateUtilization() error {
	d := v.Details
	for _, percent := range []*float64{d.UtilizationPercent, d.MemoryUtilizationPercent, d.EncoderUtilizationPercent, d.DecoderUtilizationPercent} {
		if percent != nil && !(*percent >= 0 && *percent <= 100) {
			return fmt.Errorf("utilization of %v %%", *percent)
		}
	}
	for pid, t := range v.Processes {
		if pid <= 0 || t.SM < 0 || t.Encoder < 0 || t.Decoder < 0 {
			return fmt.Errorf("time %v of process %d", t, pid)
		}
	}
	return nil
}

// monotonic returns CLOCK_MONOTONIC in ns, which all processes share. Go's monotonic clock is
// the same one.
func monotonic() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(fmt.Sprintf("reading CLOCK_MONOTONIC: %v", err)) // every system has it
	}
	return now.Nano()
}

// fromMonotonic converts a time of CLOCK_MONOTONIC.
func fromMonotonic(at int64) time.Time {
	now, mono := time.Now(), monotonic()
	return now.Add(time.Duration(at - mono))
}
