//go:build unix && !linux

package ffmpeg

import (
	"context"
	"syscall"
	"time"

	"ffmpeg-agent/messages"
)

// The twin for development elsewhere than on Linux: no parent-death signal, no
// process identity across lives, no CPU time before the end.

func sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func prepareThread(int) error { return nil }

func awaitExit(int) bool { return false }

func startTicks(int) (uint64, bool) { return 0, false }

func cpuTime(int) (time.Duration, bool) { return 0, false }

func bootID() string { return "" }

func kill(context.Context, messages.Process, string) error { return nil }
