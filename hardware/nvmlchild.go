package hardware

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// childPasses are the variables that the child gets of our environment: where to
// find libraries and programs. It gets no secret.
var childPasses = []string{"PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LANG", "LC_ALL", "TMPDIR"}

// drainFor bounds how long after the child's end its pipes are read: they end with it
// unless somebody else holds them open.
const drainFor = time.Second

// nvmlChild is one child process from its start to its end.
type nvmlChild struct {
	stdin   *os.File
	lines   chan nvmlLine
	ended   chan struct{} // closed when the process is gone
	done    chan struct{} // closed when its pipes were read as well
	exit    error         // how it ended; valid once done is closed
	stderr  tail
	started time.Time
	ready   bool      // it has answered
	leaving time.Time // when it was told to end, or killed; zero: it was not
	asked   int64     // when the latest request was sent; CLOCK_MONOTONIC

	mu   sync.Mutex
	pid  int
	gone bool // its number may be somebody else's
}

// nvmlLine is a line of the child's, or why there are no more.
type nvmlLine struct {
	text []byte
	err  error
}

// startNVMLChild starts a child. The kernel kills it when the thread that started
// it ends, so one goroutine starts it, waits for it, and keeps its thread until then.
func startNVMLChild(argv []string) (*nvmlChild, error) {
	if len(argv) == 0 {
		return nil, errors.New("starting the NVML process: no command")
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = childEnvironment()
	cmd.SysProcAttr = childAttributes()
	c := &nvmlChild{
		lines: make(chan nvmlLine, 4), ended: make(chan struct{}), done: make(chan struct{}), started: time.Now(),
	}
	started := make(chan error, 1)
	go c.live(cmd, started)
	if err := <-started; err != nil {
		<-c.done
		return nil, fmt.Errorf("starting the NVML process: %w", err)
	}
	return c, nil
}

// childEnvironment is what of ours the child gets. One processor is enough for one
// request at a time, and spares it a third of its CPU time.
func childEnvironment() []string {
	env := []string{"GOMAXPROCS=1"}
	for _, name := range childPasses {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// live is the child from its start to its end.
func (c *nvmlChild) live(cmd *exec.Cmd, started chan<- error) {
	defer close(c.done)
	runtime.LockOSThread() // for good: the thread ends with the child
	readers, err := c.connect(cmd)
	if err == nil {
		err = cmd.Start()
		closeAll(cmd.Stdin, cmd.Stdout, cmd.Stderr)
	}
	if err != nil {
		close(c.ended)
		closeAll(c.stdin)
		for _, r := range readers {
			r.Close()
		}
		started <- err
		return
	}
	c.pid = cmd.Process.Pid
	var reading sync.WaitGroup
	reading.Go(func() { c.readAnswers(readers[0]) })
	reading.Go(func() { c.stderr.read(readers[1]) })
	started <- nil

	if awaitEnd(c.pid) {
		c.kill() // whoever it left behind; it has ended itself
	}
	c.mu.Lock()
	c.gone = true // from here on the number may pass to another one
	c.mu.Unlock()
	c.exit = cmd.Wait()
	close(c.ended)
	for _, r := range readers {
		_ = r.SetReadDeadline(time.Now().Add(drainFor))
	}
	reading.Wait()
	c.stdin.Close()
	for _, r := range readers {
		r.Close()
	}
}

// connect makes the child's pipes, and returns our ends of its output and errors.
func (c *nvmlChild) connect(cmd *exec.Cmd) ([]*os.File, error) {
	in, stdin, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.stdin, cmd.Stdin = stdin, in
	var readers []*os.File
	for _, to := range []*io.Writer{&cmd.Stdout, &cmd.Stderr} {
		reader, writer, err := os.Pipe()
		if err != nil {
			closeAll(cmd.Stdin, cmd.Stdout)
			return readers, err
		}
		*to = writer
		readers = append(readers, reader)
	}
	return readers, nil
}

// closeAll closes what is a file.
func closeAll(ends ...any) {
	for _, end := range ends {
		if file, ok := end.(*os.File); ok && file != nil {
			file.Close()
		}
	}
}

// readAnswers hands on the child's lines until they end.
func (c *nvmlChild) readAnswers(from io.Reader) {
	defer close(c.lines)
	scanner := bufio.NewScanner(from)
	scanner.Buffer(nil, maxAnswer)
	for scanner.Scan() {
		if !c.hand(nvmlLine{text: bytes.Clone(scanner.Bytes())}) {
			return
		}
	}
	if err := scanner.Err(); errors.Is(err, bufio.ErrTooLong) {
		c.hand(nvmlLine{err: fmt.Errorf("a line of more than %d bytes", maxAnswer)})
		_, _ = io.Copy(io.Discard, from)
	}
}

// hand gives a line to whoever waits for it. After the child's end nobody need come
// any more: what finds no room is dropped.
func (c *nvmlChild) hand(line nvmlLine) bool {
	select {
	case c.lines <- line:
		return true
	default:
	}
	select {
	case c.lines <- line:
		return true
	case <-c.ended:
		return false
	}
}

// send writes lines to the child, which reads them at once if it is well.
func (c *nvmlChild) send(within time.Duration, values ...any) error {
	var lines []byte
	for _, value := range values {
		line, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("composing a request: %w", err)
		}
		lines = append(append(lines, line...), '\n')
	}
	_ = c.stdin.SetWriteDeadline(time.Now().Add(within))
	if _, err := c.stdin.Write(lines); err != nil {
		return fmt.Errorf("asking the NVML process: %w", withoutPath(err))
	}
	return nil
}

// kill kills the child and its group, never a stranger that got the number since.
func (c *nvmlChild) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone && c.pid > 0 {
		_ = syscall.Kill(-c.pid, syscall.SIGKILL) // it may have just ended, which is what was wanted
	}
}

// leave lets the child end by itself, which ends its library in order; it kills
// itself when that takes longer than orphanGrace.
func (c *nvmlChild) leave() { c.stdin.Close() }

// waitFor waits until the child is gone; false: it still is not.
func (c *nvmlChild) waitFor(within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-timer.C:
		return false
	}
}

