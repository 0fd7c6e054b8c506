package ffmpeg

import (
	"errors"
	"fmt"
	"syscall"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func failure(reason protocol.FailureReason, format string, args ...any) *job.Failure {
	return &job.Failure{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// osFailure is the failure of an operation of the agent itself.
func osFailure(err error) *job.Failure {
	for _, errno := range []syscall.Errno{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.ENOMEM, syscall.EAGAIN, syscall.EMFILE, syscall.ENFILE,
	} {
		if errors.Is(err, errno) {
			return failure(protocol.ReasonResourceError, "%v", err)
		}
	}
	return failure(protocol.ReasonPlatformError, "%v", err)
}

// stopFailure is the failure of a run that was stopped.
func (r *Run) stopFailure(cause job.StopCause) *job.Failure {
	switch cause {
	case job.StopTimeout:
		return failure(protocol.ReasonTimeout, "timeout after %s", r.plan.timeout)
	case job.StopStalled:
		return failure(protocol.ReasonTimeout, "FFmpeg made no progress for %s", r.settings.StallTimeout)
	case job.StopUnanswered:
		return failure(protocol.ReasonTimeout, "a file system that the job uses did not answer for %s", r.settings.StallTimeout)
	case job.StopShutdown:
		return failure(protocol.ReasonPlatformError, "interrupted: agent shutting down")
	case job.StopSuperseded:
		return failure(protocol.ReasonPlatformError, "interrupted: the master reassigned the job")
	}
	return failure(protocol.ReasonPlatformError, "interrupted: %s", cause)
}

// stoppedExit is FFmpeg's exit status after SIGTERM.
const stoppedExit = 255

// ranOutOfResources reports whether FFmpeg's exit status is that of missing memory or disk
// space: since version 7 the status is the error number, negated, in one byte.
func ranOutOfResources(exit proc.Exit) bool {
	if exit.Signal != 0 || exit.Code < 128 {
		return false
	}
	switch syscall.Errno(256 - exit.Code) {
	case syscall.ENOMEM, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return true
	}
	return false
}

// Error numbers of libavutil/error.h, as ffprobe reports them.
const avInvalidData = -('I' | 'N'<<8 | 'D'<<16 | 'A'<<24)

func avHTTP(a, b, c int) int { return -(0xF8 | a<<8 | b<<16 | c<<24) }

// inputFailure decides by ffprobe's error number whether the network failed or the input
// itself is bad.
func inputFailure(e probeError, network bool) *job.Failure {
	reason := protocol.ReasonInputError
	if network {
		reason = protocol.ReasonNetworkError
		switch e.Code {
		case avInvalidData, -int(syscall.EINVAL), -int(syscall.ENOENT),
			avHTTP('4', '0', '0'), avHTTP('4', '0', '1'), avHTTP('4', '0', '3'), avHTTP('4', '0', '4'), avHTTP('4', 'X', 'X'):
			reason = protocol.ReasonInputError // the server answered, and not with media
		}
	}
	return failure(reason, "%s", &e)
}
