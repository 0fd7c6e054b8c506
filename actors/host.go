package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// hostInterval is how often the machine's load, memory, disk and heat are looked at.
const hostInterval = 5 * time.Second

// hostSampler looks at the machine and posts what it saw.
type hostSampler struct {
	*env
	failures outage
}

func newHostSampler(e *env) *hostSampler {
	return &hostSampler{env: e, failures: outage{log: e.log.Named("host"), what: "looking at the machine"}}
}

func (h *hostSampler) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(*actor.Started); ok {
		h.look(ctx)
	}
}

func (h *hostSampler) look(ctx actor.Context) {
	supervision.Go(ctx, h.Host.Look, func(ctx actor.Context, status messages.HostStatus, err error) {
		supervision.After(ctx, hostInterval, h.look)
		// What could be seen is good beside an error about the rest.
		if err != nil {
			h.failures.failed(err, zap.Duration("next_try", hostInterval))
		} else {
			h.failures.over()
		}
		h.board.host.Store(&status)
		h.refs.janitor.Tell(&messages.HostLooked{Status: status})
	})
}
