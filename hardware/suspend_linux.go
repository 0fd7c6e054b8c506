package hardware

import (
	"time"

	"golang.org/x/sys/unix"
)

// suspended returns how long the machine has been suspended since it booted: the lead of
// CLOCK_BOOTTIME over CLOCK_MONOTONIC, which is Go's clock. A measurement that was preempted
// is repeated.
func suspended() time.Duration {
	const preempted, attempts = int64(time.Millisecond), 5
	best, shortest := int64(0), int64(-1)
	for range attempts {
		var before, boot, after unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &before) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil ||
			unix.ClockGettime(unix.CLOCK_MONOTONIC, &after) != nil {
			return 0 // the kernel has no CLOCK_BOOTTIME: suspends go unnoticed
		}
		took := after.Nano() - before.Nano()
		if shortest < 0 || took < shortest {
			best, shortest = boot.Nano()-before.Nano()-took/2, took
		}
		if took < preempted {
			break
		}
	}
	return time.Duration(best)
}
