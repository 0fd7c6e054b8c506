//go:build !linux

package hardware

import "time"

// suspended is unknown on this system.
func suspended() time.Duration { return 0 }
