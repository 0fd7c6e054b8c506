package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ffmpeg-agent/messages/job"

	"golang.org/x/sys/unix"
)

// drainFor bounds how long after a process's end its pipes are read: they end with
// it unless somebody else holds them open.
const drainFor = 2 * time.Second

// command is a process to be started. Each sink that is set gets a pipe of its own
// and is called on its own goroutine with the reading end.
type command struct {
	path     string
	args     []string // without the program's name
	dir      string
	bounds   bounds
	cgroup   *cgroup // nil: the agent's own
	stdout   func(io.Reader)
	stderr   func(io.Reader)
	progress func(io.Reader) // file descriptor 3
	files    []*os.File      // descriptors from firstHanded on; nil: closed there
}

// firstHanded is the descriptor under which a child finds the first of its files.
const firstHanded = 4

// exitStatus is how a process ended.
type exitStatus struct {
	code   int            // exit status; -1 when a signal ended it
	signal syscall.Signal // 0 when none did
	cpu    time.Duration  // user and system time
	at     time.Time
	err    error // the end could not be observed
}

func (e exitStatus) ok() bool { return e.err == nil && e.code == 0 && e.signal == 0 }

func (e exitStatus) String() string {
	switch {
	case e.err != nil:
		return e.err.Error()
	case e.signal != 0:
		return "killed by " + signalName(e.signal)
	default:
		return fmt.Sprintf("exit status %d", e.code)
	}
}

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}

// process is a started command.
type process struct {
	id      job.Process
	started time.Time
	done    chan struct{} // closed when it has ended and its pipes were read
	exit    exitStatus    // valid once done is closed
	cgroup  *cgroup       // nil: the agent's own

	over atomic.Pointer[job.Failure] // the limit for which it was ended

	mu   sync.Mutex
	gone bool // it has ended: its number may soon be somebody else's
}

// start starts a command in a process group of its own. The operating system
// kills it when the thread that started it ends, so one goroutine starts it, waits
// for it, and keeps its thread until then. What that thread gives up before (its
// priority, ambient capabilities) it never gets back: the thread ends with the process.
func start(c command, bootID string) (*process, error) {
	cmd := exec.Command(c.path, c.args...)
	cmd.Dir = c.dir
	cmd.Env = environment(c.dir)
	cmd.SysProcAttr = sysProcAttr()
	c.cgroup.join(cmd.SysProcAttr)
	pipes, err := connect(cmd, c)
	if err != nil {
		return nil, fmt.Errorf("making pipes for %s: %w", c.path, err)
	}

	p := &process{done: make(chan struct{}), cgroup: c.cgroup}
	started := make(chan error, 1)
	go p.live(cmd, c.bounds, bootID, pipes, started)
	if err := <-started; err != nil {
		<-p.done
		return nil, fmt.Errorf("starting %s: %w", c.path, err)
	}
	return p, nil
}

// live is a process from its start to its end.
func (p *process) live(cmd *exec.Cmd, b bounds, bootID string, pipes *pipes, started chan<- error) {
	defer close(p.done)
	defer pipes.close()
	defer func() {
		if v := recover(); v != nil {
			p.exit.err = fmt.Errorf("panic while running %s: %v\n%s", cmd.Path, v, debug.Stack())
			select {
			case started <- p.exit.err:
			default:
			}
		}
	}()
	runtime.LockOSThread() // for good, see start

	if err := prepareThread(b); err != nil {
		started <- err
		return
	}
	p.started = time.Now()
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	if err := b.bind(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		started <- err
		return
	}
	pipes.startReading()
	p.id = job.Process{PID: cmd.Process.Pid, BootID: bootID, Cgroup: p.cgroup.name()}
	p.id.StartTicks, _ = startTicks(p.id.PID)
	started <- nil

	if awaitExit(p.id.PID) {
		p.signal(syscall.SIGKILL) // whoever it left behind; it has ended itself
		p.forget()
	}
	err := cmd.Wait()
	p.forget()
	p.exit.take(err, cmd.ProcessState)
	if cpu, ok := p.cgroup.usage(); ok {
		p.exit.cpu = cpu // of all that ran there, not only of those that were waited for
	}
	pipes.drain()
}

// forget ends the time in which the process's number is known to be its own.
func (p *process) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		p.gone, p.exit.at = true, time.Now()
	}
}

// take reads the end of a process that was waited for.
func (e *exitStatus) take(err error, state *os.ProcessState) {
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		e.err = fmt.Errorf("waiting for a process: %w", err)
		return
	}
	e.code = state.ExitCode()
	e.cpu = state.UserTime() + state.SystemTime()
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.signal = ws.Signal()
	}
}

