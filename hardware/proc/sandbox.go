package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Sandbox restricts a command to what it is given here. The command's process first runs a
// helper, this very program (see Confine), which gives up everything else and then becomes
// the command: the PID, the process group, the cgroup and the parent-death signal stay.
//
// It is built of layers, each of which a kernel or a container may lack. Those that could
// not be had are in the child's Confinement.
type Sandbox struct {
	// Helper is the command line of the helper, to which two arguments are added.
	Helper []string `json:"-"`

	// Files and folders, with all below them. What does not exist is left out. One of
	// Command.Files is listed by its FilePath, which leads to it in the command's process alone.
	Run     []string // programs and libraries: read and executed
	Read    []string
	Write   []string // written, and read; in folders, files are created and removed
	Devices []string // read, written, and controlled

	Network Network

	// Programs lets it start other programs: it is a script. Without, it can start threads
	// only.
	Programs bool
	Drivers  bool  // it may share memory with drivers of graphics cards
	User     *User // it runs as; nil: the agent's. Needs CAP_SETUID
	// OOMScoreAdj is its oom_score_adj, -1000 to 1000: with a higher one than the agent's the
	// kernel ends it first when memory is short.
	OOMScoreAdj int

	Without []Layer // layers that are left out
}

// Network is what a command may reach over the network: nothing unless Allowed.
type Network struct {
	Allowed  bool
	TCPPorts []uint16 // that it may connect to; empty: any
	UDP      bool     // such as to resolve names
	BindUDP  bool     // from a port that it chooses
}

// User is a user of this system.
type User struct {
	UID, GID int
	Groups   []int // supplementary
}

// Layer is one part of a sandbox.
type Layer string

// The layers, in the order in which they are named to people.
const (
	NoNewPrivs   Layer = "no_new_privs"  // no privileges by setuid programs
	Capabilities Layer = "capabilities"  // none, but for CAP_DAC_OVERRIDE where the agent is root
	Landlock     Layer = "landlock"      // files, TCP ports, signals
	Seccomp      Layer = "seccomp"       // system calls
	ResourceMax  Layer = "rlimits"       // no core files, 1024 descriptors
	OOMScore     Layer = "oom_score_adj" // killed before the agent when memory is short
)

// Layers are all layers.
func Layers() []Layer {
	return []Layer{NoNewPrivs, Capabilities, Landlock, Seccomp, ResourceMax, OOMScore}
}

func (s *Sandbox) has(l Layer) bool { return !slices.Contains(s.Without, l) }

// Confinement is what a sandbox consists of.
type Confinement struct {
	Missing map[Layer]string `json:"missing,omitempty"` // layers that could not be had, and why
	// Lacks names what a layer does not restrict on this kernel.
	Lacks map[Layer]string `json:"lacks,omitempty"`
}

// confined is what the helper reports, as one or two JSON values: the second where it could
// not become the command.
type confined struct {
	Confinement
	Error string        `json:"error,omitempty"`
	Errno syscall.Errno `json:"errno,omitempty"` // of the error; 0: none
}

// order is what the helper is asked to do.
type order struct {
	Sandbox Sandbox  `json:"sandbox"`
	Path    string   `json:"path"`
	Args    []string `json:"args"` // with the program's name
	Parent  int      `json:"parent"`
}

// confineTimeout bounds how long Start waits for a command to start in its sandbox. One that
// takes longer, such as where a file system hangs, goes on by itself.
const confineTimeout = 30 * time.Second

// handshake is the agent's side of the helper's start.
type handshake struct {
	order  *os.File // the helper's
	report *os.File // the agent's end of a pipe that closes once the helper is the command
	child  *os.File // the helper's end
}

// wrap makes a command start in a sandbox.
func (s *Sandbox) wrap(c *Command, cmd *exec.Cmd) (*handshake, error) {
	raw, err := json.Marshal(order{Sandbox: *s, Path: c.Path, Args: cmd.Args, Parent: os.Getpid()})
	if err != nil {
		return nil, err
	}
	h := &handshake{}
	if h.order, err = memoryFile(raw); err != nil {
		return nil, err
	}
	if h.report, h.child, err = os.Pipe(); err != nil {
		h.close()
		return nil, err
	}
	if cmd.ExtraFiles == nil {
		cmd.ExtraFiles = []*os.File{nil}
	}
	fd := 3 + len(cmd.ExtraFiles)
	cmd.ExtraFiles = append(cmd.ExtraFiles, h.order, h.child)
	cmd.Path = s.Helper[0]
	cmd.Args = append(slices.Clone(s.Helper), strconv.Itoa(fd), strconv.Itoa(fd+1))
	cmd.Err = nil // of looking the command up, which is up to the helper
	return h, nil
}

// started leaves the helper's files to the helper.
func (h *handshake) started() { _, _ = h.order.Close(), h.child.Close() }

func (h *handshake) close() { _, _, _ = h.order.Close(), h.report.Close(), h.child.Close() }

// await returns once the helper has become the command, or why it has not.
func (h *handshake) await() (*Confinement, error) {
	_ = h.report.SetReadDeadline(time.Now().Add(confineTimeout))
	raw, err := io.ReadAll(io.LimitReader(h.report, 64<<10))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, nil
	}
	var report confined
	values := json.NewDecoder(strings.NewReader(string(raw)))
	for err == nil {
		err = values.Decode(&report)
	}
	switch {
	case report.Errno != 0:
		return nil, fmt.Errorf("%s: %w", report.Error, report.Errno)
	case report.Error != "":
		return nil, errors.New(report.Error)
	case len(raw) == 0 || !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("the sandbox's helper reported %.200q: %w", raw, err)
	}
	return &report.Confinement, nil
}
