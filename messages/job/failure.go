package job

import "ffmpeg-agent/messages/protocol"

// Failure is why an attempt failed: the master's failure reason, and a sentence for people.
// It is an error.
type Failure struct {
	Reason  protocol.FailureReason `json:"reason"`
	Message string                 `json:"message"`
}

func (f *Failure) Error() string { return f.Message }

// PlatformFailure is a failure of the agent or its machine. The master re-queues such a
// job.
func PlatformFailure(message string) *Failure {
	return &Failure{Reason: protocol.ReasonPlatformError, Message: message}
}
