package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// samplers supervises whoever reads sensors, and passes on what the meter asks.
type samplers struct {
	*env
	power *supervision.Ref
}

func newSamplers(e *env) *samplers { return &samplers{env: e} }

func (s *samplers) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		s.power = supervision.Child(ctx, supervision.Spec{
			Name: "rapl",
			New:  func() actor.Actor { return newPowerSampler(s.env, "rapl", s.OpenPower) },
		})
		supervision.Child(ctx, supervision.Spec{
			Name: "host",
			New:  func() actor.Actor { return newHostSampler(s.env) },
		})
		s.refs.meter.Tell(&messages.SamplersStarted{})
	case *messages.SampleEvery, *messages.TakeReading:
		s.power.Tell(m)
	}
}
