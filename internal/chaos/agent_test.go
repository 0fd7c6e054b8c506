package chaos

import "testing"

func TestTheCgroupsOfAnAgentsJobsAreKnownByOne(t *testing.T) {
	for path, want := range map[string]string{
		"/ffmpeg-agent-f37ef480-6cbcdd1e-531c-2/encode":     "/ffmpeg-agent-f37ef480-*",
		"/system.slice/x.service/ffmpeg-agent-f37ef480-a-1": "/system.slice/x.service/ffmpeg-agent-f37ef480-*",
		"/system.slice/ffmpeg-agent.service":                "",
		"/":                                                 "",
		"":                                                  "",
	} {
		if got := groupPattern(path); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}
