package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// samplers supervises the samplers, and passes the meter's requests on to them.
type samplers struct {
	*shared
	power []*supervision.Ref
}

func newSamplers(s *shared) *samplers { return &samplers{shared: s} }

func (s *samplers) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		for _, kind := range s.kinds() {
			s.power = append(s.power, supervision.Child(ctx, supervision.Spec{
				Name: kind.name,
				New:  func() actor.Actor { return newPowerSampler(s.shared, kind) },
			}))
		}
		supervision.Child(ctx, supervision.Spec{
			Name: "host",
			New:  func() actor.Actor { return newHostSampler(s.shared) },
		})
		if s.Containers != nil {
			supervision.Child(ctx, supervision.Spec{
				Name: "docker",
				New:  func() actor.Actor { return newDockerSampler(s.shared) },
			})
		}
		s.refs.meter.Tell(&messages.SendState{})
	case *messages.SampleEvery, *messages.TakeReading:
		for _, power := range s.power {
			power.Tell(m)
		}
	}
}

// kinds are the kinds of power sensors to open.
func (s *samplers) kinds() []sensorKind {
	if s.OpenGPUs == nil {
		return []sensorKind{s.raplKind()}
	}
	return []sensorKind{s.raplKind(), s.nvmlKind()}
}
