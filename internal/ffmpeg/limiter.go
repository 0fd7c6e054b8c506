package ffmpeg

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// checkInterval is how often an attempt is checked against the limits that the kernel does not
// enforce and that it could reach so soon.
const checkInterval = 100 * time.Millisecond

// encodeProcess names the process that writes the outputs.
const encodeProcess = "encode"

// limiter enforces an attempt's limits: by its cgroup where the controllers are
// available, otherwise by limits of its processes, and by checks.
type limiter struct {
	cgroup      *proc.Cgroup // nil: none
	noCgroup    string       // why there is none
	process     proc.Limits  // of each process
	outputBytes int64        // of each file that the encode writes; 0: unlimited
	threads     int          // of each process, by checks; 0: not checked
	checkMemory bool
	checkDisk   bool
	notes       []string
}

// noteOf notes how a limit is enforced, unless it is one that every job has.
func (l *limiter) noteOf(ceiling bool) func(format string, args ...any) {
	if ceiling {
		return func(string, ...any) {}
	}
	return l.note
}

func (l *limiter) note(format string, args ...any) {
	l.notes = append(l.notes, fmt.Sprintf(format, args...))
}

// set sets a limit of the attempt's cgroup.
func (l *limiter) set(controller, file, value string) error {
	if l.cgroup == nil {
		return fmt.Errorf("no cgroup (%s)", l.noCgroup)
	}
	return l.cgroup.Set(controller, file, value)
}

// applyLimits creates the attempt's cgroup, sets its limits, and notes how they are
// enforced.
func (r *Run) applyLimits() {
	l := limiter{noCgroup: r.runner.cgroups.Unavailable, process: proc.Limits{Nice: r.settings.Nice}}
	var err error
	if l.cgroup, err = r.runner.cgroups.Create(r.name); err != nil {
		l.noCgroup = err.Error()
		r.log.Warn("could not create a cgroup for the job", zap.Error(err))
	}
	// A safeguard that no job asks for.
	if err := l.set("pids", "pids.max", strconv.Itoa(maxTasks())); err != nil {
		l.threads = maxTasks()
	}
	want := r.plan.limits
	if want.cpu.limited() {
		l.limitCPU(want.cpu, r.runner.nextCPUs)
	}
	if want.weight > 0 {
		l.setWeight(want.weight)
	}
	if want.memory > 0 {
		l.limitMemory(want.memory, l.noteOf(want.memoryCeiling))
	}
	for _, line := range want.io {
		l.limitIO(line)
	}
	if want.disk > 0 {
		l.limitDisk(want.disk, l.noteOf(want.diskCeiling))
	}
	l.outputBytes = r.settings.Ceilings.OutputBytes
	r.limiter = l
	r.update(func(e *job.Encode) { e.Notes = append(e.Notes, l.notes...) })
}

// limitCPU sets a quota, otherwise an affinity to whole CPUs: FFmpeg starts as many
// threads as it may use CPUs.
func (l *limiter) limitCPU(q cpuQuota, firstOf func(cpus int) int) {
	percent := strconv.FormatFloat(q.percent(), 'f', -1, 64)
	err := l.set("cpu", "cpu.max", q.String())
	switch {
	case err == nil:
		l.note("CPU limited to %s %% by cpu.max %s", percent, q)
	case !proc.LimitsSupported:
		l.note("CPU limit of %s %% is not enforced: %v", percent, err)
	default:
		l.process.CPUs = q.whole()
		l.process.FirstCPU = firstOf(l.process.CPUs)
		l.note("CPU limited to %s %%, rounded up to whole CPUs (%d) by affinity: %v", percent, l.process.CPUs, err)
	}
}

// setWeight sets a weight, otherwise the nice value with the same effect.
func (l *limiter) setWeight(weight int64) {
	err := l.set("cpu", "cpu.weight", strconv.FormatInt(weight, 10))
	switch nice := niceOf(weight); {
	case err == nil:
		l.note("CPU weight %d by cpu.weight", weight)
	case proc.LimitsSupported && nice >= 0:
		l.process.Nice = max(l.process.Nice, nice)
		l.note("CPU weight %d by nice %d: %v", weight, l.process.Nice, err)
	default:
		l.note("CPU weight %d is not enforced: %v", weight, err)
	}
}

