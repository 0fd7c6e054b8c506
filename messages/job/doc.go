// Package job is what the parts of the agent know about one job: the lease, the
// attempt's key, its record in the journal, what FFmpeg made of it, and its outcome.
// Values are immutable once handed on. The package does no I/O.
package job
