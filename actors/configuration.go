package actors

import (
	"context"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// watchInterval is how often the files of the configuration are compared.
const watchInterval = 500 * time.Millisecond

// configuration reloads the operator's configuration when asked to and when a file of it has
// changed, replaces the settings, and notifies the actors that depend on them.
type configuration struct {
	*shared
	busy    bool           // a comparison or a reload is in flight
	due     bool           // a reload was asked for meanwhile
	waiting []chan<- error // for the end of the next reload
	next    *supervision.Timer
}

func newConfiguration(s *shared) *configuration { return &configuration{shared: s} }

func (c *configuration) Receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		c.announce() // the previous incarnation may have crashed before it did
		c.watch(ctx)
	case *messages.Reload:
		if msg.Answer != nil {
			c.waiting = append(c.waiting, msg.Answer)
		}
		c.reload(ctx)
	}
}

// watch compares the files now and then, and reloads when they have changed.
func (c *configuration) watch(ctx actor.Context) {
	c.busy = true
	supervision.Go(ctx, func(context.Context) (bool, error) {
		return c.Configuration.Changed(), nil
	}, func(ctx actor.Context, changed bool, _ error) {
		c.busy = false
		c.next = supervision.After(ctx, watchInterval, c.watch)
		if changed || c.due {
			c.reload(ctx)
		}
	})
}

// reload logs nothing: Reload does.
func (c *configuration) reload(ctx actor.Context) {
	if c.busy {
		c.due = true
		return
	}
	waiting := c.waiting
	c.busy, c.due, c.waiting = true, false, nil
	c.next.Stop()
	supervision.Go(ctx, func(work context.Context) (struct{}, error) {
		return struct{}{}, c.Configuration.Reload(work)
	}, func(ctx actor.Context, _ struct{}, err error) {
		c.announce()
		for _, answer := range waiting {
			answer <- err
		}
		c.watch(ctx)
	})
}

// announce posts the settings in force and notifies the actors that act on a change.
func (c *configuration) announce() {
	settings, status := c.Configuration.Settings(), c.Configuration.Status()
	c.current.Store(&settings)
	c.snapshots.configuration.Store(&status)
	for _, to := range []*supervision.Ref{
		c.refs.registrar, c.refs.heartbeat, c.refs.poller, c.refs.uploader, c.refs.jobs, c.refs.meter, c.refs.janitor, c.refs.exporters,
	} {
		to.Tell(&messages.SettingsChanged{})
	}
}
