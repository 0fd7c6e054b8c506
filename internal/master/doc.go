// Package master speaks the master's HTTP protocol on behalf of the agent's
// lease port: it registers the node, sends heartbeats, asks for work, asks how a
// lease stands and delivers results.
//
// Every call has its own deadline, reads a bounded answer and fails with a
// *protocol.Error. The package retries nothing and decides nothing: pacing
// lies in Pacer, and what a failure means for a job lies with the actors.
package master
