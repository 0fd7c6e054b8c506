//go:build unix && !linux

package ffmpeg

import (
	"context"
	"os"
	"syscall"
	"time"

	"ffmpeg-agent/messages/job"
)

// The twin for development elsewhere than on Linux: no parent-death signal, no
// process identity across lives, no files handed over by descriptor, no CPU time before the end.

func handedPath(f *os.File, _ int) string { return f.Name() }

func pathOf(f *os.File) (string, error) { return f.Name(), nil }

func sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

const boundsProcesses = false

func prepareThread(bounds) error { return nil }

func (bounds) bind(int) error { return nil }

func residentMemory(int) (int64, bool) { return 0, false }

func awaitExit(int) bool { return false }

func startTicks(int) (uint64, bool) { return 0, false }

func cpuTime(int) (time.Duration, bool) { return 0, false }

func bootID() string { return "" }

func kill(context.Context, job.Process, string) error { return nil }
