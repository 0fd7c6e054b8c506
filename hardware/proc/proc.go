// Package proc starts, observes and ends processes of this machine.
//
// It holds every child of the agent in the same way (Start): in a process group of
// its own, optionally in a cgroup of its own from birth, with bounds and without the
// agent's environment, and killed by the kernel when the agent ends. It identifies
// processes across restarts of the agent (ID), and it is the one reader of /proc/PID.
//
// It depends on neither jobs nor sensors: which limits a process gets, and what its end
// means, is decided by the callers.
package proc

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/procfs"
)

// ClockTick is the unit of CPU times in /proc, 1/USER_HZ: 10 ms on every architecture
// that Go supports on Linux.
const ClockTick = 10 * time.Millisecond

// ID identifies one process for all time: a PID is reused, a PID with its start time
// and its boot is not.
type ID struct {
	PID        int
	StartTicks uint64 // start in clock ticks since boot, field 22 of /proc/PID/stat
	BootID     string // see BootID
	Cgroup     string // path of the outermost cgroup that was created for it; empty: none
}

// BootID identifies this boot of the machine; empty where the system has no such ID.
func BootID() string {
	raw, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(raw))
}

// Alive reports whether exactly this process still runs. A zombie does not.
func (id ID) Alive() bool {
	if id.PID <= 1 || id.BootID == "" || id.BootID != BootID() {
		return false
	}
	s, err := ReadStat(id.PID)
	return err == nil && s.StartTicks == id.StartTicks && !s.Ended()
}

// Stat is a part of /proc/PID/stat, see proc_pid_stat(5).
type Stat struct {
	State      byte // R, S, D, Z, …
	Parent     int
	Threads    int
	CPU        time.Duration // user and system time of all its threads
	StartTicks uint64
}

// Ended reports whether the process has ended and only waits to be reaped.
func (s Stat) Ended() bool { return s.State == 'Z' || s.State == 'X' }

// ReadStat reads /proc/PID/stat.
func ReadStat(pid int) (Stat, error) {
	fs, err := procFS()
	if err != nil {
		return Stat{}, err
	}
	return readStat(fs, pid)
}

func readStat(fs procfs.FS, pid int) (s Stat, err error) {
	// procfs cuts the line at the command's parentheses without looking at its length.
	defer func() {
		if v := recover(); v != nil {
			s, err = Stat{}, fmt.Errorf("reading stat of process %d: %v", pid, v)
		}
	}()
	p, err := fs.Proc(pid)
	if err != nil {
		return Stat{}, err
	}
	raw, err := p.Stat()
	if err != nil {
		return Stat{}, fmt.Errorf("reading stat of process %d: %w", pid, err)
	}
	if len(raw.State) != 1 {
		return Stat{}, fmt.Errorf("reading stat of process %d: state is %q", pid, raw.State)
	}
	const maxTicks = 1 << 62 / uint64(ClockTick) // as a time.Duration
	ticks := uint64(raw.UTime) + uint64(raw.STime)
	if uint64(raw.UTime) > maxTicks || uint64(raw.STime) > maxTicks {
		return Stat{}, fmt.Errorf("reading stat of process %d: %d and %d ticks of CPU time", pid, raw.UTime, raw.STime)
	}
	return Stat{State: raw.State[0], Parent: raw.PPID, Threads: raw.NumThreads, CPU: time.Duration(ticks) * ClockTick, StartTicks: raw.Starttime}, nil
}

// Resident is the memory that a process has resident, in bytes: the second field of
// /proc/PID/statm, which the kernel counts more exactly than the one in stat.
func Resident(pid int) (int64, error) {
	fs, err := procFS()
	if err != nil {
		return 0, err
	}
	return resident(fs, pid)
}

func resident(fs procfs.FS, pid int) (bytes int64, err error) {
	defer func() { // procfs takes seven fields for granted
		if v := recover(); v != nil {
			bytes, err = 0, fmt.Errorf("reading statm of process %d: %v", pid, v)
		}
	}()
	p, err := fs.Proc(pid)
	if err != nil {
		return 0, err
	}
	m, err := p.Statm()
	if err != nil {
		return 0, fmt.Errorf("reading statm of process %d: %w", pid, err)
	}
	if m.Resident > 1<<62/uint64(os.Getpagesize()) {
		return 0, fmt.Errorf("reading statm of process %d: %d pages resident", pid, m.Resident)
	}
	return int64(m.ResidentBytes()), nil
}

// procFS is /proc. It is kept, since opening it costs two system calls.
func procFS() (procfs.FS, error) {
	if fs := openedProcFS.Load(); fs != nil {
		return *fs, nil
	}
	fs, err := procfs.NewDefaultFS()
	if err == nil {
		openedProcFS.Store(&fs)
	}
	return fs, err
}

var openedProcFS atomic.Pointer[procfs.FS]
