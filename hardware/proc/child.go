package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Child is a started command. All methods are safe for concurrent use.
type Child struct {
	id       ID
	started  time.Time
	confined *Confinement // nil: no sandbox, or it was not known in time
	cgroup   *Cgroup      // nil: the agent's own
	stdin    *os.File     // nil: no pipe
	done     chan struct{}
	exit     Exit // valid once done is closed

	mu     sync.Mutex
	reaped bool // its PID may belong to another process
}

// Exit is how a process ended.
type Exit struct {
	Code   int            // exit status; -1 when a signal ended it
	Signal syscall.Signal // 0 when none did
	CPU    time.Duration  // user and system time; of all in its cgroup where it has one
	At     time.Time
	Err    error // the end could not be observed
}

// OK reports whether the process ended with exit status 0.
func (e Exit) OK() bool { return e.Err == nil && e.Code == 0 && e.Signal == 0 }

func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Signal != 0:
		return "killed by " + SignalName(e.Signal)
	default:
		return fmt.Sprintf("exit status %d", e.Code)
	}
}

// SignalName is a signal's name, such as SIGKILL.
func SignalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}

// Start starts a command as the leader of a process group of its own.
//
// The kernel kills the child when the thread that started it ends, so one goroutine
// starts it, waits for it, and keeps its thread until then. What that thread gives up
// for the child (priority, CPUs, ambient capabilities) it never gets back: the thread
// ends with the child.
func Start(c Command) (*Child, error) {
	cmd := c.cmd()
	pipes, err := connect(&c, cmd)
	if err != nil {
		return nil, fmt.Errorf("creating pipes for %s: %w", c.Path, err)
	}
	var hands *handshake
	if c.Sandbox != nil {
		if hands, err = c.Sandbox.wrap(&c, cmd); err != nil {
			pipes.close()
			return nil, fmt.Errorf("preparing the sandbox of %s: %w", c.Path, err)
		}
	}
	child := &Child{cgroup: c.Cgroup, stdin: pipes.stdin, done: make(chan struct{})}
	started := make(chan error, 1)
	go child.run(cmd, &c, pipes, hands, started)
	if err := <-started; err != nil {
		<-child.done
		return nil, fmt.Errorf("starting %s: %w", c.Path, err)
	}
	return child, nil
}

// run starts the child, waits for its end and reaps it.
func (c *Child) run(cmd *exec.Cmd, command *Command, pipes *pipes, hands *handshake, started chan<- error) {
	defer close(c.done)
	defer pipes.close()
	if hands != nil {
		defer hands.close()
	}
	defer func() {
		if v := recover(); v != nil {
			c.exit.Err = fmt.Errorf("panic while running %s: %v\n%s", cmd.Path, v, debug.Stack())
			select {
			case started <- c.exit.Err:
			default:
			}
		}
	}()
	runtime.LockOSThread() // never unlocked, see Start

	if err := prepareThread(command); err != nil {
		started <- err
		return
	}
	c.started = time.Now()
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	err := joinCgroup(cmd.Process.Pid, command.Cgroup)
	if err == nil {
		err = setResourceLimits(cmd.Process.Pid, command.Limits)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		started <- err
		return
	}
	pipes.startReading()
	if hands != nil {
		hands.started()
		var err error
		if c.confined, err = hands.await(); err != nil {
			_ = cmd.Wait()
			started <- err
			return
		}
		c.started = time.Now()
	}
	c.id = ID{PID: cmd.Process.Pid, BootID: BootID(), Cgroup: c.cgroup.outermost()}
	if s, err := ReadStat(c.id.PID); err == nil {
		c.id.StartTicks = s.StartTicks
	}
	started <- nil

	if awaitExit(c.id.PID) {
		c.Signal(syscall.SIGKILL) // the rest of its group; it has ended itself
		c.markReaped()
	}
	err = cmd.Wait()
	c.markReaped()
	c.exit.set(err, cmd.ProcessState)
	if cpu, ok := c.cgroup.CPUTime(); ok {
		c.exit.CPU = cpu
	}
	pipes.finish()
}

