//go:build !linux

package ffmpeg

import (
	"syscall"
	"time"
)

// cgroups is what Linux alone has.
type cgroups struct{ parent, why string }

func findCgroups(string) cgroups { return cgroups{why: "cgroups are Linux's"} }

func (cgroups) make(string) (*cgroup, error) { return nil, nil }

func (cgroups) ours(string) bool { return false }

func (cgroups) sweep(func(string) bool) (int, error) { return 0, nil }

type cgroup struct{}

func (*cgroup) name() string { return "" }

func (*cgroup) join(*syscall.SysProcAttr) {}

func (*cgroup) usage() (time.Duration, bool) { return 0, false }

func (*cgroup) kill() {}

func (*cgroup) remove() error { return nil }

func killCgroup(string) error { return nil }

func removeCgroup(string) error { return nil }
