// Package energy turns readings of power sensors into joules that can be
// believed: it unwraps counters, splits what was read between jobs and the rest
// of the machine, and scores a job's work against the energy it cost. Every
// figure carries where it came from and how far it may be off; what is not known
// is absent and never 0.
//
// The package is pure: no files, no clock, no goroutines. Who reads sensors and
// when is the business of package hardware and of the actors above it. A Ledger
// is not safe for concurrent use; a Snapshot is immutable.
package energy
