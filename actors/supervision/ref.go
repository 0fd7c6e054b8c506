package supervision

import (
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
)

// Ref addresses a role in the tree: whoever plays it at the time. It outlives
// restarts of the actor, its replacement when it hangs, and a restart of its parent
// that spawns it again. It is safe for concurrent use.
type Ref struct {
	role  atomic.Pointer[role]
	drops atomic.Int64
}

// NewRef returns a Ref that a Spec binds when its actor is spawned. So siblings can
// know each other before all of them are there.
func NewRef() *Ref { return &Ref{} }

// Tell puts a message into the actor's mailbox and returns at once. Where the Ref is
// unbound or the actor has stopped, the message is dropped and counted.
func (r *Ref) Tell(msg any) {
	if role := r.role.Load(); role != nil {
		if c := role.cell.Load(); c != nil {
			c.mailbox.PostUserMessage(msg)
			return
		}
		role.drops.Add(1)
	}
	r.drops.Add(1)
}

// Name returns the name of the role, "" while the Ref is unbound.
func (r *Ref) Name() string {
	if role := r.role.Load(); role != nil {
		return role.name
	}
	return ""
}

// Path returns the names from the root to the role, joined by "/", "" while the Ref is unbound.
func (r *Ref) Path() string {
	if role := r.role.Load(); role != nil {
		return role.path
	}
	return ""
}

// Stop asks the actor to stop, after the message it is handling. It is not restarted or replaced any
// more; its parent can spawn the role again.
func (r *Ref) Stop() {
	if role := r.role.Load(); role != nil {
		role.stop()
	}
}

// Dropped counts the messages told to this Ref while nobody was behind it.
func (r *Ref) Dropped() int { return int(r.drops.Load()) }

// Self returns the actor's own Ref.
func Self(ctx actor.Context) *Ref { return cellOf(ctx).ref }
