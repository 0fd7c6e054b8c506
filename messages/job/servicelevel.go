package job

import (
	"time"

	"ffmpeg-agent/messages/protocol"
)

// startAllowance is what FFmpeg may take beyond the length of its output, to connect and to
// read ahead.
const startAllowance = 5 * time.Second

// OnTime reports whether the job met its service level: it completed by its timeout_at or,
// where it has none, in real time, that is, FFmpeg ran no longer than 110 % of what its
// output plays and 5 s. A canceled job is not judged.
func (o *Outcome) OnTime() (met, judged bool) {
	switch o.Status() {
	case protocol.StatusCanceled:
		return false, false
	case protocol.StatusCompleted:
	default:
		return false, true
	}
	if by := o.Lease.Job.TimeoutAt; by != nil && !by.IsZero() {
		return !o.At.After(*by), true
	}
	return o.Encode.Wall() <= o.Encode.Media+o.Encode.Media/10+startAllowance, true
}
