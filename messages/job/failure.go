package job

import "ffmpeg-agent/messages/protocol"

// Failure is why an attempt failed, in the master's vocabulary and in words for
// people. It is an error.
type Failure struct {
	Reason  protocol.FailureReason `json:"reason"`
	Message string                 `json:"message"`
}

func (f *Failure) Error() string { return f.Message }

// PlatformFailure is the agent's own fault, or its machine's: the master re-queues
// such a job.
func PlatformFailure(message string) *Failure {
	return &Failure{Reason: protocol.ReasonPlatformError, Message: message}
}
