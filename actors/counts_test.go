package actors

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// lingering returns a program that runs FFmpeg and does not end when asked to.
func lingering(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ffmpeg")
	script := `#!/bin/sh
case "$*" in
*-progress*) trap '' TERM; "` + ffmpegtest.FFmpeg() + `" "$@"; exec sleep 1000 ;;
*) exec "` + ffmpegtest.FFmpeg() + `" "$@" ;;
esac
`
	must(t, os.WriteFile(path, []byte(script), 0o755))
	return path
}

func TestCanceledJobsAreCountedByHowTheyEnded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ffmpeg     string
		forcefully uint64
	}{"ends when asked": {ffmpegtest.FFmpeg(), 0}, "has to be killed": {lingering(t), 1}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(c *siteConfig) { c.ffmpeg = test.ffmpeg })
			id := s.submit(ffmpegtest.Long()).ID
			s.ffmpegPID(id)
			s.until("progress", func() bool {
				jobs := s.agent.Status().Jobs
				return len(jobs) == 1 && jobs[0].Progress.Frames > 0
			})
			resp, err := http.Post(s.link.URL+"/jobs/"+id+"/cancel", "", nil)
			must(t, err)
			resp.Body.Close()
			http.DefaultClient.CloseIdleConnections()
			if r := s.result(id, 1); r.Status != protocol.StatusCanceled {
				t.Errorf("got status %s, want canceled", r.Status)
			}
			var n messages.Counts
			s.until("the count of the canceled job", func() bool { n = s.agent.Status().Counts; return n.Canceled == 1 })
			if n.CanceledForcefully != test.forcefully || n.OnTime+n.NotOnTime != 0 {
				t.Errorf("got %+v, want %d canceled forcefully and none judged", n, test.forcefully)
			}
		})
	}
}

// Two jobs that fail in four attempts are not four failed jobs.
func TestJobCountsOncePerOutcome(t *testing.T) {
	var c counts
	attempt := func(id string, failure *job.Failure) {
		c.count(&job.Outcome{Lease: job.Lease{Job: protocol.Job{ID: id}}, Failure: failure, Encode: job.Encode{Codec: "h264"}}, false)
	}
	timeout := &job.Failure{Reason: protocol.ReasonTimeout}
	for _, id := range []string{"a", "b", "a", "a"} {
		attempt(id, timeout)
	}
	attempt("a", nil)
	n := c.read()
	if n.JobsFailed != 2 || n.Failed != 4 || n.JobsCompleted != 1 || n.Completed != 1 || n.FailedByReason[protocol.ReasonTimeout] != 4 {
		t.Errorf("got %+v, want 2 jobs failed in 4 attempts and one completed", n)
	}
	for i := range rememberedJobs + 5 {
		attempt(fmt.Sprint(i), nil)
	}
	if n := c.read(); n.JobsCompleted != rememberedJobs+6 || len(c.jobs[protocol.StatusCompleted].ids) != rememberedJobs {
		t.Errorf("got %d jobs and %d remembered, want %d and %d", n.JobsCompleted, len(c.jobs[protocol.StatusCompleted].ids), rememberedJobs+6, rememberedJobs)
	}
}
