// Command helper is the helper of a sandbox and nothing else, so that it starts faster than a
// test binary with the race detector.
package main

import (
	"fmt"
	"os"

	"ffmpeg-agent/hardware/proc"
)

func main() {
	fmt.Fprintln(os.Stderr, proc.Confine(os.Args[1:]))
	os.Exit(1)
}
