// Package chaos injects faults into real agents, a real master and the network between
// them, and checks invariants of the outcome. It observes agents only from outside: their
// requests, control socket, metrics, logs, files and /proc.
//
// NewSchedule derives a Schedule from a seed: which fault is injected when and where. Run
// plays it while jobs run, and records what it observes in a History. Every invariant is a
// function of the History alone, so a test can violate each with a made-up one.
//
// A fault counts only if its effect was observed: a request that it hit, a process that
// ended, an actor that restarted, a result that reports it.
package chaos
