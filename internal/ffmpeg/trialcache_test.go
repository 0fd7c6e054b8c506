package ffmpeg

import (
	"context"
	"slices"
	"testing"
	"time"
)

// TestTrialCacheSurvivesRestart: an agent that is killed during its trials
// does not try again what had worked.
func TestTrialCacheSurvivesRestart(t *testing.T) {
	t.Parallel()
	ffmpeg, _ := fakeGPU(t)
	r := newRunner(t, func(s *Settings) { s.FFmpeg, s.DataDir = ffmpeg, t.TempDir() })
	r.trialTimeout = time.Minute // hevc_nvenc hangs
	caps, err := r.Capabilities(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(testContext(t))
	ended := make(chan error, 1)
	go func() {
		_, err := r.TryEncoders(ctx)
		ended <- err
	}()
	proves := func(encoder string) bool { return slices.Contains(r.readTrialCache(caps.Identity).Works, encoder) }
	for !proves("h264_nvenc") {
		select {
		case err := <-ended:
			t.Fatalf("the trials ended: %v; proved are %v", err, r.readTrialCache(caps.Identity))
		case <-time.After(10 * time.Millisecond):
		}
	}
	end()
	if err := <-ended; err == nil {
		t.Error("trials that were cut short came to an end")
	}
	if !proves("h264_nvenc") || proves("hevc_nvenc") {
		t.Errorf("remembered is %+v", r.readTrialCache(caps.Identity))
	}
}

func TestFailedTrialIsCachedForTTL(t *testing.T) {
	failed := time.Unix(1000, 0)
	p := trialCache{Fails: map[string]trialFailure{"h264_qsv": {failed, "no device"}}}
	for after, holds := range map[time.Duration]bool{0: true, time.Minute: true, failureTTL: false, time.Hour: false, -time.Second: false} {
		if why, ok := p.failed("h264_qsv", failed.Add(after)); ok != holds || ok && why != "no device" {
			t.Errorf("after %s: %t, %q", after, ok, why)
		}
	}
	if _, ok := p.failed("h264_nvenc", failed); ok {
		t.Error("an encoder that was not tried has failed")
	}
}

func TestCachedTrialsHoldForOneHardware(t *testing.T) {
	t.Parallel()
	ffmpeg, _ := fakeGPU(t)
	dir := t.TempDir()
	on := func(hardware string) *Runner {
		return newRunner(t, func(s *Settings) {
			s.FFmpeg, s.DataDir, s.Hardware = ffmpeg, dir, func() string { return hardware }
		})
	}
	works := func(r *Runner) []string {
		t.Helper()
		trials, err := r.CachedTrials()
		if err != nil {
			t.Fatal(err)
		}
		return trials.Works
	}
	r := on("card A")
	r.trialTimeout = 5 * time.Second
	trials, err := r.TryHardware(testContext(t))
	if err != nil || !slices.Equal(trials.Works, []string{"h264_nvenc"}) {
		t.Fatalf("got %v, %v; want only the hardware encoder that works", trials.Works, err)
	}
	if got := works(on("card A")); !slices.Equal(got, []string{"h264_nvenc"}) {
		t.Errorf("got cached %v on the same hardware, want h264_nvenc", got)
	}
	if got := works(on("card B")); len(got) != 0 {
		t.Errorf("got cached %v on other hardware, want none", got)
	}
}
