package devmaster

import (
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// Habits are deviations from the protocol that masters in use have. The zero value has none.
type Habits struct {
	// FirstFactsOnly: a later registration of a known address stores only heartbeat and status,
	// although its response has the posted facts.
	FirstFactsOnly bool
	// UnreadableAfterRestart: after a restart from the state file, heartbeats of a node are
	// answered, but GET /nodes/{id} is 500 and GET /nodes omits the node, until it registers
	// again.
	UnreadableAfterRestart bool
	// OfflineUntilRegistered: a node that was offline stays offline, although it sends
	// heartbeats and is assigned jobs, until it registers again.
	OfflineUntilRegistered bool
	// MatchGPU: a job that needs a hardware encoder is not assigned to a node whose stored
	// facts lack it. It stays queued and blocks the jobs behind it.
	MatchGPU bool
	// StaleAfter is how long an assigned job of the queues default and batch may take before
	// it is re-queued, even if its node sends heartbeats. 0: no limit.
	StaleAfter time.Duration
	// LiveStaleAfter is StaleAfter for the queue live. It does not apply to the current job of
	// a node.
	LiveStaleAfter time.Duration
}

// Defaults of masters in use.
const (
	DefaultStaleAfter     = 30 * time.Minute
	DefaultLiveStaleAfter = 5 * time.Minute
)

// FieldHabits returns all habits.
func FieldHabits() Habits {
	return Habits{
		FirstFactsOnly:         true,
		UnreadableAfterRestart: true,
		OfflineUntilRegistered: true,
		MatchGPU:               true,
		StaleAfter:             DefaultStaleAfter,
		LiveStaleAfter:         DefaultLiveStaleAfter,
	}
}

// fits reports whether a node's stored facts have the hardware encoders that a job asks for.
func fits(j *protocol.Job, n *protocol.Node) bool {
	family := gpuFamily(j.Parameters)
	return family == "" || n.HasGPU && slices.ContainsFunc(n.GPUCapabilities, func(c string) bool {
		return strings.HasPrefix(c, family+"_")
	})
}

// gpuFamily returns the family of the hardware encoder that a job names, such as nvenc; empty
// if it names none.
func gpuFamily(p protocol.Parameters) string {
	for _, name := range []string{"codec", "encoder"} {
		encoder, _ := p[name].(string)
		if _, family, _ := strings.Cut(encoder, "_"); slices.Contains(gpuFamilies, family) {
			return family
		}
	}
	switch accel, _ := p["hwaccel"].(string); {
	case accel == "cuda", accel == "nvdec":
		return "nvenc"
	case slices.Contains(gpuFamilies, accel):
		return accel
	}
	return ""
}

var gpuFamilies = []string{"nvenc", "qsv", "vaapi", "amf", "videotoolbox", "v4l2m2m", "vulkan"}
