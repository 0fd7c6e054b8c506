//go:build unix && !linux

package proc

import (
	"context"
	"os"
	"syscall"
)

// For development on other systems: no parent-death signal, no limits, no identity of
// processes across restarts, no CPU time before the end.

// LimitsSupported: Limits other than the defaults take effect on this platform.
const LimitsSupported = false

func sysProcAttr(*Cgroup) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func prepareThread(*Command) error { return nil }

func joinCgroup(int, *Cgroup) error { return nil }

func setResourceLimits(int, Limits) error { return nil }

func awaitExit(int) bool { return false }

// Kill does nothing: a process cannot be identified across restarts here.
func (id ID) Kill(context.Context) error { return nil }

// FilePath is the path by which a child opens a file of its command.
func FilePath(f *os.File, _ int) string { return f.Name() }

// CurrentPath is the path of an open file of the agent.
func CurrentPath(f *os.File) (string, error) { return f.Name(), nil }