// obituary says how the child ended, with the last it wrote to its standard error.
func (c *nvmlChild) obituary() error {
	if !c.waitFor(2 * drainFor) {
		return errors.New("the NVML process closed its output")
	}
	how := "exit status 0"
	if c.exit != nil {
		how = c.exit.Error()
	}
	if said := c.stderr.String(); said != "" {
		how += ": " + said
	}
	return fmt.Errorf("the NVML process ended: %s", how)
}

// tail keeps the last lines of a child's standard error. Of a Go traceback, with which a
// fault in the library ends the process, it keeps the call that the fault was in.
type tail struct {
	mu    sync.Mutex
	lines []string
}

// The bounds of what is kept.
const tailLines, tailLine = 5, 200

// inCall finds a call of NVML in a traceback.
var inCall = regexp.MustCompile(`_Cfunc_(nvml\w+)\(`)

func (t *tail) read(from io.Reader) {
	in := bufio.NewReader(from)
	for trace := false; ; {
		line, err := in.ReadSlice('\n')
		if call := inCall.FindSubmatch(line); trace && call != nil {
			t.add("in " + string(call[1]))
		}
		trace = trace || bytes.HasPrefix(line, []byte("goroutine "))
		if !trace {
			t.add(string(line))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (t *tail) add(line string) {
	line = strings.TrimSpace(strings.ToValidUTF8(line[:min(len(line), tailLine)], "\uFFFD"))
	if line == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line)
	t.lines = t.lines[max(0, len(t.lines)-tailLines):]
}

// String is what was kept, as one line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "; ")
}
