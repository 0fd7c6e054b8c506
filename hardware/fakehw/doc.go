// Package fakehw writes fake /sys and /proc trees of a machine whose power is
// known, for tests, benchmarks and runs of the real binary through its
// hardware.sysfs_path and hardware.procfs_path. Counters are laid out as Linux
// has them, links and nested directories included, and are rewritten in place,
// since real ones are read through an open descriptor.
//
// It imports nothing of what it is there to test: the energy it says was used is
// its own integral of the power curve.
package fakehw
