package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// exporters supervises the metrics endpoints, one child a port.
type exporters struct {
	*shared
	endpoints []*supervision.Ref
}

func newExporters(s *shared) *exporters { return &exporters{shared: s} }

func (x *exporters) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		for _, endpoint := range x.listen.Exporters {
			x.endpoints = append(x.endpoints, supervision.Child(ctx, supervision.Spec{
				Name: endpoint.Name(),
				New:  func() actor.Actor { return newListener(x.shared, endpoint) },
			}))
		}
	case *messages.SettingsChanged:
		for _, endpoint := range x.endpoints {
			endpoint.Tell(m)
		}
	}
}
