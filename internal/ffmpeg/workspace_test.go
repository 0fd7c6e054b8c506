package ffmpeg

import (
	"fmt"
	"strings"
	"testing"

	"ffmpeg-agent/messages/job"
)

// TestWorkspaceNamesDoNotCollide: 32 bits of a hash collide among 200,000 ids, and a second job
// with the name of the first would empty its workspace.
func TestWorkspaceNamesDoNotCollide(t *testing.T) {
	seen := map[string]string{}
	prefix := strings.Repeat("x", 48)
	for i := range 200_000 {
		id := fmt.Sprint(prefix, i)
		name := attemptName(job.Key{JobID: id, Attempt: 1})
		if other, taken := seen[name]; taken {
			t.Fatalf("%s and %s have the same workspace", id, other)
		}
		seen[name] = id
		if len(name) > 200 {
			t.Fatalf("%s is %d bytes long", name, len(name))
		}
	}
}
