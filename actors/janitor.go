package actors

import (
	"context"
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/zap"

	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// sweepInterval is how often workspaces and temporary outputs without an owner are removed.
const sweepInterval = time.Hour

// The gates: checks that must pass before the agent polls for jobs.
const (
	gateDisk    = "disk"
	gateFFmpeg  = "ffmpeg"
	gateJournal = "journal"
)

// janitor removes workspaces and temporary outputs that no run owns, and keeps the poller
// from taking jobs while the disk is low, the journal cannot be written or FFmpeg is
// missing.
type janitor struct {
	*shared
	log     *zap.Logger
	gates   map[string]string // by name, why no jobs are taken; empty: the check passes
	probing bool              // the journal is being probed, or will be
}

func newJanitor(s *shared) *janitor {
	return &janitor{shared: s, log: s.log.Named("janitor"), gates: map[string]string{}}
}

func (j *janitor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		j.sweep(ctx)
		j.checkFFmpeg(ctx)
		if host := j.snapshots.Host(); host != nil {
			j.guardDisk(host)
		}
		j.guardJournal(ctx)
	case *messages.HostStatusChanged:
		j.guardDisk(&m.Status)
		j.guardJournal(ctx)
	case *messages.SettingsChanged:
		if host := j.snapshots.Host(); host != nil {
			j.guardDisk(host)
		}
	case *messages.JournalFailed:
		j.guardJournal(ctx)
	case *messages.SendState:
		for name, reason := range j.gates {
			j.refs.poller.Tell(&messages.Gate{Name: name, Reason: reason})
		}
	}
}

func (j *janitor) sweep(ctx actor.Context) {
	supervision.Go(ctx, j.Janitor.Sweep, func(ctx actor.Context, removed int, err error) {
		if removed > 0 {
			j.log.Info("removed files left by earlier jobs", zap.Int("removed", removed))
		}
		if err != nil {
			j.log.Warn("could not remove files left by earlier jobs", zap.Error(err))
		}
		supervision.After(ctx, sweepInterval, j.sweep)
	})
}

// checkFFmpeg checks that FFmpeg can be run.
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

// guardDisk checks the free space and the free inodes where the workspaces are. Unknown ones are no
// reason to stay idle.
func (j *janitor) guardDisk(h *messages.HostStatus) {
	reason := ""
	if h.DiskFreeBytes != nil && h.DiskTotalBytes != nil {
		need := j.settings().MinFreeDisk(*h.DiskTotalBytes)
		switch {
		case *h.DiskFreeBytes < need:
			reason = fmt.Sprintf("%.1f MiB free on the disk of data_dir, %.1f MiB needed (jobs.min_free_disk)", mib(*h.DiskFreeBytes), mib(need))
		case need > 0 && h.InodesFree != nil && h.InodesTotal != nil:
			if need := job.InodesToStart(*h.InodesTotal); *h.InodesFree < need {
				reason = fmt.Sprintf("%d inodes free on the disk of data_dir, %d needed (none where jobs.min_free_disk is 0)", *h.InodesFree, need)
			}
		}
	}
	j.gate(gateDisk, reason)
}

// maxUnsent is how many results may wait in the journal before no more jobs are taken: none is ever
// dropped, so a master that gives jobs and takes no results would fill the disk.
const maxUnsent = 1000

// guardJournal probes the journal after a failed write. What could not be recorded stays in
// memory with the attempt that has it, which retries.
func (j *janitor) guardJournal(ctx actor.Context) {
	if j.probing {
		return
	}
	if stats := j.Journal.Stats(); stats.Error == "" {
		reason := ""
		if stats.Unsent >= maxUnsent {
			reason = fmt.Sprintf("%d results are not delivered; the agent takes jobs again below %d", stats.Unsent, maxUnsent)
		}
		j.gate(gateJournal, reason)
		return
	}
	j.probing = true
	supervision.Go(ctx, func(context.Context) (struct{}, error) {
		return struct{}{}, j.Journal.Probe()
	}, func(ctx actor.Context, _ struct{}, err error) {
		reason := ""
		j.probing = err != nil
		if err != nil {
			supervision.After(ctx, diskRetry, func(ctx actor.Context) {
				j.probing = false
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
