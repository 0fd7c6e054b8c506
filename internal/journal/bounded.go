package journal

import (
	"encoding/json"
	"fmt"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// Bounds of what is kept of a job, in bytes of JSON or text.
const (
	maxParameter  = 4 << 10
	maxParameters = 64 << 10
)

// bounded is a lease whose job is kept without what is too large to be of use: such parameters
// and texts are replaced by their sizes. The attempt itself runs with the whole job.
func bounded(lease job.Lease) job.Lease {
	j := &lease.Job
	for _, text := range []*string{&j.Scenario, &j.Engine, &j.Classification, &j.Error} {
		if len(*text) > maxParameter {
			*text = leftOut(len(*text))
		}
	}
	if size(j.Parameters) <= maxParameters && !hasLarge(j.Parameters) {
		return lease
	}
	kept, sum := protocol.Parameters{}, 0
	for key, value := range j.Parameters {
		n := size(value)
		if n > maxParameter {
			value = leftOut(n)
		}
		if sum += min(n, maxParameter) + len(key); len(key) <= maxParameter && sum <= maxParameters {
			kept[key] = value
		}
	}
	j.Parameters = kept
	return lease
}

func hasLarge(parameters protocol.Parameters) bool {
	for key, value := range parameters {
		if len(key) > maxParameter || size(value) > maxParameter {
			return true
		}
	}
	return false
}

func size(value any) int {
	raw, _ := json.Marshal(value) // decoded from JSON
	return len(raw)
}

func leftOut(bytes int) string { return fmt.Sprintf("(%d bytes left out)", bytes) }
