package actors

import (
	"context"
	"errors"
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

// powerSampler reads one kind of power sensor in a loop of its own, 10 times a second
// while a job runs. It never gives up: without sensors it says so and looks again,
// after 1 s at first and 5 min at last.
type powerSampler struct {
	*env
	log      *zap.Logger
	name     string
	open     func() (PowerSensors, error)
	interval atomic.Int64
	wake     chan struct{}
	edges    chan uint64
	pacer    *messages.Pacer
	failures outage
}

func newPowerSampler(e *env, name string, open func() (PowerSensors, error)) *powerSampler {
	log := e.log.Named(name)
	s := &powerSampler{
		env: e, log: log, name: name, open: open,
		wake:     make(chan struct{}, 1),
		edges:    make(chan uint64, pendingEdges),
		pacer:    messages.NewProbePacer(),
		failures: outage{log: log, what: "reading power sensors"},
	}
	s.interval.Store(int64(e.settings.Load().IdleSampleInterval))
	return s
}

func (s *powerSampler) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		// The meter says the pace again: a fresh incarnation does not know it.
		s.refs.meter.Tell(&messages.SamplersStarted{})
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

func (s *powerSampler) start(ctx actor.Context) {
	supervision.Go(ctx, func(context.Context) (PowerSensors, error) {
		return s.open()
	}, func(ctx actor.Context, sensors PowerSensors, err error) {
		if err != nil {
			s.unavailable(ctx, err)
			return
		}
		s.failures.over()
		s.log.Info("reading power sensors", zap.String("source", sensors.Name()), zap.Int("zones", len(sensors.Zones())))
		if why := sensors.Because(); why != nil {
			s.log.Warn("no better power sensors are in use", zap.NamedError("reason", why))
		}
		s.post(messages.SamplerHealth{Source: sensors.Name(), Zones: len(sensors.Zones())})
		supervision.Go(ctx, func(work context.Context) (struct{}, error) {
			defer sensors.Close()
			return struct{}{}, s.loop(work, sensors)
		}, func(ctx actor.Context, _ struct{}, err error) {
			s.unavailable(ctx, err)
		})
	})
}

// unavailable says so and looks again later.
func (s *powerSampler) unavailable(ctx actor.Context, err error) {
	wait := s.pacer.Next(time.Now(), err)
	s.failures.failed(err, zap.Duration("next_try", wait))
	s.post(messages.SamplerHealth{Error: err.Error()})
	supervision.After(ctx, wait, s.start)
}

func (s *powerSampler) post(h messages.SamplerHealth) {
	h.Name, h.Since = s.name, time.Now()
	s.board.sampler.Store(&h)
	s.refs.meter.Tell(&h)
}

// loop reads at absolute times, so that a slow reading does not shift those after
// it, and in between when asked to. A time that has passed already is left out.
func (s *powerSampler) loop(ctx context.Context, sensors PowerSensors) error {
	next := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for dead := 0; dead < deadReadings; {
		var answers []uint64
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
			next = time.Now()
		case id := <-s.edges:
			answers = s.drainEdges(append(answers, id))
		case <-timer.C:
			next = nextTick(next, time.Now(), time.Duration(s.interval.Load()))
		}
		timer.Reset(time.Until(next))
		if s.read(sensors, answers) {
			dead = 0
			s.pacer.Reset()
		} else {
			dead++
		}
	}
	return errNoReadings
}

// nextTick is the first time after now that lies a whole number of intervals after last.
func nextTick(last, now time.Time, interval time.Duration) time.Time {
	missed := now.Sub(last) / interval
	return last.Add((missed + 1) * interval)
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

// read takes one sample and hands it to the meter; false when no zone could be read.
func (s *powerSampler) read(sensors PowerSensors, answers []uint64) bool {
	usage := map[string]time.Duration{}
	for _, run := range s.Runner.Runs() {
		if used, known := run.Usage(); known {
			lease := run.Lease()
			usage[lease.Key().String()] = used
		}
	}
	sample := energy.Sample{Sampler: s.name, At: time.Now(), Usage: usage}
	sample.Readings, sample.Faults = sensors.Read()
	s.refs.meter.Tell(&messages.Sampled{Sample: sample, Answers: answers})
	return len(sample.Readings) > 0
}
