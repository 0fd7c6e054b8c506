// Package hardware reads this machine: its processor, memory, disk and chassis type, its
// current load, and its power sensors. It is independent of jobs and masters. Package energy
// computes energy from its readings.
//
// The paths of /sys and /proc are configurable, so that tests can use a fake machine.
package hardware
