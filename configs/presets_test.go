package configs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPresetsLeftOutKeepTheirDefaults(t *testing.T) {
	want := Labels{"h264": "fast", "h265": "slow", "av1": "10", "vp9": "good/4"}
	for name, src := range map[string]Source{
		"file":        machine(t).withFile(t, "jobs:\n  default_presets: {h265: slow, av1: 10}\n"),
		"environment": machine(t).withEnv("FFMPEG_AGENT_JOBS_DEFAULT_PRESETS=h265=slow,av1=10"),
	} {
		if diff := cmp.Diff(want, mustLoad(t, src).Config.Jobs.DefaultPresets); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
