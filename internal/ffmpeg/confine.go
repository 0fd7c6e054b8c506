package ffmpeg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// lookEvery is how often an attempt is looked at for what the kernel does not bound:
// the sum of its files, and its memory where there is no controller.
const lookEvery = 100 * time.Millisecond

// confinement is how an attempt is held within its limits: by its cgroup where the
// controllers are there, else by what its processes are given, and by looking.
type confinement struct {
	group       *proc.Cgroup // nil: none
	none        string       // why there is none
	bounds      proc.Limits  // of each process
	watchMemory bool
	watchDisk   bool
	notes       []string
}

func (c *confinement) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// set writes one of the limits of the attempt's cgroup.
func (c *confinement) set(controller, file, value string) error {
	if c.group == nil {
		return fmt.Errorf("no cgroup (%s)", c.none)
	}
	return c.group.Set(controller, file, value)
}

// setMemory bounds the attempt's memory, swap included, and has the kernel end all of the
// attempt when one process meets the bound.
func (c *confinement) setMemory(bytes int64) error {
	err := c.set("memory", "memory.max", strconv.FormatInt(bytes, 10))
	if err == nil {
		err = c.set("memory", "memory.oom.group", "1")
	}
	if err == nil {
		if err = c.set("memory", "memory.swap.max", "0"); errors.Is(err, fs.ErrNotExist) {
			err = nil // a kernel without swap has no such file
		}
	}
	return err
}

