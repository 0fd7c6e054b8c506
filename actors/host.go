package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// hostInterval is how often load, memory, disk and temperature are read.
const hostInterval = 5 * time.Second

// hostSampler reads the state of the machine and posts it.
type hostSampler struct {
	*shared
	failures outage
}

func newHostSampler(s *shared) *hostSampler {
	return &hostSampler{shared: s, failures: outage{log: s.log.Named("host"), failing: "could not read the state of the machine", over: "the state of the machine is readable again"}}
}

func (h *hostSampler) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(*actor.Started); ok {
		h.look(ctx)
	}
}

func (h *hostSampler) look(ctx actor.Context) {
	supervision.Go(ctx, h.Host.Look, func(ctx actor.Context, status messages.HostStatus, err error) {
		supervision.After(ctx, hostInterval, h.look)
		// An error about one figure leaves the others valid.
		if err != nil {
			h.failures.failed(err, zap.Duration("next_try", hostInterval))
		} else {
			h.failures.recovered()
		}
		h.snapshots.host.Store(&status)
		h.refs.janitor.Tell(&messages.HostStatusChanged{Status: status})
	})
}
