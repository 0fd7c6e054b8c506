package actors

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/actors/supervision"
)

// Crash makes an actor panic. It works only with fault injection on. The error of an unknown
// path names the actors.
func (a *Agent) Crash(path string) error {
	return a.inject(path, &supervision.Crash{Reason: "asked for by fault injection"})
}

// Hang blocks an actor's turn for d.
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
		return fmt.Errorf("no actor %q; the actors are: %s", path, strings.Join(paths, ", "))
	}
	ref.Tell(fault)
	return nil
}
