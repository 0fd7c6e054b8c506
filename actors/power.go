package actors

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
)

const (
	// deadReadings is how many readings in a row may bring nothing before the sensors
	// are opened anew.
	deadReadings = 10
	// pendingEdges bounds the extra readings that wait for the reading loop.
	pendingEdges = 256
)

var errNoReadings = errors.New("the sensors no longer give readings")

// cpuUseInterval is how often at most it is told who uses the processors while nothing begins
// or ends and there is one job at most: the kernel counts everybody's use in steps of 10 ms, of
// which few lie in a shorter time.
const cpuUseInterval = 400 * time.Millisecond

// powerKind is one kind of power sensors.
type powerKind struct {
	name string
	open func() (PowerSensors, error)
	// attribute adds to readings just made who has used what their zones power.
	attribute func(PowerSensors, []energy.Reading)
	// attributeEvery is the least time between such, but for readings that are asked for; nil: none.
	attributeEvery func() time.Duration
	// heals: sensors that bring nothing come back by themselves; others are opened anew.
	heals bool
}

// powerSampler reads one kind of power sensor in a loop of its own, 10 times a second
// while a job runs. It never gives up: without sensors it says so and looks again,
// after 1 s at first and 5 min at last.
type powerSampler struct {
	*env
	log      *zap.Logger
	kind     powerKind
	interval atomic.Int64
	wake     chan struct{}
	edges    chan uint64
	pacer    *Pacer
	failures outage
	absent   bool      // it was said that there are no sensors of the kind
	usedAt   time.Time // when it was told last who uses what the zones power
}

func newPowerSampler(e *env, kind powerKind) *powerSampler {
	log := e.log.Named(kind.name)
	s := &powerSampler{
		env: e, log: log, kind: kind,
		wake:     make(chan struct{}, 1),
		edges:    make(chan uint64, pendingEdges),
		pacer:    NewProbePacer(),
		failures: outage{log: log, failing: "could not read power sensors", over: "power sensors are read again"},
	}
	s.interval.Store(int64(e.settings.Load().IdleSampleInterval))
	return s
}

func (s *powerSampler) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		s.refs.meter.Tell(&messages.SendState{})
		s.start(ctx)
	case *messages.SampleEvery:
		if s.interval.Swap(int64(m.Interval)) != int64(m.Interval) {
			select {
			case s.wake <- struct{}{}:
			default:
			}
		}
	case *messages.TakeReading:
		select {
		case s.edges <- m.ID:
		default:
		}
	}
}

// start opens the sensors and reads them on one goroutine, which closes them too,
// whatever becomes of the actor meanwhile.
func (s *powerSampler) start(ctx actor.Context) {
	post := supervision.Poster(ctx)
	supervision.Go(ctx, func(work context.Context) (struct{}, error) {
		sensors, err := s.kind.open()
		if err != nil {
			return struct{}{}, err
		}
		defer sensors.Close()
		if err := work.Err(); err != nil {
			return struct{}{}, err
		}
		health, limited := healthOf(sensors), sensors.Because()
		post(func(actor.Context) { s.opened(health, limited) })
		return struct{}{}, s.loop(work, sensors)
	}, func(ctx actor.Context, _ struct{}, err error) {
		s.unavailable(ctx, err)
	})
}

func (s *powerSampler) opened(health messages.SamplerHealth, limited error) {
	s.failures.recovered()
	s.absent = false
	s.log.Info("reading power sensors", zap.String("source", health.Source), zap.Int("zones", health.Zones))
	if limited != nil {
		s.log.Warn("better power sensors are not available", zap.NamedError("reason", limited))
	}
	s.post(health)
}

func healthOf(sensors PowerSensors) messages.SamplerHealth {
	zones := sensors.Zones()
	return messages.SamplerHealth{Source: sensors.Name(), Zones: len(zones), Have: zones}
}

// unavailable says so and looks again later.
func (s *powerSampler) unavailable(ctx actor.Context, err error) {
	wait := s.pacer.Next(time.Now(), err)
	health := messages.SamplerHealth{Error: err.Error()}
	if errors.Is(err, ErrNoSensors) {
		if !s.absent {
			s.log.Info("power sensors not available on this machine", zap.Error(err))
		}
		s.absent = true
		health = messages.SamplerHealth{Absent: err.Error()}
	} else {
		s.failures.failed(err, zap.Duration("next_try", wait))
	}
	s.post(health)
	supervision.After(ctx, wait, s.start)
}

func (s *powerSampler) post(h messages.SamplerHealth) {
	h.Name, h.Since = s.kind.name, time.Now()
	s.board.samplers.Store(h.Name, h)
	s.refs.meter.Tell(&h)
}

