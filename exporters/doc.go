// Package exporters serves what the agent knows to Prometheus and to probes: CPU
// power, graphics cards, running encodes, and the agent itself, each on a port of its own.
//
// It measures nothing and decides nothing: every figure comes from a snapshot that
// a function it was given returns, so that a scrape enters no mailbox and waits for
// nobody. Who runs a Server, and starts it again when it failed, is not its concern
// either.
package exporters
