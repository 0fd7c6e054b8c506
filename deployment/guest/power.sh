# Prints what the journal on the disk holds, then writes to it until the power is cut.
grep -q ' /disk ' /proc/mounts || exit 1
GUEST_JOURNAL_DIR=/disk exec /guest.test