// loop reads at absolute times, the same for all kinds so that they wake the machine
// together, and in between when asked to. A slow reading does not shift those after it; a
// time that has passed already is left out.
func (s *powerSampler) loop(ctx context.Context, sensors PowerSensors) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for dead := 0; ; {
		var answers []uint64
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case id := <-s.edges:
			answers = s.drainEdges(append(answers, id))
		case <-timer.C:
		}
		now := time.Now()
		timer.Reset(nextTick(s.started, now, min(longestInterval(sensors.Zones()), time.Duration(s.interval.Load()))).Sub(now))
		why, ok := s.read(sensors, answers)
		switch {
		case ok && dead >= deadReadings:
			s.log.Info("power sensors give readings again")
			s.post(healthOf(sensors))
			fallthrough
		case ok:
			dead = 0
			s.pacer.Reset()
			continue
		}
		if dead++; dead == deadReadings {
			if !s.kind.heals {
				return errNoReadings
			}
			s.log.Warn(errNoReadings.Error(), zap.String("reason", why))
			s.post(messages.SamplerHealth{Error: why})
		}
	}
}

// shortestInterval bounds how often sensors are read, however small their counters.
const shortestInterval = 5 * time.Millisecond

// longestInterval between readings in which no counter comes near a whole turn.
func longestInterval(zones []*energy.Zone) time.Duration {
	longest := time.Duration(math.MaxInt64)
	for _, z := range zones {
		if limit := z.MaxInterval(); limit > 0 {
			longest = min(longest, max(limit, shortestInterval))
		}
	}
	return longest
}

// nextTick is the first time after now that lies a whole number of intervals after start.
func nextTick(start, now time.Time, interval time.Duration) time.Time {
	passed := now.Sub(start) / interval
	return start.Add((passed + 1) * interval)
}

func (s *powerSampler) drainEdges(ids []uint64) []uint64 {
	for {
		select {
		case id := <-s.edges:
			ids = append(ids, id)
		default:
			return ids
		}
	}
}

// read takes one sample and hands it to the meter; false, with a reason, when there are
// zones and none could be read.
func (s *powerSampler) read(sensors PowerSensors, answers []uint64) (why string, ok bool) {
	sample := energy.Sample{Sampler: s.kind.name, At: time.Now()}
	sample.Readings, sample.Faults = sensors.Read()
	if len(answers) > 0 || s.kind.attributeEvery == nil || sample.At.Sub(s.usedAt) >= s.kind.attributeEvery() {
		s.usedAt = sample.At
		s.kind.attribute(sensors, sample.Readings)
	}
	s.refs.meter.Tell(&messages.Sampled{Sample: sample, Answers: answers})
	if len(sample.Readings) == 0 && len(sample.Faults) > 0 {
		why = sample.Faults[0].Err
	}
	return why, len(sample.Readings) > 0 || len(sensors.Zones()) == 0
}

// cpuUseEvery is how often it has to be told who uses the processors: with each reading where
// jobs divide what is used, for they do not use the same part of it all the time.
func (e *env) cpuUseEvery() time.Duration {
	if len(e.attempts.list()) > 1 {
		return 0
	}
	return cpuUseInterval
}

// attributeCPU tells who used the processors, by CPU time.
func (e *env) attributeCPU(_ PowerSensors, readings []energy.Reading) {
	use := &energy.Usage{Method: "cpu time", Jobs: map[string]time.Duration{}}
	for _, a := range e.attempts.list() {
		if used, known := a.run.CPUTime(); known {
			use.Jobs[a.key.String()] = used
		}
	}
	if e.CPUUse != nil {
		if busy, capacity, err := e.CPUUse(); err == nil {
			use.Busy, use.Capacity = busy, capacity
		}
	}
	for i := range readings {
		readings[i].Usage = use
	}
}

// attributeGPUs tells who used each card, by what its multiprocessors, encoder and
// decoder did for whom, and posts the cards.
func (e *env) attributeGPUs(sensors PowerSensors, readings []energy.Reading) {
	gpus, ok := sensors.(GPUSensors)
	if !ok {
		return
	}
	cards := gpus.Cards()
	before := e.board.GPUs()
	e.board.gpus.Store(&cards)
	for i := range readings {
		for _, card := range cards {
			if card.UUID == readings[i].Zone.ID && card.Processes != nil && !told(before, card) {
				readings[i].Usage = e.useOf(card, card.ProcessesAt)
			}
		}
	}
}

// told reports whether a card's processes were known already: they are told seldomer
// than the card is read.
func told(before []energy.GPU, card energy.GPU) bool {
	return slices.ContainsFunc(before, func(b energy.GPU) bool {
		return b.UUID == card.UUID && b.ProcessesAt.Equal(card.ProcessesAt)
	})
}

// useOf says who used a card. A job that the card does not know has not used it.
func (e *env) useOf(card energy.GPU, at time.Time) *energy.Usage {
	use := &energy.Usage{Method: "gpu use", Jobs: map[string]time.Duration{}, Capacity: at.Sub(e.started)}
	for _, process := range card.Processes {
		use.Busy += process.Total()
	}
	for _, a := range e.attempts.list() {
		if process := a.run.Snapshot().Process; process != nil {
			use.Jobs[a.key.String()] = card.Processes[process.PID].Total()
		}
	}
	return use
}
