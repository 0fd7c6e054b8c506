package messages

import "time"

// Session is what registering with a master returned.
type Session struct {
	NodeID  string    `json:"node_id"`
	Address string    `json:"address"` // the identity we registered with
	Master  string    `json:"master"`  // URL of the master that gave the id
	Since   time.Time `json:"since"`
}

// NodeFacts describe the node in its registration.
type NodeFacts struct {
	Address         string // the node's identity
	Type            string // server, desktop, laptop
	CPUModel        string
	CPUThreads      int
	RAMTotalBytes   uint64
	GPUType         string   // empty: none
	GPUCapabilities []string // encoders that a trial encode proved, such as nvenc_h264
	Labels          map[string]string
}

// HostStatus is the state of the machine. Pointers are nil where unknown.
type HostStatus struct {
	CPULoadPercent *float64 `json:"cpu_load_percent,omitempty"` // 0 to 100 over all threads
	RAMFreeBytes   *uint64  `json:"ram_free_bytes,omitempty"`   // free for new work
	RAMTotalBytes  *uint64  `json:"ram_total_bytes,omitempty"`
	DiskFreeBytes  *uint64  `json:"disk_free_bytes,omitempty"` // where the workspaces lie
	DiskTotalBytes *uint64  `json:"disk_total_bytes,omitempty"`
	TemperatureC   *float64 `json:"temperature_celsius,omitempty"` // hottest CPU sensor
	// NetworkLoadPercent is the use of the busiest network interface, 0 to 100.
	NetworkLoadPercent *float64 `json:"network_load_percent,omitempty"`
	Throttled          bool     `json:"throttled"` // thermal throttling since the last reading
}

// NodeStatus is the body of a heartbeat. Older masters ignore it.
type NodeStatus struct {
	Status      string   `json:"status"` // available, busy or draining
	RunningJobs []string `json:"running_jobs"`
	HostStatus
}
