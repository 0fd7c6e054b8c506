// Package fakehw makes fake machines with known power, for tests, benchmarks and runs of the real
// binary with hardware.sysfs_path, hardware.procfs_path and hardware.nvml_library. Counters have
// the layout of Linux, including links and nested directories. They are updated in place, because
// the real ones are read through an open descriptor.
//
// It does not import the code under test: it integrates the power curves itself to get the true
// energy.
package fakehw
