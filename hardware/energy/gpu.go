package energy

import "time"

// GPU is what a graphics card tells beside its energy. A figure that the card or
// its driver does not give is nil, and never 0.
type GPU struct {
	At     time.Time `json:"at"`
	Index  int       `json:"index"` // among the cards of this look, from 0; may change with a reload of the driver
	Name   string    `json:"name"`  // the model, such as "NVIDIA L4"
	UUID   string    `json:"uuid"`  // the same for the card's life; the ID of its zone
	Driver string    `json:"driver_version,omitempty"`
	// MIG: the card is divided into instances; its encoder's use is not told, and
	// power only of the whole card.
	MIG bool `json:"mig"`

	Power        *Watts `json:"power_watts,omitempty"`         // as the driver averages it: over 1 s on most cards since Ampere
	PowerInstant *Watts `json:"power_instant_watts,omitempty"` // not averaged, where the card tells it
	PowerLimit   *Watts `json:"power_limit_watts,omitempty"`   // enforced

	TemperatureCelsius *float64 `json:"temperature_celsius,omitempty"`
	// Use in percent, 0 to 100: of time that any kernel ran, that memory was
	// accessed, and that the encoders and decoders worked.
	UtilizationPercent        *float64 `json:"use_percent,omitempty"`
	MemoryUtilizationPercent  *float64 `json:"memory_use_percent,omitempty"`
	EncoderUtilizationPercent *float64 `json:"encoder_use_percent,omitempty"`
	DecoderUtilizationPercent *float64 `json:"decoder_use_percent,omitempty"`

	MemoryUsed  *uint64 `json:"memory_used_bytes,omitempty"`
	MemoryTotal *uint64 `json:"memory_total_bytes,omitempty"`

	ClockGraphicsMHz *float64 `json:"clock_graphics_mhz,omitempty"`
	ClockSMMHz       *float64 `json:"clock_sm_mhz,omitempty"`
	ClockMemoryMHz   *float64 `json:"clock_memory_mhz,omitempty"`

	// ThrottleReasons are the reasons why the clocks are held down now, by NVML's names in
	// lower case: sw_power_cap, hw_thermal_slowdown. Being idle is none. nil: not
	// known; empty: there is none.
	ThrottleReasons []string `json:"throttle_reasons"`
	// ProcessesAt is when Processes was told, which is seldomer than the card is read.
	ProcessesAt time.Time `json:"processes_at,omitzero"`
	// Processes tell how much of the card each process has used so far; nil: not
	// known (MIG, a driver that does not tell, or processes of another PID
	// namespace). What long ended ones have used stays, so that the sum never falls.
	Processes map[int]GPUTime `json:"processes,omitzero"` // by PID, and EndedProcesses

	// Fault is why the card cannot be read at present; empty: it can.
	Fault string `json:"fault,omitempty"`
}

// ExitedPID stands for the PIDs of processes that ended, which may be others' by now.
const ExitedPID = 0

// GPUTime is how long a process has kept a card's parts busy, added up since the
// reader began: use in percent × time.
type GPUTime struct {
	SM      time.Duration `json:"sm_ns"`
	Encoder time.Duration `json:"encoder_ns"`
	Decoder time.Duration `json:"decoder_ns"`
}

// Add adds two up.
func (u GPUTime) Add(v GPUTime) GPUTime {
	return GPUTime{SM: u.SM + v.SM, Encoder: u.Encoder + v.Encoder, Decoder: u.Decoder + v.Decoder}
}

// Sub is what u is more than v.
func (u GPUTime) Sub(v GPUTime) GPUTime {
	return GPUTime{SM: u.SM - v.SM, Encoder: u.Encoder - v.Encoder, Decoder: u.Decoder - v.Decoder}
}

// Total is the time by which energy is shared: a card's encoder and decoder draw
// power as its multiprocessors do.
func (u GPUTime) Total() time.Duration { return u.SM + u.Encoder + u.Decoder }
