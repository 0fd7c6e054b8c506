package chaos

import "syscall"

// sysProcAttr: a group of its own, so that an interrupt at the terminal is ours alone, and
// the kernel's promise to kill it when the thread that started it ends.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
