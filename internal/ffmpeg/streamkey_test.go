package ffmpeg

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRTMPURLIsSplitAsFFmpegDoes(t *testing.T) {
	for in, want := range map[string]string{
		"rtmp://h:1935/live/key":          "rtmp://h:1935 rtmp_app=live rtmp_playpath=key",
		"rtmp://h/live/key?a=b&c=/d":      "rtmp://h rtmp_app=live/key?a=b&c= rtmp_playpath=d",
		"rtmp://h/app/instance/key.flv":   "rtmp://h rtmp_app=app/instance rtmp_playpath=key",
		"rtmp://h/app/mp4:dir/key":        "rtmp://h rtmp_app=app rtmp_playpath=mp4:dir/key",
		"rtmps://h/app/clip.mp4":          "rtmps://h rtmp_app=app rtmp_playpath=mp4:clip.mp4",
		"rtmp://h/app":                    "rtmp://h rtmp_app=app rtmp_playpath=",
		"rtmp://h/app?token=x/key%2Fpart": "rtmp://h rtmp_app=app?token=x rtmp_playpath=key%2Fpart",
	} {
		server, options := splitRTMP(in)
		if got := strings.Join(append([]string{server}, options...), " "); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// TestStreamKeyIsNotInTheArguments: a server that insists on application and key gets them,
// and no other user sees them.
func TestStreamKeyIsNotInTheArguments(t *testing.T) {
	t.Parallel()
	for i, path := range []string{"/live/verysecretkey", "/app/verysecret-instance/key"} {
		url := "rtmp://" + closedPort(t) + path
		ended, said := rtmpServer(t, url, filepath.Join(t.TempDir(), "got.flv"))
		r := newRunner(t)
		ctx := testContext(t)
		run := r.Begin(lease(t, fmt.Sprint("stream", i), `{`+small+`,"duration":1,"output_mode":"rtmp","rtmp_url":`+quoted(url)+`}`))
		if err := run.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
		p, err := run.Start(ctx)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if err != nil {
			t.Fatal(err)
		}
		if err := conclude(ctx, run); err != nil {
			t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
		}
		if strings.Contains(string(raw), "verysecret") || !strings.Contains(string(raw), "rtmp://") {
			t.Errorf("arguments: %q", raw)
		}
		if shown := fmt.Sprint(run.Snapshot()); strings.Contains(shown, "verysecret") {
			t.Errorf("shown: %s", shown)
		}
		err = <-ended
		ended <- err
		if err != nil || strings.Contains(said.String(), "expecting") || strings.Contains(said.String(), "App field don't match") {
			t.Errorf("the server: %v %s", err, said)
		}
	}
}
