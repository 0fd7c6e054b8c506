package actors

import (
	"context"
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
)

// sweepInterval is how often the janitor looks for what nobody owns.
const sweepInterval = time.Hour

// The checks that must pass before work is asked for.
const (
	gateDisk    = "disk"
	gateFFmpeg  = "ffmpeg"
	gateJournal = "journal"
)

// janitor keeps the data directory clean and the poller's gates: it removes workspaces
// and temporary outputs that no run owns, and lets no work in while the disk is low, the
// journal cannot be written or FFmpeg is not to be had.
type janitor struct {
	*env
	log   *zap.Logger
	gates map[string]string // by name, what keeps work out; empty: nothing
	tries bool              // it is being tried, or will be, whether the journal can be written
}

func newJanitor(e *env) *janitor {
	return &janitor{env: e, log: e.log.Named("janitor"), gates: map[string]string{}}
}

func (j *janitor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		j.sweep(ctx)
		j.checkFFmpeg(ctx)
		// A look of before a restart is as good as a new one.
		if host := j.board.Host(); host != nil {
			j.guardDisk(host)
		}
		j.guardJournal(ctx)
	case *messages.HostLooked:
		j.guardDisk(&m.Status)
		j.guardJournal(ctx)
	case *messages.JournalFailed:
		j.guardJournal(ctx)
	case *messages.PollerStarted:
		for name, reason := range j.gates {
			j.refs.poller.Tell(&messages.Gate{Name: name, Reason: reason})
		}
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

// checkFFmpeg looks whether FFmpeg is there as often as the machine is looked at.
func (j *janitor) checkFFmpeg(ctx actor.Context) {
	supervision.Go(ctx, func(work context.Context) (struct{}, error) {
		return struct{}{}, j.Runner.Ready(work)
	}, func(ctx actor.Context, _ struct{}, err error) {
		reason := ""
		if err != nil {
			reason = err.Error()
		}
		j.gate(gateFFmpeg, reason)
		supervision.After(ctx, hostInterval, j.checkFFmpeg)
	})
}

// guardDisk judges the disk that the workspaces lie on. A disk of unknown state is
// no reason to stand idle.
func (j *janitor) guardDisk(h *messages.HostStatus) {
	reason := ""
	if h.DiskFreeBytes != nil && h.DiskTotalBytes != nil {
		if need := j.settings.Load().MinFreeDisk(*h.DiskTotalBytes); *h.DiskFreeBytes < need {
			reason = fmt.Sprintf("%.1f MiB free on the disk of data_dir, %.1f MiB needed (jobs.min_free_disk)", mib(*h.DiskFreeBytes), mib(need))
		}
	}
	j.gate(gateDisk, reason)
}

// guardJournal tries, after a write that failed, whether the journal can be written again.
// What could not be recorded is kept in memory meanwhile by whoever has it.
func (j *janitor) guardJournal(ctx actor.Context) {
	if j.tries {
		return
	}
	if j.Journal.Stats().Error == "" {
		j.gate(gateJournal, "")
		return
	}
	j.tries = true
	supervision.Go(ctx, func(context.Context) (struct{}, error) {
		return struct{}{}, j.Journal.Probe()
	}, func(ctx actor.Context, _ struct{}, err error) {
		reason := ""
		j.tries = err != nil
		if err != nil {
			supervision.After(ctx, diskRetry, func(ctx actor.Context) {
				j.tries = false
				j.guardJournal(ctx)
			})
			reason = "the journal cannot be written; results are kept in memory: " + err.Error()
		}
		j.gate(gateJournal, reason)
	})
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

func (j *janitor) gate(name, reason string) {
	j.gates[name] = reason
	j.refs.poller.Tell(&messages.Gate{Name: name, Reason: reason})
}