// markReaped ends the time in which the PID is known to be the child's.
func (c *Child) markReaped() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reaped {
		c.reaped, c.exit.At = true, time.Now()
	}
}

// set takes the result of waiting for a process.
func (e *Exit) set(err error, state *os.ProcessState) {
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		e.Err = fmt.Errorf("waiting for a process: %w", err)
		return
	}
	e.Code = state.ExitCode()
	e.CPU = state.UserTime() + state.SystemTime()
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal()
	}
}

// ID identifies the child.
func (c *Child) ID() ID { return c.id }

// Confinement is what its sandbox consists of; nil where it has none, and where its start
// took longer than Start waits.
func (c *Child) Confinement() *Confinement { return c.confined }

// Started is when it was started; with a sandbox, when its helper became the command.
func (c *Child) Started() time.Time { return c.started }

// Cgroup is the cgroup that it was born in; nil for the agent's own.
func (c *Child) Cgroup() *Cgroup { return c.cgroup }

// Stdin is the writing end of its standard input, which is closed at the latest when
// the child has ended; nil unless the command asked for a pipe.
func (c *Child) Stdin() *os.File { return c.stdin }

// Done is closed when the child has ended and its sinks have returned.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit waits until the child is done and returns how it ended.
func (c *Child) Exit() Exit {
	<-c.done
	return c.exit
}

// Signal sends a signal to the whole process group, and never to a later process with
// the same PID. SIGKILL also reaches processes that left the group but not the cgroup.
func (c *Child) Signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reaped {
		_ = syscall.Kill(-c.id.PID, s) // fails only where all have ended
		if s == syscall.SIGKILL {
			c.cgroup.kill()
		}
	}
}

// Stop sends SIGTERM and, when the grace period is over, SIGKILL. It returns when the
// child is done. A stopped process is continued, since it would not see the SIGTERM.
func (c *Child) Stop(grace time.Duration) {
	c.Signal(syscall.SIGTERM)
	c.Signal(syscall.SIGCONT)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		c.Signal(syscall.SIGKILL)
		<-c.done
	}
}

// CPUTime is the CPU time used so far, of all in its cgroup where it has one; false
// while it is unknown.
func (c *Child) CPUTime() (time.Duration, bool) {
	select {
	case <-c.done:
		return c.exit.CPU, c.exit.Err == nil
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return 0, false
	}
	if cpu, ok := c.cgroup.CPUTime(); ok {
		return cpu, true
	}
	s, err := ReadStat(c.id.PID)
	return s.CPU, err == nil
}

// Resident is the memory that the child has resident, in bytes; false when it has ended.
func (c *Child) Resident() (bytes int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return 0, false
	}
	bytes, err := Resident(c.id.PID)
	return bytes, err == nil
}

// Threads is the number of its threads; false where it is not known, as after its end.
func (c *Child) Threads() (n int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return 0, false
	}
	s, err := ReadStat(c.id.PID)
	return s.Threads, err == nil
}

// Run runs a command to its end, or kills it when the context is done. The error is the
// context's, or why the command could not be started or its end not be observed.
func Run(ctx context.Context, c Command) (Exit, error) {
	_, exit, err := RunConfined(ctx, c)
	return exit, err
}

// RunConfined is Run for a command in a sandbox, and returns the child's Confinement as well.
func RunConfined(ctx context.Context, c Command) (*Confinement, Exit, error) {
	if err := ctx.Err(); err != nil {
		return nil, Exit{}, err
	}
	child, err := Start(c)
	if err != nil {
		return nil, Exit{}, err
	}
	select {
	case <-child.done:
		return child.confined, child.exit, child.exit.Err
	case <-ctx.Done():
		child.Signal(syscall.SIGKILL)
		return child.confined, child.Exit(), ctx.Err()
	}
}
