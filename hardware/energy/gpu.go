package energy

import "time"

// GPU is the state of a graphics card. A field that the card or its driver does not report is
// nil, never 0.
type GPU struct {
	At     time.Time `json:"at"`
	Index  int       `json:"index"` // among the cards read together, from 0; may change when the driver is reloaded
	Name   string    `json:"name"`  // the model: "NVIDIA L4"
	UUID   string    `json:"uuid"`  // permanent; the ID of the card's zone
	Driver string    `json:"driver_version,omitempty"`
	// MIG is set if the card is partitioned. Then the use of its encoders is not reported, and
	// power only for the whole card.
	MIG bool `json:"mig"`

	Power        *Watts `json:"power_watts,omitempty"`         // averaged by the driver: over 1 s on most cards since Ampere
	PowerInstant *Watts `json:"power_instant_watts,omitempty"` // not averaged
	PowerLimit   *Watts `json:"power_limit_watts,omitempty"`   // enforced

	TemperatureCelsius *float64 `json:"temperature_celsius,omitempty"`
	// Utilization is the percentage of time, 0 to 100, in which a kernel ran, memory was
	// accessed, and the encoders and decoders were busy.
	UtilizationPercent        *float64 `json:"use_percent,omitempty"`
	MemoryUtilizationPercent  *float64 `json:"memory_use_percent,omitempty"`
	EncoderUtilizationPercent *float64 `json:"encoder_use_percent,omitempty"`
	DecoderUtilizationPercent *float64 `json:"decoder_use_percent,omitempty"`

	MemoryUsed  *uint64 `json:"memory_used_bytes,omitempty"`
	MemoryTotal *uint64 `json:"memory_total_bytes,omitempty"`

	ClockGraphicsMHz *float64 `json:"clock_graphics_mhz,omitempty"`
	ClockSMMHz       *float64 `json:"clock_sm_mhz,omitempty"`
	ClockMemoryMHz   *float64 `json:"clock_memory_mhz,omitempty"`

	// ThrottleReasons are NVML's reasons for lowered clocks, in lower case: sw_power_cap,
	// hw_thermal_slowdown. Idleness is not among them. nil: unknown.
	ThrottleReasons []string `json:"throttle_reasons"`
	// ProcessesAt is when Processes was read, which happens less often than reading the card.
	ProcessesAt time.Time `json:"processes_at,omitzero"`
	// Processes is the use of the card by each process so far, by PID. The use of exited
	// processes moves to ExitedPID, so that the sum never decreases. nil: unknown (MIG, a driver
	// that does not report it, or processes of another PID namespace).
	Processes map[int]GPUTime `json:"processes,omitzero"`

	// Fault is why the card cannot be read at present; empty if it can.
	Fault string `json:"fault,omitempty"`
}

// ExitedPID is the key in GPU.Processes of all processes that have exited: their PIDs may have
// been reused.
const ExitedPID = 0

// GPUTime is the time for which a process has used the units of a card, utilization × time, since
// the reader started.
type GPUTime struct {
	SM      time.Duration `json:"sm_ns"`
	Encoder time.Duration `json:"encoder_ns"`
	Decoder time.Duration `json:"decoder_ns"`
}

// Add returns t + u.
func (t GPUTime) Add(u GPUTime) GPUTime {
	return GPUTime{SM: t.SM + u.SM, Encoder: t.Encoder + u.Encoder, Decoder: t.Decoder + u.Decoder}
}

// Sub returns t − u.
func (t GPUTime) Sub(u GPUTime) GPUTime {
	return GPUTime{SM: t.SM - u.SM, Encoder: t.Encoder - u.Encoder, Decoder: t.Decoder - u.Decoder}
}

// Total returns the time by which energy is attributed: encoders and decoders draw power like
// multiprocessors.
func (t GPUTime) Total() time.Duration { return t.SM + t.Encoder + t.Decoder }
