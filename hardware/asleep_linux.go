package hardware

import (
	"time"

	"golang.org/x/sys/unix"
)

// asleep is how long the machine has been suspended since it booted: by how much the
// clock that goes on meanwhile is ahead of the one that Go's times carry. A look during
// which the process was held up is made again.
func asleep() time.Duration {
	const heldUp, attempts = int64(time.Millisecond), 5
	best, least := int64(0), int64(-1)
	for range attempts {
		var before, boot, after unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &before) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil ||
			unix.ClockGettime(unix.CLOCK_MONOTONIC, &after) != nil {
			return 0 // a kernel without that clock: its suspends are not seen
		}
		took := after.Nano() - before.Nano()
		if least < 0 || took < least {
			best, least = boot.Nano()-before.Nano()-took/2, took
		}
		if took < heldUp {
			break
		}
	}
	return time.Duration(best)
}
