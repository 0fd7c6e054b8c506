package ffmpeg

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func failure(reason protocol.FailureReason, format string, args ...any) *job.Failure {
	return &job.Failure{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// osFailure is the failure of something that the agent itself did.
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
		return failure(protocol.ReasonTimeout, "the job's time is up: %s", r.plan.timeout)
	case job.StopStalled:
		return failure(protocol.ReasonTimeout, "ffmpeg made no progress for %s", r.settings.StallTimeout)
	case job.StopShutdown:
		return failure(protocol.ReasonPlatformError, "interrupted: agent shutting down")
	case job.StopSuperseded:
		return failure(protocol.ReasonPlatformError, "interrupted: the job was given away")
	}
	return failure(protocol.ReasonPlatformError, "interrupted: %s", cause)
}

// decodeErrorsExit is FFmpeg's exit status when more frames could not be decoded than
// -max_error_rate allows (ffmpeg(1)).
const decodeErrorsExit = 69

// evidence is what is known of an FFmpeg that ended badly.
type evidence struct {
	exit      proc.Exit
	diskFull  bool         // where it wrote
	wasFull   bool         // it was shortly before, and may have room again
	input     *job.Failure // what is wrong with the job's input; nil: nothing, or it has none
	said      string       // FFmpeg's last error, for people; nothing is decided by it
	hasInput  bool
	streaming bool // it wrote to the network
}

// classify says why an FFmpeg that was not stopped ended badly.
func classify(e evidence) *job.Failure {
	switch {
	case e.exit.Err != nil:
		return failure(protocol.ReasonPlatformError, "ffmpeg: %v", e.exit.Err)
	case e.exit.Signal == syscall.SIGXFSZ || e.exit.Signal == syscall.SIGXCPU: // limits that the agent itself runs under
		return failure(protocol.ReasonResourceError, "ffmpeg was %s", e.exit)
	case e.exit.Signal != 0:
		return failure(protocol.ReasonRuntimeError, "ffmpeg was %s", e.exit)
	case ranOut(e.exit):
		return failure(protocol.ReasonResourceError, "ffmpeg: %s: %v", e.exit, syscall.Errno(256-e.exit.Code))
	case e.diskFull:
		return failure(protocol.ReasonResourceError, "ffmpeg: %s: no space left on the disk of the output", e.exit)
	case e.input != nil:
		return e.input
	case e.hasInput && e.exit.Code == decodeErrorsExit:
		return failure(protocol.ReasonInputError, "input: too many frames cannot be decoded")
	case e.wasFull:
		return failure(protocol.ReasonResourceError, "ffmpeg: %s: no space left on the disk of the output for a time", e.exit)
	case e.streaming:
		return failure(protocol.ReasonNetworkError, "ffmpeg: %s: sending the stream failed", e.exit)
	}
	return failure(protocol.ReasonRuntimeError, "ffmpeg: %s%s", e.exit, e.said)
}

// ranOut reports whether FFmpeg says by its exit status that it got no memory or no
// disk: since version 7 the status is the error's number, negative, in one byte.
func ranOut(exit proc.Exit) bool {
	if exit.Signal != 0 || exit.Code < 128 {
		return false
	}
	switch syscall.Errno(256 - exit.Code) {
	case syscall.ENOMEM, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return true
	}
	return false
}

// FFmpeg's own error numbers (libavutil/error.h), as ffprobe reports them.
const avInvalidData = -('I' | 'N'<<8 | 'D'<<16 | 'A'<<24)

func avHTTP(a, b, c int) int { return -(0xF8 | a<<8 | b<<16 | c<<24) }

// inputFailure reads ffprobe's error number for an input: what the network did, or
// what is wrong with the input itself.
func inputFailure(e probeError, network bool) *job.Failure {
	reason := protocol.ReasonInputError
	if network {
		reason = protocol.ReasonNetworkError
		switch e.Code {
		case avInvalidData, -int(syscall.EINVAL), -int(syscall.ENOENT),
			avHTTP('4', '0', '0'), avHTTP('4', '0', '1'), avHTTP('4', '0', '3'), avHTTP('4', '0', '4'), avHTTP('4', 'X', 'X'):
			reason = protocol.ReasonInputError // there was an answer, and it is no media
		}
	}
	return failure(reason, "%s", e.Text)
}

// diskFull reports whether the file system of a folder has no room left.
func diskFull(dir string) bool {
	const enough = 1 << 20
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return false
	}
	return uint64(s.Bavail)*uint64(s.Bsize) < enough || s.Files > 0 && s.Ffree == 0
}
