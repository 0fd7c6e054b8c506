package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	"ffmpeg-agent/actors/supervision"
)

// exporters supervises the metrics endpoints, one child a port.
type exporters struct{ *shared }

func newExporters(s *shared) *exporters { return &exporters{shared: s} }

func (x *exporters) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(*actor.Started); ok {
		for _, endpoint := range x.listen.Exporters {
			supervision.Child(ctx, supervision.Spec{
				Name: endpoint.Name(),
				New:  func() actor.Actor { return newListener(x.shared, endpoint) },
			})
		}
	}
}
