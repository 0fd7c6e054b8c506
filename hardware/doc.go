// Package hardware reads this machine: its processor, memory, disk and chassis type, its
// current load, and its power sensors. It is independent of jobs and masters. What the readings
// add up to is computed by package energy.
//
// The paths of /sys and /proc are configurable, so that a fake machine can take the place of
// the real one.
package hardware
