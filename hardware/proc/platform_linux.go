package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// LimitsSupported: Limits other than the defaults take effect on this platform.
const LimitsSupported = true

func sysProcAttr(group *Cgroup) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if group != nil && bornInCgroup() {
		attr.UseCgroupFD, attr.CgroupFD = true, int(group.dir.Fd())
	}
	return attr
}

// bornInCgroup reports whether a child can be started in a cgroup (clone3(2)). Filters that
// keep a process from creating namespaces forbid that call, whose flags they cannot see: those
// of systemd's RestrictNamespaces= and of container engines.
var bornInCgroup = sync.OnceValue(func() bool {
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0) // EINVAL: arguments of no size
	return errno == unix.EINVAL
})

// joinCgroup moves a process that has just been started to its cgroup, unless it was born
// there. It has not started another one by then; its threads move with it.
func joinCgroup(pid int, group *Cgroup) error {
	if group == nil || bornInCgroup() {
		return nil
	}
	err := writeControl(filepath.Join(group.path, "cgroup.procs"), strconv.Itoa(pid))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("moving process %d to its cgroup: %w", pid, err)
	}
	return nil
}

// prepareThread gives the calling thread what its next child is to inherit: nice value,
// CPUs, and no privileges of the agent or of setuid programs.
func prepareThread(c *Command) error {
	if c.Limits.Nice > 0 {
		own, err := unix.Getpriority(unix.PRIO_PROCESS, os.Getpid()) // 20 − nice, as the kernel returns it
		if err != nil {
			return fmt.Errorf("getting the agent's nice value: %w", err)
		}
		nice := min(19, 20-own+c.Limits.Nice)
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
			return fmt.Errorf("setting nice %d: %w", nice, err)
		}
	}
	if c.Limits.CPUs > 0 {
		if err := setAffinity(c.Limits.CPUs, c.Limits.FirstCPU); err != nil {
			return fmt.Errorf("setting the CPU affinity: %w", err)
		}
	}
	if !c.AllowSetuid {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("setting no_new_privs: %w", err)
		}
	}
	// EINVAL: kernels before 4.3 have no ambient capabilities.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("dropping ambient capabilities: %w", err)
	}
	return nil
}

// setAffinity leaves the calling thread a number of its CPUs, from the first one on and
// wrapping around.
func setAffinity(cpus, first int) error {
	var allowed, chosen unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return err
	}
	var all []int
	for cpu := 0; len(all) < allowed.Count(); cpu++ {
		if allowed.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	for i := range min(cpus, len(all)) {
		chosen.Set(all[(first+i)%len(all)])
	}
	return unix.SchedSetaffinity(0, &chosen)
}

// setResourceLimits bounds a process that has just been started. Both limits apply to
// what a process holds, so nothing that it did before escapes them.
func setResourceLimits(pid int, l Limits) error {
	for _, r := range []struct {
		resource int
		max      int64
	}{{unix.RLIMIT_FSIZE, l.FileBytes}, {unix.RLIMIT_DATA, l.DataBytes}} {
		if r.max == 0 {
			continue
		}
		limit := unix.Rlimit{Cur: uint64(r.max), Max: uint64(r.max)}
		if err := unix.Prlimit(pid, r.resource, &limit, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("setting a resource limit: %w", err)
		}
	}
	return nil
}

// awaitExit returns when a child has ended, without reaping it: until it is reaped its
// PID is not reused. False: it could not be waited for.
func awaitExit(pid int) bool {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}

// Kill kills exactly this process and its group, if it still runs, and waits until it
// is dead. A pidfd holds the process while its identity is compared, so that its PID
// cannot be reused in between.
func (id ID) Kill(ctx context.Context) error {
	if id.PID <= 1 {
		return nil
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", id.PID, err)
	}
	defer unix.Close(fd)
	if !id.Alive() {
		return nil
	}
	if group, err := unix.Getpgid(id.PID); err == nil && group == id.PID {
		_ = unix.Kill(-id.PID, unix.SIGKILL)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process %d: %w", id.PID, err)
	}
	for {
		const interval = 100 // ms, between two looks at the context
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, interval)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for the end of process %d: %w", id.PID, err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("waiting for the end of process %d: %w", id.PID, err)
		}
	}
}

// FilePath is the path by which a child opens the file that it has as a descriptor. It
// leads to that very file, whatever the file's own path leads to by then.
func FilePath(_ *os.File, fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// CurrentPath is the present path of an open file of the agent.
func CurrentPath(f *os.File) (string, error) {
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}
