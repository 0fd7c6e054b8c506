package proc

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Command is a process to be started. It inherits nothing of the agent's but what is
// named here.
type Command struct {
	Path string
	Args []string // without the program's name
	Dir  string

	Env     []string               // NAME=VALUE
	PassEnv func(name string) bool // variables of the agent's environment to pass on; nil: none

	Sandbox *Sandbox // nil: none
	Limits  Limits
	Cgroup  *Cgroup // it is born in; nil: the agent's own
	// AllowSetuid lets it gain privileges by executing setuid programs, as libnvidia-ml
	// does with nvidia-modprobe.
	AllowSetuid bool

	// Stdin gives it a pipe as standard input, see Child.Stdin; else it reads end of file.
	Stdin bool
	// Each sink that is set gets the reading end of a pipe and runs on a goroutine of its
	// own. What it leaves unread is discarded. FD3 reads what is written to descriptor 3.
	Stdout, Stderr, FD3 func(io.Reader)
	// Files are its descriptors from FirstFile on; nil leaves a descriptor closed.
	Files []*os.File
	// DrainTimeout bounds how long its pipes are read after its end: they end with it
	// unless another process holds them open. 0 is 2 s.
	DrainTimeout time.Duration
}

// FirstFile is the descriptor of a command's first file.
const FirstFile = 4

// Limits bound one process. Zero fields set no bound.
type Limits struct {
	Nice      int   // added to the agent's own, 0 to 19
	CPUs      int   // whole ones that it may run on
	FirstCPU  int   // the first of them, counted among those that the agent may run on
	FileBytes int64 // size of any file it writes (RLIMIT_FSIZE)
	DataBytes int64 // private memory that it may reserve, used or not (RLIMIT_DATA)
}

// cmd prepares the command, without its sandbox.
func (c *Command) cmd() *exec.Cmd {
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = c.environment()
	cmd.SysProcAttr = sysProcAttr(c.Cgroup)
	return cmd
}

// environment is never nil: nil would pass on the agent's.
func (c *Command) environment() []string {
	env := append([]string{}, c.Env...)
	if c.PassEnv == nil {
		return env
	}
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); c.PassEnv(name) {
			env = append(env, entry)
		}
	}
	return env
}
