package ffmpeg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/job"
)

// process is one of an attempt's processes.
type process struct {
	*proc.Child
	limit atomic.Pointer[job.Failure] // the limit that it was killed for
}

// enforce kills the process if it exceeded a limit.
func (p *process) enforce(exceeded *job.Failure) {
	if exceeded == nil {
		return
	}
	p.limit.CompareAndSwap(nil, exceeded)
	p.Signal(syscall.SIGKILL)
}

// command is a call of FFmpeg or ffprobe. Of the agent's environment it gets what
// loaders, GPU drivers and TLS need, and never a key or a relative path: the sandbox's helper has
// the same environment and directory, and would load libraries that FFmpeg left there. Its
// home is its working directory.
func command(path, dir string, args ...string) proc.Command {
	env := []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + dir, "TMPDIR=" + dir, "LANG=C", "LC_ALL=C"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "LIBVA_DRIVERS_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if paths := absolute(os.Getenv(name)); len(paths) > 0 {
			env = append(env, name+"="+strings.Join(paths, ":"))
		}
	}
	return proc.Command{Path: path, Args: args, Dir: dir, Env: env, PassEnv: passesEnv}
}

// passesEnv reports whether a variable of the agent's environment is passed on.
func passesEnv(name string) bool {
	switch name {
	case "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LIBVA_DRIVER_NAME", "GPU_DEVICE_ORDINAL":
		return true
	}
	if !strings.HasPrefix(name, "NVIDIA_") {
		return false
	}
	for _, word := range []string{"KEY", "TOKEN", "SECRET", "PASSWORD"} {
		if strings.Contains(name, word) {
			return false
		}
	}
	return true
}

// launch starts one of the attempt's processes within its limits, in a cgroup of its
// own below the attempt's. Where none can be created it starts without: the job is worth
// more than its limits, and a note says that they do not apply.
func (r *Run) launch(name string, c proc.Command) (*process, error) {
	c.Limits = r.limiter.process
	if name == encodeProcess {
		c.Limits.FileBytes = tighter(c.Limits.FileBytes, r.limiter.outputBytes)
	}
	group, err := r.limiter.cgroup.Child(name)
	if err == nil && group != nil {
		c.Cgroup = group
		var child *proc.Child
		if child, err = proc.Start(c); err == nil {
			return &process{Child: child}, nil
		}
		err = errors.Join(err, group.Remove())
	}
	if err != nil {
		r.log.Warn("could not start a process of the job in its cgroup", zap.String("process", name), zap.Error(err))
		r.note("%s ran outside the job's cgroup, which does not limit it: %v", name, err)
	}
	c.Cgroup = nil
	child, err := proc.Start(c)
	if err != nil {
		return nil, err
	}
	return &process{Child: child}, nil
}

// watchFiles checks the limits of what the attempt writes, and looks at its files, until the
// process or the context has ended; done is closed then. It does so beside what waits for the
// process, since a file system may not answer. While all do, this is the sign that the step goes on.
func (r *Run) watchFiles(ctx context.Context, p *process, every time.Duration, look func()) (done <-chan struct{}) {
	ended := make(chan struct{})
	r.working.Go(func() {
		defer close(ended)
		defer r.recovered("watching the files of a job", nil)
		next := time.Tick(every)
		var sizeCheck <-chan time.Time
		if r.limiter.checkDisk || r.limiter.outputBytes > 0 {
			sizeCheck = time.Tick(checkInterval)
		}
		spaceCheck := time.NewTimer(checkInterval)
		defer spaceCheck.Stop()
		for {
			select {
			case <-p.Done():
				return
			case <-ctx.Done():
				return
			case <-next:
				look()
				p.enforce(r.mediaExceeded())
			case <-sizeCheck:
				p.enforce(cmp.Or(r.diskExceeded(), r.outputBytesExceeded()))
			case <-spaceCheck.C:
				f, wait := r.diskGuarded()
				p.enforce(f)
				spaceCheck.Reset(wait)
			}
			r.patience.sign()
		}
	})
	return ended
}

// runHelper runs one of the attempt's processes beside the encode to its end, or kills it
// when the context is done. An exceeded limit is an error.
func (r *Run) runHelper(ctx context.Context, c proc.Command) (proc.Exit, error) {
	if err := ctx.Err(); err != nil {
		return proc.Exit{}, err
	}
	p, err := r.launch(fmt.Sprintf("helper-%d", r.helpers.Add(1)), c)
	if err != nil {
		return proc.Exit{}, err
	}
	defer func() { _ = p.Cgroup().Remove() }() // otherwise it goes with the attempt's
	watching, endWatching := context.WithCancel(ctx)
	watched := r.watchFiles(watching, p, newStallDetector(r.settings.StallTimeout, time.Now()).every, func() {})
	defer func() { endWatching(); <-watched }()
	check := r.limiter.processTimer()
	defer check.Stop()
	for {
		select {
		case <-p.Done():
			if f := r.limitFailure(p); f != nil {
				return p.Exit(), f
			}
			return p.Exit(), p.Exit().Err
		case <-ctx.Done():
			p.Signal(syscall.SIGKILL)
			return p.Exit(), ctx.Err()
		case <-check.C:
			f, wait := r.processExceeded(p)
			p.enforce(f)
			check.Reset(wait)
		}
	}
}
