package hardware

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"ffmpeg-agent/hardware/proc"
)

// nvmlChildEnv are the variables of the agent's environment that the child inherits: the paths
// of libraries and programs, and no secrets.
var nvmlChildEnv = []string{"PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LANG", "LC_ALL", "TMPDIR"}

// drainTimeout limits how long the child's pipes are read after it has exited.
const drainTimeout = time.Second

// nvmlChild is a child process that reads the cards.
type nvmlChild struct {
	*proc.Child
	lines  chan nvmlLine // closed at the end of its output
	stderr stderrTail
}

// nvmlLine is a line of the child's output, or the error of reading it.
type nvmlLine struct {
	text []byte
	err  error
}

func startNVMLChild(argv []string) (*nvmlChild, error) {
	if len(argv) == 0 {
		return nil, errors.New("starting the NVML process: no command")
	}
	c := &nvmlChild{lines: make(chan nvmlLine, 4)}
	child, err := proc.Start(proc.Command{
		Path: argv[0], Args: argv[1:], Dir: "/",
		Env:          []string{"GOMAXPROCS=1"}, // enough for one request at a time; saves a third of the child's CPU time
		PassEnv:      func(name string) bool { return slices.Contains(nvmlChildEnv, name) },
		AllowSetuid:  true, // libnvidia-ml creates device nodes with nvidia-modprobe
		Stdin:        true,
		Stdout:       c.readLines,
		Stderr:       c.stderr.read,
		DrainTimeout: drainTimeout,
	})
	if err != nil {
		return nil, fmt.Errorf("starting the NVML process: %w", err)
	}
	c.Child = child
	return c, nil
}

// readLines sends the child's lines to c.lines until the child's output ends. A child responds
// to one request at a time. Lines beyond that are kept only as far as is needed to detect that
// the child is broken, and then dropped.
func (c *nvmlChild) readLines(from io.Reader) {
	defer close(c.lines)
	pass := func(line nvmlLine) {
		select {
		case c.lines <- line:
		default:
		}
	}
	scanner := bufio.NewScanner(from)
	scanner.Buffer(nil, maxResponse)
	for scanner.Scan() {
		pass(nvmlLine{text: bytes.Clone(scanner.Bytes())})
	}
	if errors.Is(scanner.Err(), bufio.ErrTooLong) {
		pass(nvmlLine{err: fmt.Errorf("a line of more than %d bytes", maxResponse)})
		_, _ = io.Copy(io.Discard, from)
	}
}

// send writes values to the child as lines. It fails after the timeout if the child hangs.
func (c *nvmlChild) send(timeout time.Duration, values ...any) error {
	var lines []byte
	for _, value := range values {
		line, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("encoding a request: %w", err)
		}
		lines = append(append(lines, line...), '\n')
	}
	_ = c.Stdin().SetWriteDeadline(time.Now().Add(timeout))
	if _, err := c.Stdin().Write(lines); err != nil {
		return fmt.Errorf("writing to the NVML process: %w", withoutPath(err))
	}
	return nil
}

func (c *nvmlChild) kill() { c.Signal(syscall.SIGKILL) }

// closeInput asks the child to shut NVML down and exit. The child kills itself if that takes
// longer than orphanGrace.
func (c *nvmlChild) closeInput() { c.Stdin().Close() }

// waitDone waits for the child to exit, and reports whether it has.
func (c *nvmlChild) waitDone(timeout time.Duration) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-c.Done():
		return true
	case <-timer.C:
		return false
	}
}

// exitError returns how a child whose output has ended has exited, with the last lines of its
// standard error.
func (c *nvmlChild) exitError() error {
	if !c.waitDone(2 * drainTimeout) {
		return errors.New("the NVML process closed its output")
	}
	reason := c.Exit().String()
	if lines := c.stderr.String(); lines != "" {
		reason += ": " + lines
	}
	return fmt.Errorf("the NVML process ended: %s", reason)
}

// stderrTail keeps the last lines of a child's standard error. Of the Go traceback that a fault
// in the library causes, it keeps only the NVML call in which the fault occurred.
type stderrTail struct {
	mu    sync.Mutex
	lines []string
}

// Limits of a stderrTail: lines, and bytes of each.
const tailLines, tailLineBytes = 5, 200

// nvmlCall matches a call of NVML in a traceback.
var nvmlCall = regexp.MustCompile(`_Cfunc_(nvml\w+)\(`)

func (t *stderrTail) read(from io.Reader) {
	in := bufio.NewReader(from)
	for traceback := false; ; {
		line, err := in.ReadSlice('\n')
		if call := nvmlCall.FindSubmatch(line); traceback && call != nil {
			t.add("in " + string(call[1]))
		}
		traceback = traceback || bytes.HasPrefix(line, []byte("goroutine "))
		if !traceback {
			t.add(string(line))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (t *stderrTail) add(line string) {
	line = strings.TrimSpace(strings.ToValidUTF8(line[:min(len(line), tailLineBytes)], "\uFFFD"))
	if line == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line)
	t.lines = t.lines[max(0, len(t.lines)-tailLines):]
}

// String returns the lines joined into one.
func (t *stderrTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "; ")
}
