package messages

import "time"

// Containers is what was last read of a container engine. It is immutable.
type Containers struct {
	At    time.Time // of the last reading, or of the last try
	Since time.Time // from when on it could be read, or could not
	// Error is why the engine could not be read, Absent that there is none; empty otherwise.
	Error   string
	Absent  string
	Running []Container
}

// Readable reports whether the engine could be read.
func (c *Containers) Readable() bool { return c.Error == "" && c.Absent == "" }

// Container is one running container. What is not known is nil.
type Container struct {
	ID   string // in full
	Name string
	// Unread: the engine did not give its figures in time. No other field is valid.
	Unread bool
	// CPUPercent is the CPU use since the reading before: 100 is one CPU at work, as in
	// `docker stats`. nil at the first reading.
	CPUPercent *float64
	CPUTime    time.Duration // since the container started
	// MemoryBytes is the memory in use without the page cache that can be given back at once.
	MemoryBytes      uint64
	MemoryLimitBytes uint64 // the machine's memory where the container has no limit of its own
	// Bytes over all interfaces since the container started; nil: it uses another's network.
	NetworkReceived, NetworkSent *uint64
	// Bytes read from and written to block devices since the container started.
	BlockRead, BlockWritten uint64
}

// EngineStatus is the state of the container engine, for operators.
type EngineStatus struct {
	Since      time.Time `json:"since"`
	Containers int       `json:"containers"` // running
	Error      string    `json:"error,omitempty"`
	Absent     string    `json:"absent,omitempty"` // there is no engine
}
