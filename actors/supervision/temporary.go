package supervision

import "github.com/asynkron/protoactor-go/actor"

// endTemporary has a temporary child end for good. It is called with System.mu held.
func (i *incarnation) endTemporary(reason any, stack string) bool {
	r := i.ref
	if !r.stats.Temporary {
		return false
	}
	if i.cause == nil && !i.stopped {
		i.cause = &ChildFailed{Name: r.name, Reason: reason, Stack: stack}
	}
	r.stopped, r.forget, i.stopped = true, true, true
	return true
}

// childFailed tells the present incarnation of a supervisor that a temporary child has failed.
func (i *incarnation) childFailed(cause *ChildFailed) {
	p := &pending{owner: i, what: "ChildFailed", cancel: func() {}}
	if i.add(p) {
		i.ref.Tell(turn{p, func(actor.Context) { i.process.InvokeUserMessage(cause) }})
	}
}
