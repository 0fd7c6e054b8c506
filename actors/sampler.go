package actors

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages"
)

const (
	// maxFailedReadings is the number of failed readings in a row after which sensors count
	// as unavailable.
	maxFailedReadings = 10
	// maxExtraReadings bounds the extra readings that wait for the reading loop.
	maxExtraReadings = 256
	// minSampleInterval bounds how often sensors are read, however small their counters.
	minSampleInterval = 5 * time.Millisecond
)

var errNoReadings = errors.New("the power sensors stopped giving readings")

// sensorKind is one kind of power sensors.
type sensorKind struct {
	name string
	open func() (PowerSensors, error)
	// attribute adds the use by each job to new readings.
	attribute func(PowerSensors, []energy.Reading)
	// attributionInterval is the minimum interval between attributions, except for extra
	// readings; nil: every reading.
	attributionInterval func() time.Duration
	// reconnects: sensors that stop giving readings recover by themselves. Others are opened
	// anew.
	reconnects bool
}

// powerSampler reads one kind of power sensors in a loop. It never gives up: sensors that
// are unavailable are opened again with a backoff of 1 s to 5 min.
type powerSampler struct {
	*shared
	log      *zap.Logger
	kind     sensorKind
	interval atomic.Int64  // between readings, ns
	wake     chan struct{} // the interval has changed
	extra    chan uint64   // IDs of extra readings
	backoff  *callBackoff
	failures outage
	absent   bool // logged that the machine has no sensors of the kind

	attributedAt time.Time // owned by the reading loop
}

func newPowerSampler(s *shared, kind sensorKind) *powerSampler {
	log := s.log.Named(kind.name)
	p := &powerSampler{
		shared: s, log: log, kind: kind,
		wake:     make(chan struct{}, 1),
		extra:    make(chan uint64, maxExtraReadings),
		backoff:  probeBackoff(),
		failures: outage{log: log, failing: "could not read power sensors", over: "power sensors are readable again"},
	}
	p.interval.Store(int64(s.settings().IdleSampleInterval))
	return p
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
		case s.extra <- m.ID:
		default:
		}
	}
}

// start opens the sensors and reads them on one goroutine, which closes them too,
// even if the actor restarts in the meantime.
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
		health, limited := healthOf(sensors), sensors.FallbackReason()
		s.post(health) // the meter needs the zones before it gets readings of them
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
}

func healthOf(sensors PowerSensors) messages.SamplerHealth {
	zones := sensors.Zones()
	return messages.SamplerHealth{Source: sensors.Name(), Zones: len(zones), Have: zones}
}

// unavailable posts why, and opens the sensors again later.
func (s *powerSampler) unavailable(ctx actor.Context, err error) {
	wait := s.backoff.next(time.Now(), err)
	health := messages.SamplerHealth{Error: err.Error()}
	if none := (*NoSensorsError)(nil); errors.As(err, &none) {
		if !s.absent {
			s.log.Info("no power sensors of this kind", zap.NamedError("reason", err))
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
	s.snapshots.samplers.Store(h.Name, h)
	s.refs.meter.Tell(&h)
}

// loop reads the sensors at the multiples of the interval since the agent's start, so that
// all samplers wake the machine together, at extra readings, and when the interval changes. A slow
// reading does not shift those after it; one whose time has passed is left out.
func (s *powerSampler) loop(ctx context.Context, sensors PowerSensors) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for failed := 0; ; {
		var answers []uint64
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case id := <-s.extra:
			answers = s.drainExtra(append(answers, id))
		case <-timer.C:
		}
		now := time.Now()
		timer.Reset(nextTick(s.started, now, min(maxInterval(sensors.Zones()), time.Duration(s.interval.Load()))).Sub(now))
		why, ok := s.read(sensors, answers)
		if ok {
			if failed >= maxFailedReadings {
				s.log.Info("power sensors are readable again")
				s.post(healthOf(sensors))
			}
			failed = 0
			s.backoff.reset()
			continue
		}
		if failed++; failed == maxFailedReadings {
			if !s.kind.reconnects {
				return errNoReadings
			}
			s.log.Warn(errNoReadings.Error(), zap.String("reason", why))
			s.post(messages.SamplerHealth{Error: why})
		}
	}
}

// maxInterval is the longest interval in which no counter can wrap unnoticed.
func maxInterval(zones []*energy.Zone) time.Duration {
	longest := time.Duration(math.MaxInt64)
	for _, z := range zones {
		if limit := z.MaxInterval(); limit > 0 {
			longest = min(longest, max(limit, minSampleInterval))
		}
	}
	return longest
}

// nextTick is the first multiple of the interval since start that is after now.
func nextTick(start, now time.Time, interval time.Duration) time.Time {
	passed := now.Sub(start) / interval
	return start.Add((passed + 1) * interval)
}

func (s *powerSampler) drainExtra(ids []uint64) []uint64 {
	for {
		select {
		case id := <-s.extra:
			ids = append(ids, id)
		default:
			return ids
		}
	}
}

// read takes one sample and sends it to the meter; false, with the reason, when there are
// zones and none could be read.
func (s *powerSampler) read(sensors PowerSensors, answers []uint64) (why string, ok bool) {
	sample := energy.Sample{Sampler: s.kind.name, At: time.Now()}
	sample.Readings, sample.Faults = sensors.Read()
	if len(answers) > 0 || s.kind.attributionInterval == nil || sample.At.Sub(s.attributedAt) >= s.kind.attributionInterval() {
		s.attributedAt = sample.At
		s.kind.attribute(sensors, sample.Readings)
	}
	s.refs.meter.Tell(&messages.Sampled{Sample: sample, Answers: answers})
	if len(sample.Readings) == 0 && len(sample.Faults) > 0 {
		why = sample.Faults[0].Err
	}
	return why, len(sample.Readings) > 0 || len(sensors.Zones()) == 0
}
