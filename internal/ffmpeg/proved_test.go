package ffmpeg

import (
	"context"
	"testing"
	"time"
)

// TestWhatATrialProvedIsKeptThoughTheAgentEnds: an agent that is killed during its trials
// does not try again what had worked.
func TestWhatATrialProvedIsKeptThoughTheAgentEnds(t *testing.T) {
	t.Parallel()
	ffmpeg, _ := fakeGPU(t)
	r := newRunner(t, func(s *Settings) { s.FFmpeg, s.DataDir = ffmpeg, t.TempDir() })
	r.trialFor = time.Minute // hevc_nvenc hangs
	caps, err := r.Capabilities(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(testContext(t))
	ended := make(chan error, 1)
	go func() {
		_, err := r.Prove(ctx)
		ended <- err
	}()
	for !r.readProved(caps.Identity)["h264_nvenc"] && testContext(t).Err() == nil {
		select {
		case err := <-ended:
			t.Fatalf("the trials ended: %v; proved are %v", err, r.readProved(caps.Identity))
		case <-time.After(10 * time.Millisecond):
		}
	}
	end()
	if err := <-ended; err == nil {
		t.Error("trials that were cut short came to an end")
	}
	if proved := r.readProved(caps.Identity); !proved["h264_nvenc"] || proved["hevc_nvenc"] {
		t.Errorf("proved are %v", proved)
	}
}
