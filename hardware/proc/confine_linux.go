package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SandboxSupported: commands can be given a Sandbox on this platform.
const SandboxSupported = true

// memoryFile is a file in memory with a content, at its start.
func memoryFile(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("sandbox", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "sandbox")
	if _, err := f.WriteAt(content, 0); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("writing to a file in memory: %w", err)
	}
	return f, nil
}

// Harden keeps other processes of the agent's user, such as its own children, from reading
// the agent's memory and environment, and core files of the agent from being written.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the agent not dumpable: %w", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("preventing core files: %w", err)
	}
	return nil
}

// Confine is what the helper of a Sandbox does: it restricts itself and becomes the
// command. It returns only when that failed, and reports the error to the agent unless args
// are unusable. args are the two arguments that were added to Sandbox.Helper.
func Confine(args []string) error {
	runtime.LockOSThread() // restrictions are those of a thread; the one that becomes the command
	if len(args) != 2 {
		return errors.New("this command is run by the agent")
	}
	var files [2]*os.File
	for i, arg := range args {
		fd, err := strconv.Atoi(arg)
		if err != nil || fd <= 2 {
			return errors.New("this command is run by the agent")
		}
		unix.CloseOnExec(fd)
		files[i] = os.NewFile(uintptr(fd), arg)
	}
	raw, err := io.ReadAll(io.NewSectionReader(files[0], 0, 1<<20))
	var o order
	if err == nil {
		err = json.Unmarshal(raw, &o)
	}
	c := confiner{order: o, report: json.NewEncoder(files[1])}
	if err == nil {
		err = c.become()
	}
	report := confined{Error: err.Error()}
	if errors.As(err, &report.Errno) {
		report.Error = c.doing
	}
	return errors.Join(err, c.report.Encode(report))
}

// confiner turns the calling thread's process into a command in a sandbox.
type confiner struct {
	order
	confinement Confinement
	report      *json.Encoder
	doing       string // what fails, where something does
}

func (c *confiner) become() error {
	c.confinement = Confinement{Missing: map[Layer]string{}, Lacks: map[Layer]string{}}
	s := &c.Sandbox
	try := func(l Layer, apply func() error) {
		if !s.has(l) {
			c.confinement.Missing[l] = "turned off"
		} else if err := apply(); err != nil {
			c.confinement.Missing[l] = err.Error()
		}
	}
	// The agent's rights are needed to find the files, and are then given up.
	rules := landlockRules{fd: -1}
	try(Landlock, func() error { return rules.build(s) })
	try(ResourceMax, limitResources)
	try(OOMScore, func() error { return raiseOOMScore(s.OOMScoreAdj) })
	try(NoNewPrivs, func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
	keep := s.has(Capabilities) && os.Geteuid() == 0
	if s.User != nil {
		c.doing = "changing to the user of jobs.run_as"
		if err := s.User.assume(keep); err != nil {
			return err
		}
	}
	try(Capabilities, func() error { return dropCapabilities(keep, s.User != nil) })
	if c.confinement.Missing[Landlock] == "" {
		try(Landlock, rules.apply)
	}
	if rules.lacks != "" {
		c.confinement.Lacks[Landlock] = rules.lacks
	}
	c.doing = "keeping the parent-death signal"
	if err := dieWith(c.Parent); err != nil {
		return err
	}
	try(Seccomp, func() error { return loadFilters(s) })
	if err := c.report.Encode(confined{Confinement: c.confinement}); err != nil {
		return fmt.Errorf("reporting to the agent: %w", err)
	}
	c.doing = "executing " + c.Path
	return syscall.Exec(c.Path, c.Args, os.Environ())
}

// dieWith has the kernel kill this process when the agent's thread ends that started it.
// Changes of credentials undo it, and it does not pass from thread to thread.
func dieWith(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != parent {
		return errors.New("the agent has ended")
	}
	return nil
}

// limitResources prevents core files and bounds descriptors. Memory is bounded by cgroup, or
// by the caller: what a process reserves says little of what it uses, and drivers of
// graphics cards reserve more than the machine has.
func limitResources() error {
	// Through package syscall: the runtime raises the limit of descriptors for itself and
	// would restore the one before at exec.
	files := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	const descriptors = 1024
	files.Max = min(files.Max, descriptors)
	files.Cur = files.Max
	return errors.Join(
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files),
		syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}))
}

func raiseOOMScore(adj int) error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(adj)), 0)
}

// assume makes the calling thread's credentials those of the user.
func (u *User) assume(keepCapabilities bool) error {
	if keepCapabilities {
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	// Not through package syscall, which changes all threads.
	groups := make([]uint32, len(u.Groups)+1)
	for i, g := range u.Groups {
		groups[i] = uint32(g)
	}
	groups[len(u.Groups)] = uint32(u.GID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return errno
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.GID), uintptr(u.GID), uintptr(u.GID)); errno != 0 {
		return errno
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(u.UID), uintptr(u.UID), uintptr(u.UID)); errno != 0 {
		return errno
	}
	return nil
}

// dropCapabilities gives up all capabilities of the calling thread, but for
// CAP_DAC_OVERRIDE where that is to be kept: inputs and outputs of other users are then
// bounded by Landlock. Another user than root needs it to be an ambient one to keep it in
// the command.
func dropCapabilities(keep, ambient bool) error {
	// EPERM: without CAP_SETPCAP the bounding set stays, which is of no use with no_new_privs.
	for capability := range uintptr(unix.CAP_LAST_CAP + 1) {
		if keep && capability == unix.CAP_DAC_OVERRIDE {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had, sets [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		return err
	}
	const bit = 1 << unix.CAP_DAC_OVERRIDE
	if keep = keep && had[0].Permitted&bit != 0; keep {
		sets[0] = unix.CapUserData{Effective: bit, Permitted: bit}
		if ambient {
			sets[0].Inheritable = bit
		}
	}
	if had != sets { // capset may be forbidden where there is nothing to drop, as by our systemd unit
		if err := unix.Capset(&header, &sets[0]); err != nil {
			return err
		}
	}
	if keep && ambient {
		return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_DAC_OVERRIDE, 0, 0)
	}
	return nil
}
