package main

import (
	"fmt"
	"testing"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/internal/ffmpeg"
)

// TestAllowedPresetsAreAvailable: the configuration and the encoders' tables agree.
func TestAllowedPresetsAreAvailable(t *testing.T) {
	t.Parallel()
	presets := []string{"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"}
	for n := range 15 {
		presets = append(presets, fmt.Sprint(n), fmt.Sprintf("good/%d", n), fmt.Sprintf("realtime/%d", n))
	}
	for _, codec := range []string{"h264", "h265", "av1", "vp9"} {
		allowed := 0
		for _, preset := range presets {
			loaded, err := configs.Load(configs.Source{
				Environ: []string{"HOME=" + t.TempDir(), "FFMPEG_AGENT_JOBS_DEFAULT_PRESETS=" + codec + "=" + preset}, DefaultFile: "/nonexistent",
			})
			if err != nil {
				continue
			}
			allowed++
			if _, err := ffmpeg.New(ffmpeg.Settings{DataDir: t.TempDir(), DefaultPresets: loaded.Config.Jobs.DefaultPresets}); err != nil {
				t.Errorf("%s=%s is allowed, but: %v", codec, preset, err)
			}
		}
		if allowed < 10 {
			t.Errorf("%s: %d presets are allowed, want the ten names at least", codec, allowed)
		}
	}
}
