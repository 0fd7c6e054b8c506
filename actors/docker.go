package actors

import (
	"context"
	"errors"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// containersInterval is how often containers are read: most scrapers come every 15 s.
const containersInterval = 10 * time.Second

// dockerSampler reads what the containers of the engine use, and posts it. It never gives up.
type dockerSampler struct {
	*shared
	log      *zap.Logger
	last     messages.Containers
	backoff  *callBackoff
	failures outage
}

func newDockerSampler(s *shared) *dockerSampler {
	log := s.log.Named("docker")
	return &dockerSampler{
		shared: s, log: log, backoff: probeBackoff(),
		failures: outage{log: log, failing: "could not read containers", over: "containers are readable again"},
	}
}

func (d *dockerSampler) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(*actor.Started); ok {
		d.read(ctx)
	}
}

func (d *dockerSampler) read(ctx actor.Context) {
	supervision.Go(ctx, func(work context.Context) ([]messages.Container, error) {
		return d.Containers.Read(work)
	}, func(ctx actor.Context, running []messages.Container, err error) {
		wait := containersInterval
		now := messages.Containers{At: time.Now(), Running: running}
		if err != nil {
			wait = d.backoff.next(now.At, err)
			d.failed(&now, err, wait)
		} else {
			d.backoff.reset()
			d.failures.recovered()
		}
		now.Since = d.last.Since
		if d.last.Since.IsZero() || now.Readable() != d.last.Readable() {
			now.Since = now.At
		}
		d.last = now
		d.snapshots.containers.Store(&now)
		supervision.After(ctx, wait, d.read)
	})
}

// failed logs an error once; a missing engine is logged as information, not as an error.
func (d *dockerSampler) failed(now *messages.Containers, err error, wait time.Duration) {
	if none := (*NoSensorsError)(nil); errors.As(err, &none) {
		if d.last.Absent == "" {
			d.log.Info("no containers are read", zap.NamedError("reason", err))
		}
		now.Absent = err.Error()
		return
	}
	now.Error = err.Error()
	d.failures.failed(err, zap.Duration("next_try", wait))
}
