package ffmpeg

import (
	"sync"

	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/job"
)

// redactor removes the secrets of a job from what leaves it: errors, notes, arguments and
// FFmpeg's log. It is safe for concurrent use.
type redactor struct {
	mu      sync.Mutex
	secrets safetext.Secrets
}

// newRedactor returns a redactor of the secrets among a job's parameters. It also hides the
// path of the agent's data directory, which the master has no use for.
func newRedactor(lease job.Lease, dataDir string) *redactor {
	r := &redactor{}
	r.secrets.AddParameters("", map[string]any(lease.Job.Parameters))
	if len(dataDir) > 1 {
		r.secrets.Show(dataDir, "data_dir")
	}
	return r
}

// addURL removes the secrets of a URL that FFmpeg gets.
func (r *redactor) addURL(raw string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets.AddURL(raw)
}

// replace shows a text, which is not secret but means nothing to people, as another one.
func (r *redactor) replace(text, by string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets.Show(text, by)
}

func (r *redactor) redact(text string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.secrets.Redact(text)
}

func (r *redactor) redactAll(texts []string) []string {
	if texts == nil {
		return nil
	}
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = r.redact(t)
	}
	return out
}

// redactFailure is a failure without secrets.
func (r *redactor) redactFailure(f *job.Failure) *job.Failure {
	return &job.Failure{Reason: f.Reason, Message: safetext.Line(r.redact(f.Message))}
}