// signal sends a signal to the whole process group, never to a stranger that got the
// number since. A kill takes the cgroup as well, whatever left the group.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		_ = syscall.Kill(-p.id.PID, s) // it may have just ended, which is what was wanted
		if s == syscall.SIGKILL {
			p.cgroup.kill()
		}
	}
}

// stop asks the group to end and kills it when grace is over. A stopped process
// would not hear the question, so it is continued. It returns when all have ended.
func (p *process) stop(grace time.Duration) {
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// usage is the CPU time used so far; false while it is not known.
func (p *process) usage() (time.Duration, bool) {
	select {
	case <-p.done:
		return p.exit.cpu, p.exit.err == nil
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return 0, false
	}
	if cpu, ok := p.cgroup.usage(); ok {
		return cpu, true
	}
	return cpuTime(p.id.PID)
}

// resident is the memory it has now; false when it has ended.
func (p *process) resident() (bytes int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return 0, false
	}
	return residentMemory(p.id.PID)
}

// exceed ends it for a limit.
func (p *process) exceed(f *job.Failure) {
	p.over.CompareAndSwap(nil, f)
	p.signal(syscall.SIGKILL)
}

// finish runs a command to its end, or kills it when the context is done.
func finish(ctx context.Context, c command, bootID string) (exitStatus, error) {
	if err := ctx.Err(); err != nil {
		return exitStatus{}, err
	}
	p, err := start(c, bootID)
	if err != nil {
		return exitStatus{}, err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.signal(syscall.SIGKILL)
		<-p.done
		return p.exit, ctx.Err()
	}
	return p.exit, p.exit.err
}

// pipes are the pipes between a process and its sinks.
type pipes struct {
	child   []*os.File
	parent  []*os.File
	sinks   []func(io.Reader)
	reading sync.WaitGroup
}

func connect(cmd *exec.Cmd, c command) (*pipes, error) {
	p := &pipes{}
	pipe := func(sink func(io.Reader)) (*os.File, error) {
		r, w, err := os.Pipe()
		if err != nil {
			p.close()
			return nil, err
		}
		p.parent, p.child, p.sinks = append(p.parent, r), append(p.child, w), append(p.sinks, sink)
		return w, nil
	}
	if c.stdout != nil {
		w, err := pipe(c.stdout)
		if err != nil {
			return nil, err
		}
		cmd.Stdout = w
	}
	if c.stderr != nil {
		w, err := pipe(c.stderr)
		if err != nil {
			return nil, err
		}
		cmd.Stderr = w
	}
	if c.progress != nil {
		w, err := pipe(c.progress)
		if err != nil {
			return nil, err
		}
		cmd.ExtraFiles = []*os.File{w}
	}
	if len(c.files) > 0 {
		cmd.ExtraFiles = append(append(cmd.ExtraFiles, make([]*os.File, 1-len(cmd.ExtraFiles))...), c.files...)
	}
	return p, nil
}

// startReading gives the writing ends to the child alone and begins to read.
func (p *pipes) startReading() {
	for _, w := range p.child {
		_ = w.Close()
	}
	for i, sink := range p.sinks {
		r := p.parent[i]
		p.reading.Go(func() {
			defer func() {
				_ = recover() // a broken reader must not fail the process, nor block it:
				_, _ = io.Copy(io.Discard, r)
			}()
			sink(r)
		})
	}
}

// drain waits until the pipes were read to their end.
func (p *pipes) drain() {
	deadline := time.Now().Add(drainFor)
	for _, r := range p.parent {
		_ = r.SetReadDeadline(deadline)
	}
	p.reading.Wait()
}

func (p *pipes) close() {
	for _, f := range append(p.parent, p.child...) {
		_ = f.Close()
	}
}

// environment is all that a child gets of the agent's environment: what loaders,
// GPU drivers and TLS need, and never a key. Its home is its workspace.
func environment(dir string) []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/bin:/usr/bin:/bin"
	}
	env := []string{"PATH=" + path, "HOME=" + dir, "TMPDIR=" + dir, "LANG=C", "LC_ALL=C"}
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); passedOn(name) {
			env = append(env, entry)
		}
	}
	return env
}

func passedOn(name string) bool {
	switch name {
	case "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LIBVA_DRIVER_NAME", "LIBVA_DRIVERS_PATH",
		"GPU_DEVICE_ORDINAL", "SSL_CERT_FILE", "SSL_CERT_DIR":
		return true
	}
	if !strings.HasPrefix(name, "NVIDIA_") {
		return false
	}
	for _, word := range []string{"KEY", "TOKEN", "SECRET", "PASSWORD"} {
		if strings.Contains(name, word) {
			return false
		}
	}
	return true
}
