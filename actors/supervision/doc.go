// Package supervision restarts protoactor-go actors that crash and replaces those that hang.
//
// A child is an actor with a fixed path in the tree. Its Ref, its message queue and its counters outlive its
// incarnations, each of which is a new instance made by Spec.New in its own protoactor process. A supervisor is an
// incarnation that has spawned children. A turn is the handling of one message.
//
// # Crashes
//
// A panic or a runtime.Goexit in an actor's turn crashes the incarnation. The message being handled is lost; queued
// messages are kept for the next incarnation. During the backoff the actor handles nothing, and its children keep
// running. Then the old instance gets *actor.Restarting, what it owns is released, and its children are stopped. When
// they have ended, Spec.New makes the next instance, which gets *actor.Started and spawns its children again.
//
// A restart needs no turn of the supervisor. Crashes do not escalate, and the number of restarts is not limited. The
// backoff is at most 50 ms after the first crash and doubles up to 30 s; a minute without a crash resets it.
//
// A failure while handling Restarting, Stopping or Stopped is only logged and counted. After Restarting an instance
// gets no more messages; after Stopping it gets only Stopped.
//
// # Hangs
//
// A probe finds actors whose turn does not return. A turn cannot be interrupted, so the incarnation is abandoned: the
// context of its goroutines is cancelled, its timers and pending results are dropped, and its children are stopped.
// When they have ended or are abandoned themselves, the next incarnation takes its place and handles the queued
// messages. Once the hung turn has returned, no more code of that instance runs. What the turn does until then, such as
// sending messages, cannot be prevented.
//
// An abandoned incarnation leaks a goroutine. After several of them, or one of a critical actor, the System gives up
// and calls Config.OnFatal: the process should exit and be restarted.
//
// # Stops
//
// An incarnation that stops gets *actor.Stopping, what it owns is released, its children are stopped, and when they
// have ended it gets *actor.Stopped. A stopped child is not restarted, and messages to it are dropped. StopInOrder
// stops children one after another, each with a deadline.
//
// A child stopped with Ref.Stop is removed with its counters. A child that stopped with its supervisor keeps its Ref
// and counters if the supervisor's next incarnation spawns it again while handling *actor.Started; otherwise it is
// removed.
//
// # What an incarnation owns
//
// Goroutines started by Go, timers started by After, and functions posted by Poster. They end with the incarnation,
// however it ends: contexts are cancelled, and results and ticks in flight are dropped. A resource that must be closed
// is best opened and closed in one goroutine of Go, because that also works for abandoned incarnations.
//
// # Rules for actors
//
//   - Spawn children with Child, start goroutines with Go and timers with After.
//   - Address actors by their Refs; *actor.Terminated is not sent.
//   - Use an actor.Context only in the turn that received it.
//   - Do not block in a turn.
package supervision
