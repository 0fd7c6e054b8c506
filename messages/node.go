package messages

import (
	"maps"
	"slices"
	"time"

	"ffmpeg-agent/messages/job"
)

// Session is what registering with a master returned.
type Session struct {
	NodeID  string    `json:"node_id"`
	Address string    `json:"address"` // the identity we registered with
	Master  string    `json:"master"`  // URL of the master that gave the id
	Since   time.Time `json:"since"`
	// New: the master answered that the node is new to it, and so stored the facts that
	// were posted. Some masters store those of a node's first registration only.
	New bool `json:"new,omitempty"`
}

// NodeFacts describe the node in its registration.
type NodeFacts struct {
	Address         string // the node's identity
	Type            string // server, desktop, laptop
	CPUModel        string
	CPUThreads      int
	RAMTotalBytes   uint64
	GPUType         string   // name of the card; empty: none
	GPUCapabilities []string // encoders that a trial encode proved, such as nvenc_h264
	Labels          map[string]string
}

// Equal reports whether a registration with either sends the master the same.
func (f NodeFacts) Equal(other NodeFacts) bool {
	return f.Scheduling().Equal(other.Scheduling()) && maps.Equal(f.Labels, other.Labels)
}

// Scheduling returns the facts that a master chooses a node by.
func (f NodeFacts) Scheduling() SchedulingFacts {
	return SchedulingFacts{HasGPU: f.GPUType != "", GPUType: f.GPUType, GPUCapabilities: f.GPUCapabilities, Labels: f.Labels}
}

// SchedulingFacts are what a master chooses a node by.
type SchedulingFacts struct {
	HasGPU          bool              `json:"has_gpu"`
	GPUType         string            `json:"gpu_type"`
	GPUCapabilities []string          `json:"gpu_capabilities"` // in any order
	Labels          map[string]string `json:"labels"`
}

// Labels that describe a node to people. They change with every update of the agent or of
// FFmpeg, and no master chooses a node by them.
const (
	LabelAgentVersion = "agent_version"
	LabelEncoders     = "encoders"
)

// Equal reports whether a master would choose a node by either in the same way.
func (f SchedulingFacts) Equal(other SchedulingFacts) bool {
	sorted := func(names []string) []string { return slices.Sorted(slices.Values(names)) }
	labels := func(all map[string]string) map[string]string {
		deciding := maps.Clone(all)
		delete(deciding, LabelAgentVersion)
		delete(deciding, LabelEncoders)
		return deciding
	}
	return f.HasGPU == other.HasGPU && f.GPUType == other.GPUType &&
		slices.Equal(sorted(f.GPUCapabilities), sorted(other.GPUCapabilities)) && maps.Equal(labels(f.Labels), labels(other.Labels))
}

// Renewal remembers for which facts the node was removed from a master that did not store
// them, so that this is done once for each set of facts.
type Renewal struct {
	Master string          `json:"master"` // URL
	Facts  SchedulingFacts `json:"facts"`
	Tries  int             `json:"tries"`          // removals that were tried
	Done   bool            `json:"done,omitempty"` // the node was removed
}

// Held is what the master has under a node's id.
type Held struct {
	Offline  bool // the node is listed as offline
	Unlisted bool // the master answers for the node, but does not list it; the fields below but Leases are unknown
	Busy     bool // the node has a job in the master's eyes
	Facts    SchedulingFacts
	Leases   []job.Lease
}

// HostStatus is the state of the machine. Pointers are nil where unknown.
type HostStatus struct {
	CPULoadPercent *float64 `json:"cpu_load_percent,omitempty"` // 0 to 100 over all threads
	RAMFreeBytes   *uint64  `json:"ram_free_bytes,omitempty"`   // free for new work
	RAMTotalBytes  *uint64  `json:"ram_total_bytes,omitempty"`
	DiskFreeBytes  *uint64  `json:"disk_free_bytes,omitempty"` // where the workspaces lie
	DiskTotalBytes *uint64  `json:"disk_total_bytes,omitempty"`
	InodesFree     *uint64  `json:"inodes_free,omitempty"` // of the same file system
	InodesTotal    *uint64  `json:"inodes_total,omitempty"`
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
