package main

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

func TestSecondSignalStopsJobs(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	// The sandbox is set up by the agent's own command, as in production.
	agent := startAgent(t, append(bed.environment(), ffmpegtest.Helper+"="), bed.flags()...)
	job := bed.submit(ffmpegtest.Long())
	bed.awaitFFmpeg()
	agent.signal(t, syscall.SIGTERM)
	waitFor(t, "drain", func() bool { return strings.Contains(agent.log(), "signal received: draining") })
	agent.signal(t, syscall.SIGTERM)
	agent.wantExit(t, exitOK)
	bed.awaitResult(job.ID, protocol.StatusFailed)
	if pids := bed.ffmpegs(); len(pids) > 0 {
		t.Errorf("FFmpeg is still running: %v", pids)
	}
}

// The drain cannot end by itself because the master does not answer deliveries.
func TestThirdSignalExitsAtOnce(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	agent := bed.startAgent()
	bed.submit(ffmpegtest.Long())
	bed.awaitFFmpeg()
	delivering := make(chan struct{})
	next, once := *bed.handler.Load(), sync.Once{}
	var hanging http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/results" {
			next.ServeHTTP(w, r)
			return
		}
		once.Do(func() { close(delivering) })
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	bed.handler.Store(&hanging)
	agent.signal(t, syscall.SIGTERM)
	waitFor(t, "drain", func() bool { return strings.Contains(agent.log(), "signal received: draining") })
	agent.signal(t, syscall.SIGTERM)
	<-delivering
	agent.signal(t, syscall.SIGTERM)
	agent.wantExit(t, exitFailed)
	if want := "third signal received"; !strings.Contains(agent.log(), want) {
		t.Errorf("got log %q, want %q in it", agent.log(), want)
	}
	waitFor(t, "end of FFmpeg", func() bool { return len(bed.ffmpegs()) == 0 })
}
