// Package supervision runs protoactor-go actors that are never silently dead. It
// brings what that library lacks: restarts without limit, paced by a capped backoff
// that forgets crashes after a healthy while; failures with their stack; a teardown
// that survives panics; goroutines and timers that belong to an incarnation and
// vanish with it; stopping in order, with deadlines; and a probe that finds actors
// which hang. It knows nothing of what the actors do.
//
// # Failures
//
// A panic in an actor's turn, or a runtime.Goexit, ends its incarnation: after the backoff the old instance
// gets *actor.Restarting, the children stop, Spec.New makes a fresh instance and
// that gets *actor.Started. The Ref and the queued messages stay, the message that
// failed is lost. While it waits, the actor takes no messages and its children run
// on. Each actor looks after its own restarts: neither its parent's turn nor a
// guardian is needed for them, nothing escalates, and there is no limit after which
// an actor is given up. A Temporary child is the exception: a crash ends it and its
// parent gets *ChildFailed.
//
// Panics in the handling of Restarting, Stopping and Stopped are logged, counted and
// otherwise without effect. After Restarting and Stopping an instance gets nothing
// more but Stopped.
//
// # Hung actors
//
// A turn that does not come back cannot be ended from outside. The actor is
// abandoned: its context is cancelled, its timers and pending results are dropped,
// its queued messages are lost, its children are stopped, and a fresh incarnation
// takes its place behind the same Ref. When the hung turn does return, no code of
// that instance runs again but what it registered with OnRelease. What the turn itself
// does until then, such as messages it sends, cannot be held back. As each abandoned actor
// leaves a goroutine behind, the System gives up after a few; see Config.
//
// # Rules for actors
//
//   - Spawn children with Child only; a parent's restart stops them and its fresh
//     instance spawns them again.
//   - Start goroutines with Go and timers with After only.
//   - The actor.Context is good only within the turn that got it.
//   - Of *actor.Terminated a parent gets those for children that are not Temporary
//     and that stopped for another reason than StopInOrder or being replaced.
package supervision
