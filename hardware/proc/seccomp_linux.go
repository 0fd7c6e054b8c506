package proc

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// allowedCalls are the system calls that a command in a sandbox may make: those that decoding,
// encoding and drivers of graphics cards need. Any other that is known here gets ENOSYS, which
// libraries take for an old kernel. Absent on purpose beside the obvious (ptrace, mount, bpf, keyctl, io_uring,
// userfaultfd, perf_event_open, process_vm_*, namespaces): chmod, chown, utime and setxattr,
// which Landlock does not restrict; setsid and setpgid, which leave the group that is killed;
// truncate, link, symlink and mknod; kill, pidfd_* and setpriority, which affect other
// processes of the user.
const allowedCalls = `
	read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek close close_range
	stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir
	getdents getdents64 statfs fstatfs umask dup dup2 dup3 pipe pipe2 flock ioctl ftruncate fallocate fadvise64 readahead
	fsync fdatasync sync_file_range mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2
	poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
	eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime
	mmap munmap mprotect mremap madvise brk mincore msync mlock mlock2 munlock mlockall munlockall
	mbind get_mempolicy set_mempolicy membarrier
	futex futex_waitv futex_wait futex_wake futex_requeue set_robust_list get_robust_list set_tid_address rseq
	rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack restart_syscall pause
	alarm getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete
	nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getrusage
	getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid capget
	getrlimit setrlimit getpriority sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_getattr
	sched_get_priority_max sched_get_priority_min sched_rr_get_interval getcpu
	uname sysinfo getrandom arch_prctl exit exit_group execve`

// scriptCalls start other programs and wait for them.
const scriptCalls = `fork vfork wait4 waitid`

// driverCalls are those of drivers of graphics cards: memfd_create shares memory with them. What
// is not mapped of such a file counts to no process, so others do without.
const driverCalls = `memfd_create`

// networkCalls use sockets. listen and accept are absent: no job is to be reached from outside.
const networkCalls = `
	connect sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown getsockname getpeername getsockopt setsockopt`

// condition refuses a call that is made with certain arguments, all of which must match.
type condition struct {
	call  string
	match []seccomp.Condition
}

const cloneNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// refusedRequests are the requests of ioctl that affect other processes: those that have signals
// of a descriptor sent to any process of the user, as fcntl's F_SETOWN does, and those that
// type into a terminal. All are below 1<<31.
var refusedRequests = []uint64{fioSetOwn, fioAsync, unix.SIOCSPGRP, unix.TIOCSTI, tiocLinux}

// Requests of ioctl that package unix does not name, from asm-generic/sockios.h, asm-generic/ioctls.h.
const (
	fioSetOwn = 0x8901
	fioAsync  = 0x5452
	tiocLinux = 0x541c
)

// refusals are the calls that depend on their arguments.
func (s *Sandbox) refusals() []condition {
	pid := uint64(os.Getpid()) // stays the command's
	refused := []condition{
		{"fcntl", noneOf(1, // not F_SETOWN and F_SETSIG, which send any signal to any process of the user
			unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_GETLK, unix.F_SETLK, unix.F_SETLKW,
			unix.F_OFD_GETLK, unix.F_OFD_SETLK, unix.F_OFD_SETLKW, unix.F_ADD_SEALS, unix.F_GET_SEALS, unix.F_GETPIPE_SZ, unix.F_SETPIPE_SZ)},
		{"prctl", noneOf(0, // not PR_SET_PDEATHSIG
			unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA, unix.PR_GET_DUMPABLE, unix.PR_GET_SECCOMP, unix.PR_GET_NO_NEW_PRIVS,
			unix.PR_CAPBSET_READ, unix.PR_GET_TIMERSLACK, unix.PR_SET_TIMERSLACK, unix.PR_GET_THP_DISABLE, unix.PR_SET_THP_DISABLE)},
		{"tgkill", noneOf(0, pid)}, // abort
		{"prlimit64", noneOf(0, 0, pid)},
		{"sched_setaffinity", noneOf(0, 0)},
		// The kernel looks at 32 bits of a request. Ones with more, but for a sign, are of no library.
		{"ioctl", []seccomp.Condition{
			{Argument: 1, Operation: seccomp.GreaterThan, Value: math.MaxUint32}, {Argument: 1, Operation: seccomp.BitsNotSet, Value: 1 << 31},
		}},
		// O_TRUNC without writing: Landlock restricts truncation only since Linux 6.2.
		{"open", truncates(1)},
		{"openat", truncates(2)},
	}
	for _, request := range refusedRequests {
		refused = append(refused, condition{"ioctl", []seccomp.Condition{{Argument: 1, Operation: seccomp.Equal, Value: request}}})
	}
	// clone3 gets ENOSYS: its flags cannot be seen, and libraries fall back to clone.
	if s.Programs {
		refused = append(refused, condition{"clone", bitsSet(0, cloneNamespaces)})
	} else {
		refused = append(refused, condition{"clone", []seccomp.Condition{{Argument: 0, Operation: seccomp.BitsNotSet, Value: unix.CLONE_THREAD}}})
	}
	if s.Network.Allowed {
		types := []uint64{unix.SOCK_STREAM}
		if s.Network.UDP {
			types = append(types, unix.SOCK_DGRAM)
		}
		refused = append(refused,
			condition{"socket", noneOf(0, unix.AF_INET, unix.AF_INET6)},
			condition{"socket", noneOf(1, withFlags(types)...)},
			condition{"socket", noneOf(2, 0, unix.IPPROTO_TCP, unix.IPPROTO_UDP)}, // not MPTCP, which Landlock does not restrict
			// TCP Fast Open connects without the check of ports that Landlock has in connect.
			condition{"sendto", bitsSet(3, unix.MSG_FASTOPEN)},
			condition{"sendmsg", bitsSet(2, unix.MSG_FASTOPEN)},
			condition{"sendmmsg", bitsSet(3, unix.MSG_FASTOPEN)})
	}
	return refused
}

