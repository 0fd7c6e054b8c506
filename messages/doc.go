// Package messages is what the agent's actors say to each other and show to
// operators. Values are immutable once sent. The package decides nothing and does no
// I/O. What is known of a job is package job, what the master says package protocol.
package messages
