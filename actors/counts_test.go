package actors

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages"
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
