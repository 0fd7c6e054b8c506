// Package messages is what the agent's actors say to each other, and what they
// and the parts behind their ports agree on: leases, attempts, results, states.
// Values are immutable once sent. The package decides nothing and does no I/O.
package messages
