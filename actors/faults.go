package actors

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/actors/supervision"
)

// Crash makes an actor panic, as a fault of its own would. It works only where fault
// injection is on. The error names the actors there are.
func (a *Agent) Crash(path string) error {
	return a.inject(path, &supervision.Crash{Reason: "asked for by fault injection"})
}

// Hang blocks an actor's turn for so long.
func (a *Agent) Hang(path string, d time.Duration) error {
	return a.inject(path, &supervision.Hang{For: d})
}

func (a *Agent) inject(path string, fault any) error {
	ref, ok := a.system.Lookup(path)
	if !ok {
		var paths []string
		for _, s := range a.system.Stats() {
			paths = append(paths, s.Path)
		}
		slices.Sort(paths)
		return fmt.Errorf("no actor %q; there are: %s", path, strings.Join(paths, ", "))
	}
	ref.Tell(fault)
	return nil
}
