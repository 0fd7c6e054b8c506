package ffmpeg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ffmpeg-agent/messages/job"

	"golang.org/x/sys/unix"
)

// handedPath is how a child names the file that it is given at a descriptor. Whoever
// puts something else in the file's place does not mislead it.
func handedPath(_ *os.File, fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// pathOf is where an open file lies now.
func pathOf(f *os.File) (string, error) {
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}

// tick is the unit of times in /proc/PID/stat: USER_HZ, 100 a second on every
// architecture that Go runs Linux on.
const tick = 10 * time.Millisecond

func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// boundsProcesses: a process can be given limits of its own here.
const boundsProcesses = true

// prepareThread makes the calling thread such that its children are nice, run on so
// many CPUs, and get no privilege from the agent or from a setuid file.
func prepareThread(b bounds) error {
	if b.nice > 0 {
		own, err := unix.Getpriority(unix.PRIO_PROCESS, os.Getpid()) // as the kernel has it: 20 − nice
		if err != nil {
			return fmt.Errorf("looking how nice the agent is: %w", err)
		}
		nice := min(19, 20-own+b.nice)
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
			return fmt.Errorf("setting nice %d: %w", nice, err)
		}
	}
	if b.cpus > 0 {
		if err := pin(b.cpus, b.firstCPU); err != nil {
			return fmt.Errorf("setting the CPUs to run on: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	// Kernels before 4.3 have no ambient capabilities to give up.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("giving up ambient capabilities: %w", err)
	}
	return nil
}

// pin leaves the calling thread so many of its CPUs, counted from the first one, and
// round.
func pin(cpus, first int) error {
	var may, take unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return err
	}
	var all []int
	for cpu := 0; len(all) < may.Count(); cpu++ {
		if may.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	for i := range min(cpus, len(all)) {
		take.Set(all[(first+i)%len(all)])
	}
	return unix.SchedSetaffinity(0, &take)
}

// bind bounds a process that has just been started. Both limits count what there is in
// all, so what it did before does not escape them.
func (b bounds) bind(pid int) error {
	for _, l := range []struct {
		resource int
		most     int64
	}{{unix.RLIMIT_FSIZE, b.fileBytes}, {unix.RLIMIT_DATA, b.dataBytes}} {
		if l.most == 0 {
			continue
		}
		limit := unix.Rlimit{Cur: uint64(l.most), Max: uint64(l.most)}
		if err := unix.Prlimit(pid, l.resource, &limit, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("limiting a process: %w", err)
		}
	}
	return nil
}

// residentMemory is what a process has in memory: the second field of
// /proc/PID/statm, in pages (proc_pid_statm(5)).
func residentMemory(pid int) (int64, bool) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err == nil
}

// awaitExit returns when a child has ended, and leaves it to be waited for: until
// then its number cannot be anybody else's. False means that it could not look.
func awaitExit(pid int) bool {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}

// procStat is what /proc/PID/stat says, as far as it is read here.
type procStat struct {
	state      byte
	cpu        time.Duration
	startTicks uint64
}

func readStat(pid int) (procStat, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	return parseStat(raw)
}

// parseStat reads /proc/PID/stat, see proc_pid_stat(5). The second field is the
// command's name in parentheses and may hold spaces and parentheses itself, so
// fields are counted from the last one.
func parseStat(raw []byte) (procStat, error) {
	i := bytes.LastIndexByte(raw, ')')
	if i < 0 {
		return procStat{}, errors.New("no command name")
	}
	fields := strings.Fields(string(raw[i+1:]))          // the first is field 3
	const state, utime, stime, starttime = 0, 11, 12, 19 // fields 3, 14, 15, 22
	if len(fields) <= starttime || len(fields[state]) != 1 || fields[state][0] < 'A' {
		return procStat{}, errors.New("too few fields")
	}
	var n [3]uint64
	for j, f := range []int{utime, stime, starttime} {
		v, err := strconv.ParseUint(fields[f], 10, 63)
		if err != nil {
			return procStat{}, fmt.Errorf("field %d: %w", f+3, err)
		}
		n[j] = v
	}
	return procStat{state: fields[state][0], cpu: time.Duration(n[0]+n[1]) * tick, startTicks: n[2]}, nil
}

func startTicks(pid int) (uint64, bool) {
	s, err := readStat(pid)
	return s.startTicks, err == nil
}

func cpuTime(pid int) (time.Duration, bool) {
	s, err := readStat(pid)
	return s.cpu, err == nil
}

// bootID names this boot of the machine; empty where the system does not say.
func bootID() string {
	raw, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(raw))
}

// alive reports whether exactly this process still runs. One that has ended and
// was not waited for is dead.
func alive(p job.Process, boot string) bool {
	if p.PID <= 1 || p.BootID == "" || p.BootID != boot {
		return false
	}
	s, err := readStat(p.PID)
	return err == nil && s.startTicks == p.StartTicks && s.state != 'Z' && s.state != 'X'
}

// kill ends exactly this process and its group, and waits until it is dead. The
// process is held by a descriptor while it is compared, so that its number cannot
// pass to another one in between.
func kill(ctx context.Context, p job.Process, boot string) error {
	if p.PID <= 1 {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !alive(p, boot) {
		return nil
	}
	if group, err := unix.Getpgid(p.PID); err == nil && group == p.PID {
		_ = unix.Kill(-p.PID, unix.SIGKILL)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process %d: %w", p.PID, err)
	}
	for {
		const look = 100 // ms, how long a context that was given up stays unnoticed
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, look)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for the end of process %d: %w", p.PID, err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("waiting for the end of process %d: %w", p.PID, err)
		}
	}
}