// limitMemory limits the memory that the attempt may use, otherwise what FFmpeg may have
// resident. No resource limit can do the latter: RLIMIT_DATA counts what is reserved,
// which with libx264 is 1.3 to 2.4 times what is used, and with libsvtav1, whose hundred
// threads have a stack each, up to 7 times (RLIMIT_AS: 18 times). So it is set far above.
func (l *limiter) limitMemory(bytes int64, note func(string, ...any)) {
	err := l.setMemoryMax(bytes)
	switch {
	case err == nil:
		note("memory limited to %s by memory.max", mebibytes(bytes))
	case !proc.LimitsSupported:
		note("memory limit of %s is not enforced: %v", mebibytes(bytes), err)
	default:
		l.checkMemory = true
		l.process.DataBytes = 8*bytes + 1<<30
		note("memory limited to %s by checks, and to %s by RLIMIT_DATA: %v", mebibytes(bytes), mebibytes(l.process.DataBytes), err)
	}
}

// setMemoryMax limits the memory of the cgroup, swap included, and has the kernel kill
// the whole attempt when it needs more.
func (l *limiter) setMemoryMax(bytes int64) error {
	err := l.set("memory", "memory.max", strconv.FormatInt(bytes, 10))
	if err == nil {
		err = l.set("memory", "memory.oom.group", "1")
	}
	if err == nil {
		if err = l.set("memory", "memory.swap.max", "0"); errors.Is(err, fs.ErrNotExist) {
			err = nil // a kernel without swap has no such file
		}
	}
	return err
}

func (l *limiter) limitIO(line string) {
	if err := l.set("io", "io.max", line); err != nil {
		l.note("io_max %s is not enforced: %v", line, err)
		return
	}
	l.note("disk traffic limited by io.max %s", line)
}

// limitDisk limits each file by the kernel and their sum by checks.
func (l *limiter) limitDisk(bytes int64, note func(string, ...any)) {
	l.checkDisk = true
	if !proc.LimitsSupported {
		note("disk limited to %s by a check every %s", mebibytes(bytes), checkInterval)
		return
	}
	l.process.FileBytes = bytes
	note("disk limited to %s: each file by RLIMIT_FSIZE, their sum by a check every %s", mebibytes(bytes), checkInterval)
}

// nextCPUs assigns CPUs in turn, so that jobs do not all run on the first ones.
func (r *Runner) nextCPUs(cpus int) int {
	return int(uint32(r.assignedCPUs.Add(uint32(cpus))) - uint32(cpus))
}

// processTimer fires when a process is to be checked against the limits that the kernel does
// not enforce; never where it enforces all.
func (l *limiter) processTimer() *time.Timer {
	t := time.NewTimer(checkInterval)
	if !l.checkMemory && l.threads == 0 {
		t.Stop()
	}
	return t
}

// memoryRate is more than one CPU fills of memory, in bytes per second: 11 GiB/s were measured,
// with huge pages.
const memoryRate = 16 << 30

// processExceeded checks the memory and the threads of a process where the kernel does not
// limit them. It returns how long the next check may wait.
func (r *Run) processExceeded(p *process) (f *job.Failure, wait time.Duration) {
	wait = maxCheckWait
	if limit := r.plan.limits.memory; r.limiter.checkMemory {
		switch used, ok := p.Resident(); {
		case !ok:
			wait = checkInterval
		case used > limit:
			return failure(protocol.ReasonResourceError, "memory limit of %s exceeded%s: FFmpeg uses %s",
				mebibytes(limit), byOperator("memory", r.plan.limits.memoryCeiling), mebibytes(used)), checkInterval
		default:
			wait = checkWait(uint64(limit-used), memoryRate*uint64(runtime.NumCPU()))
		}
	}
	if limit := r.limiter.threads; limit > 0 {
		switch n, ok := p.Threads(); {
		case !ok || n > limit/2 && n <= limit:
			wait = checkInterval
		case n > limit:
			return failure(protocol.ReasonResourceError, "FFmpeg has more than %d threads: %d", limit, n), checkInterval
		}
	}
	return nil, wait
}

