package actors

import (
	"slices"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
)

// nvmlKind are the sensors of NVIDIA cards.
func (s *shared) nvmlKind() sensorKind {
	return sensorKind{name: "nvml", open: func() (PowerSensors, error) { return s.OpenGPUs() }, attribute: s.attributeGPUs, reconnects: true}
}

// attributeGPUs attributes the energy of each card by the use of its multiprocessors,
// encoder and decoder, and posts the cards.
func (s *shared) attributeGPUs(sensors PowerSensors, readings []energy.Reading) {
	gpus, ok := sensors.(GPUSensors)
	if !ok {
		return
	}
	cards := gpus.Cards()
	before := s.snapshots.GPUs()
	s.snapshots.gpus.Store(&cards)
	for i := range readings {
		for _, card := range cards {
			if card.UUID == readings[i].Zone.ID && card.Processes != nil && !known(before, card) {
				readings[i].Usage = s.useOf(card, card.ProcessesAt)
			}
		}
	}
}

// known reports whether a card's use by process is not newer than before: NVML renews it
// less often than the card is read.
func known(before []energy.GPU, card energy.GPU) bool {
	return slices.ContainsFunc(before, func(b energy.GPU) bool {
		return b.UUID == card.UUID && b.ProcessesAt.Equal(card.ProcessesAt)
	})
}

// useOf is the use of a card by job. A job that the card does not list has not used it.
func (s *shared) useOf(card energy.GPU, at time.Time) *energy.Usage {
	use := &energy.Usage{Method: "gpu use", Jobs: map[string]time.Duration{}, Capacity: at.Sub(s.started)}
	for _, process := range card.Processes {
		use.Busy += process.Total()
	}
	for _, a := range s.attempts.list() {
		state := a.run.Snapshot()
		if state.Process != nil {
			use.Jobs[a.key.String()] = card.Processes[state.Process.PID].Total()
		} else if state.Phase() == job.PhaseFetch {
			use.Jobs[a.key.String()] = 0
		}
	}
	return use
}
