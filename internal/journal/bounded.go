package journal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

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
	names := slices.Sorted(maps.Keys(j.Parameters))
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(len(a)+size(j.Parameters[a]), len(b)+size(j.Parameters[b])) })
	for _, name := range names { // the smallest first, which are those that say most
		if len(name) > maxParameter {
			continue
		}
		value := j.Parameters[name]
		if n := size(value); n > maxParameter {
			value = leftOut(n)
		}
		if sum += len(name) + size(value); sum <= maxParameters {
			kept[name] = value
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
