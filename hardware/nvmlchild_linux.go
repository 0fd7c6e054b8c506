package hardware

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// childAttributes: a group of its own, and the kernel's promise to kill it when the
// thread that started it ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitEnd returns when a child has ended, and leaves it to be waited for: until
// then its number cannot be anybody else's. False means that it could not look.
func awaitEnd(pid int) bool {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}
