package actors

import (
	"context"
	"errors"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// servedFor is how long an endpoint must have served to count as served.
const servedFor = 500 * time.Millisecond

var errStoppedServing = errors.New("stopped serving")

// listener serves one of the agent's own endpoints: a metrics port or the control socket.
// An address that cannot be listened on costs that endpoint and nothing else; it is
// retried with a backoff of 1 s to 5 min.
type listener struct {
	*shared
	endpoint Endpoint
	serving  *supervision.Task
	retry    *supervision.Timer
	served   *supervision.Timer // it counts as served then
	web      string             // Settings.WebConfig that it is served with
	backoff  *callBackoff
	failures outage
}

func newListener(s *shared, endpoint Endpoint) *listener {
	log := s.log.Named(endpoint.Name())
	return &listener{
		shared: s, endpoint: endpoint, backoff: probeBackoff(),
		failures: outage{log: log, failing: "could not serve " + endpoint.Name(), over: "serving " + endpoint.Name() + " again"},
	}
}

func (l *listener) Receive(ctx actor.Context) {
	switch ctx.Message().(type) {
	case *actor.Started:
		l.serve(ctx)
	case *messages.SettingsChanged:
		if l.web != l.settings().WebConfig {
			l.serving.Cancel()
			l.served.Stop()
			l.retry.Stop()
			l.serve(ctx)
		}
	}
}

func (l *listener) serve(ctx actor.Context) {
	begun := time.Now()
	l.web = l.settings().WebConfig
	l.served = supervision.After(ctx, servedFor, func(actor.Context) {
		l.snapshots.listeners.Store(l.endpoint.Name(), "")
		l.failures.recovered()
	})
	l.serving = supervision.Go(ctx, func(work context.Context) (struct{}, error) {
		return struct{}{}, l.endpoint.Serve(work)
	}, func(ctx actor.Context, _ struct{}, err error) {
		l.served.Stop()
		if err == nil {
			err = errStoppedServing
		}
		l.snapshots.listeners.Store(l.endpoint.Name(), err.Error())
		// After long service the failure is a new one.
		if time.Since(begun) > time.Minute {
			l.backoff.reset()
		}
		wait := l.backoff.next(time.Now(), err)
		l.failures.failed(err, zap.Duration("next_try", wait))
		l.retry = supervision.After(ctx, wait, l.serve)
	})
}
