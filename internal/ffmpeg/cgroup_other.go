//go:build !linux

package ffmpeg

import (
	"syscall"
	"time"
)

// cgroups is what Linux alone has.
type cgroups struct {
	parent, why, lack string
	controllers       []string
}

func findCgroups(string) cgroups { return cgroups{why: "cgroups are Linux's"} }

func (cgroups) make(string) (*cgroup, error) { return nil, nil }

func (cgroups) ours(string) bool { return false }

func (cgroups) sweep(func(string) bool) (int, error) { return 0, nil }

type cgroup struct{}

func (*cgroup) child(string) (*cgroup, error) { return nil, nil }

func (*cgroup) set(_, _, _ string) error { return nil }

func (*cgroup) count(_, _ string) int64 { return 0 }

func (*cgroup) value(string) (int64, bool) { return 0, false }

func (*cgroup) name() string { return "" }

func (*cgroup) join(*syscall.SysProcAttr) {}

func (*cgroup) usage() (time.Duration, bool) { return 0, false }

func (*cgroup) kill() {}

func (*cgroup) remove() error { return nil }

func killCgroup(string) error { return nil }

func removeCgroup(string) error { return nil }
