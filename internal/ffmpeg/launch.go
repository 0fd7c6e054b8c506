package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"go.uber.org/zap"
)

// launch starts one of the attempt's processes within its limits, in a cgroup of its
// own below the attempt's. Where none can be made it starts without: the job is worth
// more than its limits, and a note says that they do not hold.
func (r *Run) launch(name string, c command) (*process, error) {
	c.bounds = r.confined.bounds
	group, err := r.confined.group.child(name)
	if err == nil && group != nil {
		c.cgroup = group
		var proc *process
		if proc, err = start(c, r.runner.bootID); err == nil {
			return proc, nil
		}
		err = errors.Join(err, group.remove())
	}
	if err != nil {
		r.log.Warn("could not make a cgroup for a process of the job", zap.String("process", name), zap.Error(err))
		r.note("%s ran outside the job's cgroup, which does not limit it: %v", name, err)
	}
	c.cgroup = nil
	return start(c, r.runner.bootID)
}

// finish runs one of the attempt's commands beside the encode to its end, or kills it
// when the context is done. An exceeded limit is an error.
func (r *Run) finish(ctx context.Context, c command) (exitStatus, error) {
	if err := ctx.Err(); err != nil {
		return exitStatus{}, err
	}
	p, err := r.launch(fmt.Sprintf("helper-%d", r.helpers.Add(1)), c)
	if err != nil {
		return exitStatus{}, err
	}
	defer func() { _ = p.cgroup.remove() }() // or it goes with the attempt's
	look, stop := r.confined.look()
	defer stop()
	for {
		select {
		case <-p.done:
			if f := r.overrun(p); f != nil {
				return p.exit, f
			}
			return p.exit, p.exit.err
		case <-ctx.Done():
			p.signal(syscall.SIGKILL)
			<-p.done
			return p.exit, ctx.Err()
		case <-look:
			if f := r.exceeded(p); f != nil {
				p.exceed(f)
			}
		}
	}
}