// confine makes the attempt's cgroup, sets its limits, and notes how they are kept.
func (r *Run) confine() {
	c := confinement{none: r.runner.cgroups.Unavailable, bounds: proc.Limits{Nice: r.settings.Nice}}
	var err error
	if c.group, err = r.runner.cgroups.Create(r.name); err != nil {
		c.none = err.Error()
		r.log.Warn("the job gets no cgroup of its own", zap.Error(err))
	}
	_ = c.set("pids", "pids.max", strconv.Itoa(mostTasks())) // a guard that nobody asked for
	l := r.plan.limits
	if l.cpu.limited() {
		c.limitCPU(l.cpu, r.runner.nextCPUs)
	}
	if l.weight > 0 {
		c.weigh(l.weight)
	}
	if l.memory > 0 {
		c.limitMemory(l.memory)
	}
	for _, line := range l.io {
		c.limitIO(line)
	}
	if l.disk > 0 {
		c.limitDisk(l.disk)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.confined = c
	r.encode.Notes = append(r.encode.Notes, c.notes...)
}

// limitCPU sets a quota, else whole CPUs to run on: FFmpeg starts as many threads as
// it may use CPUs.
func (c *confinement) limitCPU(q cpuQuota, place func(cpus int) int) {
	percent := strconv.FormatFloat(q.percent(), 'f', -1, 64)
	err := c.set("cpu", "cpu.max", q.String())
	switch {
	case err == nil:
		c.note("CPU limited to %s %% by cpu.max %s", percent, q)
	case !proc.LimitsSupported:
		c.note("the limit of %s %% CPU is not enforced: %v", percent, err)
	default:
		c.bounds.CPUs = q.whole()
		c.bounds.FirstCPU = place(c.bounds.CPUs)
		c.note("CPU limited to %s %%, rounded up to whole CPUs (%d) by affinity: %v", percent, c.bounds.CPUs, err)
	}
}

// weigh sets a weight, else the nice value that comes to the same.
func (c *confinement) weigh(weight int64) {
	err := c.set("cpu", "cpu.weight", strconv.FormatInt(weight, 10))
	switch nice := niceOf(weight); {
	case err == nil:
		c.note("CPU weight %d by cpu.weight", weight)
	case proc.LimitsSupported && nice >= 0:
		c.bounds.Nice = max(c.bounds.Nice, nice)
		c.note("CPU weight %d by nice %d: %v", weight, c.bounds.Nice, err)
	default:
		c.note("CPU weight %d is not enforced: %v", weight, err)
	}
}

// limitMemory sets the memory that the attempt may use, else watches what FFmpeg keeps
// resident. No resource limit bounds that: RLIMIT_DATA counts what is asked for, which
// with libx264 is 1.3 to 2.4 times what is used and with libsvtav1, whose hundred threads
// have a stack each, up to 7 times (RLIMIT_AS: 18 times). So it is a roof far above.
func (c *confinement) limitMemory(bytes int64) {
	err := c.setMemory(bytes)
	switch {
	case err == nil:
		c.note("memory limited to %s by memory.max", mebibytes(bytes))
	case !proc.LimitsSupported:
		c.note("the limit of %s memory is not enforced: %v", mebibytes(bytes), err)
	default:
		c.watchMemory = true
		c.bounds.DataBytes = 8*bytes + 1<<30
		c.note("memory limited to %s by looking every %s, and to %s by RLIMIT_DATA: %v",
			mebibytes(bytes), lookEvery, mebibytes(c.bounds.DataBytes), err)
	}
}

func (c *confinement) limitIO(line string) {
	if err := c.set("io", "io.max", line); err != nil {
		c.note("io_max %s is not enforced: %v", line, err)
		return
	}
	c.note("disk traffic limited by io.max %s", line)
}

// limitDisk bounds each file by the kernel and their sum by looking.
func (c *confinement) limitDisk(bytes int64) {
	c.watchDisk = true
	if !proc.LimitsSupported {
		c.note("disk limited to %s by looking every %s", mebibytes(bytes), lookEvery)
		return
	}
	c.bounds.FileBytes = bytes
	c.note("disk limited to %s: each file by RLIMIT_FSIZE, their sum by looking every %s", mebibytes(bytes), lookEvery)
}

// nextCPUs gives out CPUs in turn, so that jobs do not all run on the first ones.
func (r *Runner) nextCPUs(cpus int) int {
	return int(uint32(r.placed.Add(uint32(cpus))) - uint32(cpus))
}

// look returns a channel that ticks when the attempt is to be looked at, nil where the
// kernel alone keeps its limits, and what ends the ticking.
func (c *confinement) look() (ticks <-chan time.Time, stop func()) {
	if !c.watchMemory && !c.watchDisk {
		return nil, func() {}
	}
	t := time.NewTicker(lookEvery)
	return t.C, t.Stop
}

// exceeded looks whether the attempt is over a limit that the kernel does not keep.
func (r *Run) exceeded(p *process) *job.Failure {
	l, c := r.plan.limits, &r.confined
	if c.watchMemory {
		if used, ok := p.Resident(); ok && used > l.memory {
			return failure(protocol.ReasonResourceError, "the job's memory limit of %s is exceeded: FFmpeg uses %s", mebibytes(l.memory), mebibytes(used))
		}
	}
	return r.diskExceeded()
}

// diskExceeded looks whether the attempt has written more than it may.
func (r *Run) diskExceeded() *job.Failure {
	if l := r.plan.limits; r.confined.watchDisk {
		if written := r.written(); written > l.disk {
			return failure(protocol.ReasonResourceError, "the job's disk limit of %s is exceeded: it has written %s", mebibytes(l.disk), mebibytes(written))
		}
	}
	return nil
}

// written is the size of all that the attempt has written: its workspace, and outputs
// that lie elsewhere. A file that went away meanwhile does not count.
func (r *Run) written() (bytes int64) {
	_ = filepath.WalkDir(r.workspace, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			bytes += info.Size()
		}
		return nil
	})
	for _, t := range r.place.targets {
		if t.file == nil || within(t.temp, []string{r.workspace}) {
			continue
		}
		if info, err := t.file.Stat(); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// overrun says which limit ended one of the attempt's processes, nil when none did: by
// the kernel's counts, or the signal that stands for a limit.
func (r *Run) overrun(p *process) *job.Failure {
	if f := p.limit.Load(); f != nil {
		return f
	}
	return r.kernelLimit(p.Exit())
}

// kernelLimit says which limit that the kernel keeps ended a process; nil: none.
func (r *Run) kernelLimit(exit proc.Exit) *job.Failure {
	group := r.confined.group
	kills := group.Count("memory.events", "oom_kill")
	refused := group.Count("pids.events", "max")
	switch {
	case exit.Err != nil || exit.OK():
		return nil
	case exit.Signal == syscall.SIGKILL && kills > 0:
		return failure(protocol.ReasonResourceError, "out of memory: the kernel killed ffmpeg%s", r.memoryFigures())
	case exit.Signal == syscall.SIGXFSZ:
		return failure(protocol.ReasonResourceError, "a file of the job grew to its disk limit of %s", mebibytes(r.plan.limits.disk))
	case exit.Signal == 0 && refused > 0:
		return failure(protocol.ReasonResourceError, "ffmpeg: %s: it was refused more than %d processes and threads", exit, mostTasks())
	}
	return nil
}

// memoryFigures tells limit and use, as far as they are known.
func (r *Run) memoryFigures() string {
	said := ""
	if limit := r.plan.limits.memory; limit > 0 {
		said = ", limited to " + mebibytes(limit)
	}
	if peak, ok := r.confined.group.Value("memory.peak"); ok { // Linux 5.19
		said += ", used at most " + mebibytes(peak)
	}
	return said
}

// outputsLookFull reports whether a file system that an output goes to says that it has no room
// left.
func (r *Run) outputsLookFull() bool {
	return slices.ContainsFunc(r.place.targets, func(t target) bool {
		return t.file != nil && diskFull(filepath.Dir(t.temp))
	})
}

// fullLately is how long before FFmpeg's end a full disk may have been the cause of it: it ends
// at the next frame that it writes.
const fullLately = 10 * time.Second

// wasFull reports whether an output's disk had no room left shortly before FFmpeg's end.
func (r *Run) wasFull() bool {
	return r.ffmpeg.Load().Exit().At.Sub(time.Unix(0, r.full.Load())) < fullLately
}

// diskIsFull reports whether what the attempt writes to has no room left, by what the
// file systems say, and for its outputs by trying: a quota shows in no other way.
func (r *Run) diskIsFull() bool {
	return diskFull(r.workspace) || r.outputsLookFull() || slices.ContainsFunc(r.place.targets, func(t target) bool {
		return t.file != nil && takesNoMore(t.file)
	})
}

// takesNoMore tries to add to the file of an attempt that has failed.
func takesNoMore(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	_, err = f.WriteAt(make([]byte, 64<<10), info.Size())
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
