package actors

import (
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// sweepInterval is how often the janitor looks for what nobody owns.
const sweepInterval = time.Hour

// janitor keeps the data directory clean and guards its disk: it removes workspaces
// and temporary outputs that no run owns, and closes the poller's gate when the
// disk is low.
type janitor struct {
	*env
	log    *zap.Logger
	looked bool
	disk   string // why the disk is no place for work; empty: it is
}

func newJanitor(e *env) *janitor { return &janitor{env: e, log: e.log.Named("janitor")} }

func (j *janitor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		j.sweep(ctx)
		// A look of before the restart is as good as a new one.
		if host := j.board.Host(); host != nil {
			j.guardDisk(host)
		}
	case *messages.HostLooked:
		j.guardDisk(&m.Status)
	case *messages.PollerStarted:
		j.postGate()
	}
}

func (j *janitor) sweep(ctx actor.Context) {
	supervision.Go(ctx, j.Janitor.Sweep, func(ctx actor.Context, removed int, err error) {
		if removed > 0 {
			j.log.Info("removed what earlier jobs left behind", zap.Int("removed", removed))
		}
		if err != nil {
			j.log.Warn("removing what earlier jobs left behind failed", zap.Error(err))
		}
		supervision.After(ctx, sweepInterval, j.sweep)
	})
}

// guardDisk judges the disk that the workspaces lie on. A disk of unknown state is
// no reason to stand idle.
func (j *janitor) guardDisk(h *messages.HostStatus) {
	j.looked, j.disk = true, ""
	if h.DiskFreeBytes != nil && h.DiskTotalBytes != nil {
		if need := j.settings.Load().MinFreeDisk(*h.DiskTotalBytes); *h.DiskFreeBytes < need {
			j.disk = fmt.Sprintf("less than %d MiB free on the disk of data_dir (jobs.min_free_disk)", need>>20)
		}
	}
	j.postGate()
}

func (j *janitor) postGate() {
	if j.looked {
		j.refs.poller.Tell(&messages.Gate{Name: gateDisk, Reason: j.disk})
	}
}
