// Package hardware knows this machine: its processor, memory, disk and kind, how
// it fares right now, and the sensors that tell its power. What it finds is in
// the machine's own terms; it knows neither jobs nor masters, and what readings
// add up to is the business of package energy.
//
// The paths of /sys and /proc are settable, so that a fake machine can be put in
// the real one's place.
package hardware
