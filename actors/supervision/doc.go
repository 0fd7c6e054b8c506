// Package supervision runs protoactor-go actors that are restarted when they crash and replaced when they hang.
// It does not know what the actors do.
//
// A child is an actor at its place in the tree of names. Its Ref, its queue of messages and its counters stay; its
// incarnations come and go, each a fresh instance by Spec.New in a protoactor process of its own. A supervisor is an
// incarnation that has spawned children.
//
// # Crashes
//
// A panic in an actor's turn, or a runtime.Goexit, crashes the incarnation. The message that it handled is lost,
// queued ones are kept for the next incarnation. For the time of the backoff the actor handles nothing and its
// children run on. Then the old instance gets *actor.Restarting, what it owns is released, its children are stopped,
// and when they have ended Spec.New makes the next instance, which gets *actor.Started and spawns its children again.
//
// Every actor is restarted by itself: that needs no turn of its supervisor, nothing escalates, and there is no number
// of crashes after which an actor is given up. The wait is at most 50 ms after the first crash and doubles up to 30 s;
// a minute without a crash resets it (Backoff).
//
// A failure in the handling of Restarting, Stopping or Stopped is logged and counted and changes nothing else. After
// Restarting or Stopping an instance gets nothing more but Stopped.
//
// # Hangs
//
// A probe finds actors whose turn does not return. A turn cannot be ended from outside, so the incarnation is
// abandoned: the context of its goroutines is cancelled, its timers and pending results are dropped, its children are
// stopped, and when they have ended (or are abandoned themselves) the next incarnation takes its place and handles
// the queued messages. After the hung turn has returned no code of that instance runs any more. What the turn does
// until then, such as sending messages, cannot be prevented.
//
// An abandoned incarnation leaves a goroutine behind. After a few of them, or one of a critical actor, the System
// gives up and calls Config.OnFatal: the process should end and be started afresh.
//
// # Stops
//
// An incarnation that stops gets *actor.Stopping, what it owns is released, its children are stopped, and when they
// have ended it gets *actor.Stopped. A stopped child is not restarted, and messages to it are dropped. StopInOrder
// stops children one after another and does not wait beyond a deadline.
//
// A child stopped with Ref.Stop is forgotten, its counters included: names may come and go. One that stopped with its
// supervisor keeps its Ref and its counters if the supervisor's next incarnation spawns it while it handles
// *actor.Started, and is forgotten otherwise.
//
// # What an incarnation owns
//
// Goroutines of Go, timers of After and functions given to Poster. They end with the incarnation, however it ends:
// contexts are cancelled, and results and ticks on their way are dropped. What must be closed is best opened and
// closed by one goroutine of Go, which works for abandoned incarnations as well.
//
// # Rules for actors
//
//   - Spawn children with Child, start goroutines with Go and timers with After.
//   - Talk to actors through their Refs; nothing here sends *actor.Terminated.
//   - Use an actor.Context only within the turn that got it.
//   - Do not wait in a turn.
package supervision
