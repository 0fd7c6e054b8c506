// Package energy turns counter readings of power sensors into energy figures: it unwraps
// counters, attributes energy to jobs, the idle baseline and other processes, and relates a job's
// work to the energy that it used. Every figure carries its source and error bound; an unknown
// figure is absent, never 0.
//
// The package does no I/O, reads no clock and starts no goroutine; package hardware reads the
// sensors. A Ledger is not safe for concurrent use, a Snapshot is immutable.
package energy
