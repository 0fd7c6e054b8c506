# Says what the journal on the disk holds, then writes on until the power is lost.
grep -q ' /disk ' /proc/mounts || exit 1
GUEST_WRITES_TO=/disk exec /guest.test
