// Package fakehw makes fake machines with known power, for tests, benchmarks and runs of the real
// binary with hardware.sysfs_path, hardware.procfs_path and hardware.nvml_library. Counters have
// the layout of Linux, including links and nested directories. They are updated in place, because
// the real ones are read through an open descriptor.
//
// It imports nothing of what it tests: the true energy is its own integral of the power curve.
package fakehw
