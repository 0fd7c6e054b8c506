package chaos

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStepsAreReadFromAnAgentsLog(t *testing.T) {
	log := `{"level":"info","time":"2026-01-02T03:04:05.5Z","logger":"job","message":"job accepted","job":"a","attempt":1}
{"level":"info","time":"2026-01-02T03:04:06Z","logger":"job","message":"ffmpeg started","job":"a","attempt":1,"pid":7}
{"level":"info","time":"2026-01-02T03:04:07Z","logger":"jobs","message":"adopting a running job","job":"a","attempt":1}
{"level":"info","time":"2026-01-02T03:04:08Z","logger":"job","message":"job ended","job":"a","attempt":1,"status":"failed"}
{"level":"info","time":"2026-01-02T03:04:09Z","logger":"jo
panic: of an actor
{"level":"info","time":"2026-01-02T03:04:10Z","logger":"job","message":"job ended","job":"a","attempt":2,"status":"completed"}
`
	got, err := parseEvents(7, strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	second := func(n int) time.Time { return time.Date(2026, 1, 2, 3, 4, n, 0, time.UTC) }
	want := []AttemptEvent{
		{7, Attempt{"a", 1}, eventStarted, second(6)},
		{7, Attempt{"a", 1}, eventEnded, second(8)}, {7, Attempt{"a", 2}, eventEnded, second(10)},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTheCgroupsOfAnAgentsJobsAreKnownByOne(t *testing.T) {
	for path, want := range map[string]string{
		"/ffmpeg-agent-f37ef480-6cbcdd1e-531c-2/encode":     "/ffmpeg-agent-f37ef480-*",
		"/system.slice/x.service/ffmpeg-agent-f37ef480-a-1": "/system.slice/x.service/ffmpeg-agent-f37ef480-*",
		"/system.slice/ffmpeg-agent.service":                "",
		"/":                                                 "",
		"":                                                  "",
	} {
		if got := cgroupPatternOf(path); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}
