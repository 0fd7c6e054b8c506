package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// program is a program that was started, and ends with this one.
type program struct {
	pid   int
	done  chan struct{} // closed when it has ended
	state *os.ProcessState
}

// spawn starts a program whose output goes to the end of a file.
func spawn(logFile string, environ []string, argv ...string) (*program, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	p := &program{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		defer log.Close()
		runtime.LockOSThread() // for good: the program ends with the thread
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = environ, log, log, sysProcAttr()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		_ = cmd.Wait()
		p.state = cmd.ProcessState
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	return p, nil
}

func (p *program) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *program) signal(s syscall.Signal) error {
	if p.ended() {
		return syscall.ESRCH
	}
	return syscall.Kill(p.pid, s)
}

// exit is how it ended, once it has.
func (p *program) exit() string { return p.state.String() }

// waitUntil polls a condition; false when the time is up first.
func waitUntil(d time.Duration, condition func() bool) bool {
	for end := time.Now().Add(d); ; time.Sleep(20 * time.Millisecond) {
		if condition() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}
