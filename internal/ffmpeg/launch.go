package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"go.uber.org/zap"

	"ffmpeg-agent/hardware/proc"
)

// launch starts one of the attempt's processes within its limits, in a cgroup of its
// own below the attempt's. Where none can be made it starts without: the job is worth
// more than its limits, and a note says that they do not hold.
func (r *Run) launch(name string, c proc.Command) (*process, error) {
	c.Limits = r.confined.bounds
	group, err := r.confined.group.Child(name)
	if err == nil && group != nil {
		c.Cgroup = group
		var child *proc.Child
		if child, err = proc.Start(c); err == nil {
			return &process{Child: child}, nil
		}
		err = errors.Join(err, group.Remove())
	}
	if err != nil {
		r.log.Warn("could not make a cgroup for a process of the job", zap.String("process", name), zap.Error(err))
		r.note("%s ran outside the job's cgroup, which does not limit it: %v", name, err)
	}
	c.Cgroup = nil
	child, err := proc.Start(c)
	if err != nil {
		return nil, err
	}
	return &process{Child: child}, nil
}

// finish runs one of the attempt's commands beside the encode to its end, or kills it
// when the context is done. An exceeded limit is an error.
func (r *Run) finish(ctx context.Context, c proc.Command) (proc.Exit, error) {
	if err := ctx.Err(); err != nil {
		return proc.Exit{}, err
	}
	p, err := r.launch(fmt.Sprintf("helper-%d", r.helpers.Add(1)), c)
	if err != nil {
		return proc.Exit{}, err
	}
	defer func() { _ = p.Cgroup().Remove() }() // or it goes with the attempt's
	look, stop := r.confined.look()
	defer stop()
	for {
		select {
		case <-p.Done():
			if f := r.overrun(p); f != nil {
				return p.Exit(), f
			}
			return p.Exit(), p.Exit().Err
		case <-ctx.Done():
			p.Signal(syscall.SIGKILL)
			return p.Exit(), ctx.Err()
		case <-look:
			if f := r.exceeded(p); f != nil {
				p.killForLimit(f)
			}
		}
	}
}