// maxCheckWait is the longest time between two checks of a limit.
const maxCheckWait = time.Second

// checkWait is how long a limit need not be checked of which so many bytes are left: less than
// it takes to use them up at a rate in bytes per second. Checks of every job ten times a second
// would cost the agent as much as its samplers do.
func checkWait(left, rate uint64) time.Duration {
	wait := float64(left) / float64(rate) * float64(time.Second)
	return time.Duration(max(float64(checkInterval), min(float64(maxCheckWait), wait)))
}

// diskExceeded checks what the attempt has written.
func (r *Run) diskExceeded() *job.Failure {
	if limit := r.plan.limits.disk; r.limiter.checkDisk {
		if written := r.written(); written > limit {
			return failure(protocol.ReasonResourceError, "disk limit of %s exceeded%s: the job has written %s",
				mebibytes(limit), byOperator("disk", r.plan.limits.diskCeiling), mebibytes(written))
		}
	}
	return nil
}

// written is the size of all that the attempt has written: its workspace, and outputs
// elsewhere. A fetched input does not count, nor does a file that is removed meanwhile.
func (r *Run) written() (bytes int64) {
	fetched := filepath.Join(r.workspace, fetchedDir)
	_ = filepath.WalkDir(r.workspace, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if path == fetched {
			return fs.SkipDir
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			bytes += info.Size()
		}
		return nil
	})
	for _, t := range r.files.targets {
		if t.file == nil || reach.Within(t.temp, []string{r.workspace}) {
			continue
		}
		if info, err := t.file.Stat(); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// limitFailure is the failure of a process that was ended by a limit; nil for any other.
func (r *Run) limitFailure(p *process) *job.Failure {
	if f := p.limit.Load(); f != nil {
		return f
	}
	return r.kernelLimitFailure(p.Exit())
}

// kernelLimitFailure finds out by the kernel's counters, or by the signal of a limit,
// whether the kernel ended a process for a limit.
func (r *Run) kernelLimitFailure(exit proc.Exit) *job.Failure {
	group := r.limiter.cgroup
	kills := group.Count("memory.events", "oom_kill")
	refusals := group.Count("pids.events", "max")
	switch {
	case exit.Err != nil || exit.OK():
		return nil
	case exit.Signal == syscall.SIGKILL && kills > 0:
		return failure(protocol.ReasonResourceError, "out of memory: the kernel killed FFmpeg%s%s", r.memoryFigures(), byOperator("memory", r.plan.limits.memoryCeiling))
	case exit.Signal == syscall.SIGXFSZ && r.limiter.outputBytes > 0 && (r.plan.limits.disk == 0 || r.limiter.outputBytes < r.plan.limits.disk):
		return failure(protocol.ReasonResourceError, "output limit of %s exceeded: an output reached it (jobs.limits.output_bytes)", mebibytes(r.limiter.outputBytes))
	case exit.Signal == syscall.SIGXFSZ:
		return failure(protocol.ReasonResourceError, "disk limit of %s exceeded%s: a file of the job reached it",
			mebibytes(r.plan.limits.disk), byOperator("disk", r.plan.limits.diskCeiling))
	case exit.Signal == 0 && refusals > 0:
		return failure(protocol.ReasonResourceError, "FFmpeg: %s: it reached its limit of %d processes and threads", exit, maxTasks())
	}
	return nil
}

// memoryFigures is the memory limit and the peak, as far as they are known.
func (r *Run) memoryFigures() string {
	text := ""
	if limit := r.plan.limits.memory; limit > 0 {
		text = ", limited to " + mebibytes(limit)
	}
	if peak, ok := r.limiter.cgroup.Value("memory.peak"); ok { // Linux 5.19
		text += ", used at most " + mebibytes(peak)
	}
	return text
}