// noneOf matches where an argument has none of the values.
func noneOf(argument uint32, values ...uint64) []seccomp.Condition {
	var match []seccomp.Condition
	for _, v := range values {
		match = append(match, seccomp.Condition{Argument: argument, Operation: seccomp.NotEqual, Value: v})
	}
	return match
}

// bitsSet matches where an argument has any of the bits.
func bitsSet(argument uint32, bits uint64) []seccomp.Condition {
	return []seccomp.Condition{{Argument: argument, Operation: seccomp.BitsSet, Value: bits}}
}

// truncates matches flags of open with O_TRUNC that do not open for writing.
func truncates(argument uint32) []seccomp.Condition {
	return []seccomp.Condition{
		{Argument: argument, Operation: seccomp.BitsSet, Value: unix.O_TRUNC},
		{Argument: argument, Operation: seccomp.BitsNotSet, Value: unix.O_WRONLY | unix.O_RDWR},
	}
}

// withFlags are types of sockets with each combination of their flags.
func withFlags(types []uint64) (all []uint64) {
	for _, t := range types {
		for _, flags := range []uint64{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
			all = append(all, t|flags)
		}
	}
	return all
}

// loadFilters restricts the system calls of the calling thread, and so of the command that it
// becomes.
//
// Each call that depends on its arguments gets a filter of its own: where the conditions of one
// call do not match, go-seccomp-bpf v1.6.0 compares the argument that it looked at last with the
// numbers of the calls that follow. The kernel takes the strictest answer of all filters.
func loadFilters(s *Sandbox) error {
	table, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	names := strings.Fields(allowedCalls)
	if s.Programs {
		names = append(names, strings.Fields(scriptCalls)...)
	}
	if s.Drivers {
		names = append(names, strings.Fields(driverCalls)...)
	}
	if s.Network.Allowed {
		names = append(names, strings.Fields(networkCalls)...)
	}
	if s.Network.BindUDP {
		names = append(names, "bind")
	}
	for _, r := range s.refusals() {
		if _, known := table.SyscallNames[r.call]; !known {
			continue
		}
		if !slices.Contains(names, r.call) {
			names = append(names, r.call)
		}
		if err := load(seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{{
			NamesWithCondtions: []seccomp.NameWithConditions{{Name: r.call, Conditions: r.match}}, Action: seccomp.ActionErrno,
		}}}); err != nil {
			return err
		}
	}
	var allowed, absent []string
	for name := range table.SyscallNames {
		if slices.Contains(names, name) {
			allowed = append(allowed, name)
		} else {
			absent = append(absent, name)
		}
	}
	// A call of another architecture, and one newer than the table, gets the default action.
	return load(seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{
			{Names: allowed, Action: seccomp.ActionAllow},
			{Names: absent, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)},
		},
	})
}

func load(p seccomp.Policy) error {
	// Without the flag, kernels before 5.16 turn off speculative loads, at a cost of several
	// percent of an encode's time.
	filter := seccomp.Filter{Flag: seccomp.FilterFlag(unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW), Policy: p}
	if err := seccomp.LoadFilter(filter); err != nil {
		return fmt.Errorf("loading a filter: %w", err)
	}
	return nil
}
