// Package chaos drives real agents, a real master and the network between them through
// faults, and judges what came of it. It knows the agents by what they show to anybody:
// what they send, their control socket, their metrics, /proc, and the files they leave.
//
// A Schedule is drawn from a seed and says which fault comes when and where. Run plays
// it, while jobs flow, and notes facts in a History. The invariants are functions of a
// History alone, so that each can be shown to fire on one that was made up.
//
// A fault counts only when its effect was seen: a request that it met, a process that
// ended, an actor that restarted, a result that says so.
package chaos
