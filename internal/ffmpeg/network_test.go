package ffmpeg

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ffmpeg-agent/messages/protocol"
)

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestInputsOverHTTP(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	film, err := os.ReadFile(clip(t, filepath.Join(dir, "in.mp4"), "2", "-movflags", "+faststart"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/in.mp4":
			_, _ = w.Write(film)
		case "/text":
			_, _ = w.Write([]byte(strings.Repeat("no film at all\n", 100)))
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "/forbidden":
			w.WriteHeader(http.StatusForbidden)
		default:
			http.NotFound(w, q)
		}
	}))
	t.Cleanup(server.Close)
	r := newRunner(t)
	for url, want := range map[string]protocol.FailureReason{
		server.URL + "/in.mp4?token=verysecret": "",
		server.URL + "/text":                    protocol.ReasonInputError,
		server.URL + "/missing":                 protocol.ReasonInputError,
		server.URL + "/forbidden":               protocol.ReasonInputError,
		server.URL + "/broken":                  protocol.ReasonNetworkError,
		"http://" + closedPort(t) + "/in.mp4":   protocol.ReasonNetworkError,
	} {
		t.Run(strings.TrimPrefix(url, server.URL), func(t *testing.T) {
			path, _, _ := strings.Cut(strings.TrimPrefix(url, server.URL), "?")
			run := r.Begin(lease(t, path, `{`+small+`,"input":`+quoted(url)+`}`))
			err := walk(testContext(t), run)
			e := run.Snapshot().Encode
			if shown := fmt.Sprint(e.Args, e.Log, err); strings.Contains(shown, "verysecret") {
				t.Errorf("a secret in %s", shown)
			}
			if want == "" {
				if err != nil || e.Frames != 50 {
					t.Errorf("%d frames, %v", e.Frames, err)
				}
				return
			}
			wantFailure(t, err, want)
		})
	}
}

func TestTruncatedDownloadIsNetworkError(t *testing.T) {
	t.Parallel()
	film, err := os.ReadFile(clip(t, filepath.Join(t.TempDir(), "in.mp4"), "8", "-movflags", "+faststart"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(film)))
		_, _ = w.Write(film[:len(film)/2])
	}))
	t.Cleanup(server.Close)
	r := newRunner(t)
	run := r.Begin(lease(t, "half", `{`+small+`,"input":`+quoted(server.URL)+`}`))
	f := wantFailure(t, walk(testContext(t), run), protocol.ReasonNetworkError)
	if e := run.Snapshot().Encode; e.Started != nil || !strings.Contains(f.Message, "ended early") {
		t.Errorf("message %q, FFmpeg started at %v", f.Message, e.Started)
	}
	run = r.Begin(lease(t, "streamed", `{`+small+`,"input_mode":"stream","input":`+quoted(server.URL)+`}`))
	wantFailure(t, walk(testContext(t), run), protocol.ReasonNetworkError)
	if e := run.Snapshot().Encode; e.ExitCode == nil || *e.ExitCode != 0 {
		t.Errorf("exit %v; the test shows something only where FFmpeg says that all is well", e.ExitCode)
	}
}

func TestRefusedStreamIsNetworkError(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	run := r.Begin(lease(t, "stream", `{`+small+`,"duration":1,"output_mode":"rtmp","rtmp_url":`+quoted("rtmp://"+closedPort(t)+"/live/verysecretkey")+`}`))
	wantFailure(t, walk(testContext(t), run), protocol.ReasonNetworkError)
	if e := run.Snapshot().Encode; strings.Contains(fmt.Sprint(e.Args, e.Log, e.Output), "verysecretkey") || e.Log == "" {
		t.Errorf("the stream key is to be seen, or there is no log: %v %s", e.Args, e.Log)
	}
}

// rtmpServer takes one stream into a file; ended tells how that went.
func rtmpServer(t *testing.T, url, into string) (ended chan error, said *strings.Builder) {
	t.Helper()
	server := exec.Command("ffmpeg", "-nostdin", "-v", "warning", "-listen", "1", "-i", url, "-c", "copy", into)
	said = &strings.Builder{}
	server.Stderr = said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() { _ = server.Process.Kill(); <-ended })
	address, _, _ := strings.Cut(strings.TrimPrefix(url, "rtmp://"), "/")
	until(t, "the server listening", func() bool { return listens(t, address) })
	return ended, said
}

func TestStreamIsSentToAnRTMPServer(t *testing.T) {
	t.Parallel()
	url := "rtmp://" + closedPort(t) + "/live/key-of-stream"
	got := filepath.Join(t.TempDir(), "got.flv")
	ended, said := rtmpServer(t, url, got)

	r := newRunner(t)
	run := r.Begin(lease(t, "stream", `{`+small+`,"duration":1,"output_mode":"rtmp","rtmp_url":`+quoted(url)+`}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatalf("%v\n%s\n%s", err, run.Snapshot().Encode.Log, said.String())
	}
	e := run.Snapshot().Encode
	if e.Frames != 25 || e.Pixels != 25*160*120 || e.Output != strings.Replace(url, "live/key-of-stream", "***", 1) || e.SizeBytes <= 0 {
		t.Errorf("%d frames, %d pixels, %d bytes, output %s", e.Frames, e.Pixels, e.SizeBytes, e.Output)
	}
	err := <-ended
	ended <- err
	// What arrived is playable from its beginning to its end.
	if out, err := exec.Command("ffmpeg", "-nostdin", "-xerror", "-v", "error", "-i", got, "-f", "null", "-").CombinedOutput(); err != nil {
		t.Errorf("received: %v, %s, %s", err, out, said.String())
	}
}

// TestStreamedLadderHasNoKnownSize: of the streams after the first FFmpeg tells none.
func TestStreamedLadderHasNoKnownSize(t *testing.T) {
	t.Parallel()
	urls := []string{"rtmp://" + closedPort(t) + "/live/one", "rtmp://" + closedPort(t) + "/live/two"}
	dir := t.TempDir()
	for i, url := range urls {
		rtmpServer(t, url, filepath.Join(dir, fmt.Sprintf("%d.flv", i)))
	}
	run := newRunner(t).Begin(lease(t, "streams", `{"fps":25,"preset":"ultrafast","bitrate":"200k","duration":1,"output_mode":"rtmp","outputs":[
		{"resolution":"160x120","rtmp_url":`+quoted(urls[0])+`},{"resolution":"320x240","fps":50,"rtmp_url":`+quoted(urls[1])+`}]}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
	}
	e := run.Snapshot().Encode
	if e.SizeBytes != 0 || e.Progress.SizeBytes <= 0 {
		t.Errorf("%d bytes, want unknown; the first has %d", e.SizeBytes, e.Progress.SizeBytes)
	}
	if e.Frames != 25+50 || e.Pixels != 25*160*120+50*320*240 {
		t.Errorf("%d frames, %d pixels", e.Frames, e.Pixels)
	}
}

func TestStreamServerLossIsNetworkError(t *testing.T) {
	t.Parallel()
	address := closedPort(t)
	server := exec.Command("ffmpeg", "-nostdin", "-v", "quiet", "-listen", "1", "-i", "rtmp://"+address+"/live/key", "-f", "null", "-")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() { _ = server.Process.Kill(); <-ended })
	until(t, "the server listening", func() bool { return listens(t, address) })

	r := newRunner(t)
	run := r.Begin(lease(t, "stream", `{`+small+`,"duration":60,"output_mode":"rtmp","rtmp_url":`+quoted("rtmp://"+address+"/live/key")+`}`))
	walked := make(chan error, 1)
	go func() { walked <- walk(testContext(t), run) }()
	until(t, "a second of the stream", func() bool { return run.Snapshot().Encode.Progress.Frames >= 25 })
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, <-walked, protocol.ReasonNetworkError)
}

// liveSource is a live input for one reader: an FFmpeg that sends 96x72 at 25 fps for so
// many seconds.
func liveSource(t *testing.T, seconds string) (url string) {
	t.Helper()
	address := closedPort(t)
	url = "rtmp://" + address + "/live/source"
	source := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=96x72:rate=25:duration="+seconds,
		"-f", "lavfi", "-i", "sine=duration="+seconds, "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p", "-c:a", "aac",
		"-f", "flv", "-listen", "1", url)
	if err := source.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = source.Process.Kill(); _ = source.Wait() })
	until(t, "the source listening", func() bool { return listens(t, address) })
	return url
}

func TestLiveInputKeepsItsGeometry(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRunner(t, func(s *Settings) { s.OutputRoots = []string{root} })
	run := r.Begin(lease(t, "recorded", `{"input":`+quoted(liveSource(t, "2"))+`,"output":"x.mp4"}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
	}
	e := run.Snapshot().Encode
	if got := shapeOf(t, filepath.Join(root, "x.mp4")); got.Width != 96 || got.Height != 72 || got.SAR != "1:1" || got.Rate != "25/1" {
		t.Errorf("recorded as %+v", got)
	}
	if e.Width != 96 || e.Frames < 40 || e.Pixels != e.Frames*96*72 {
		t.Errorf("width %d, %d frames, %d pixels", e.Width, e.Frames, e.Pixels)
	}
}

func TestStreamEndsWithItsInput(t *testing.T) {
	t.Parallel()
	in := clip(t, filepath.Join(t.TempDir(), "in.mp4"), "2")
	url := "rtmp://" + closedPort(t) + "/live/key"
	rtmpServer(t, url, filepath.Join(t.TempDir(), "got.flv"))
	run := newRunner(t).Begin(lease(t, "stream", `{"bitrate":"200k","output_mode":"rtmp","rtmp_url":`+quoted(url)+`,"input":`+quoted(in)+`}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
	}
	if e := run.Snapshot().Encode; e.Frames != 50 || e.Width != 160 || e.Pixels != 50*160*120 {
		t.Errorf("%d frames, want 50; width %d, %d pixels", e.Frames, e.Width, e.Pixels)
	}
}

func TestLiveStreamCompletesAtTimeout(t *testing.T) {
	t.Parallel()
	url := "rtmp://" + closedPort(t) + "/live/key"
	got := filepath.Join(t.TempDir(), "got.flv")
	ended, said := rtmpServer(t, url, got)
	run := newRunner(t).Begin(lease(t, "stream", `{"bitrate":"200k","output_mode":"rtmp","rtmp_url":`+quoted(url)+`,"input":`+quoted(liveSource(t, "60"))+`,
		"resource_limits":{"timeout_sec":4}}`))
	if err := walk(testContext(t), run); err != nil {
		t.Fatalf("%v\n%s", err, run.Snapshot().Encode.Log)
	}
	e := run.Snapshot().Encode
	if e.Frames == 0 || e.Width != 96 || e.Height != 72 || e.Pixels != e.Frames*96*72 || e.Progress.Percent != 100 || e.Media == 0 {
		t.Errorf("%d frames of %dx%d, %d pixels, %s; %.0f %%", e.Frames, e.Width, e.Height, e.Pixels, e.Media, e.Progress.Percent)
	}
	if notes := strings.Join(e.Notes, "\n"); !strings.Contains(notes, "the stream ended at the job's timeout of 4s") {
		t.Errorf("notes: %s", notes)
	}
	if s := run.Snapshot(); s.Stopped != "" {
		t.Errorf("stopped for %s", s.Stopped)
	}
	err := <-ended
	ended <- err
	if out, err := exec.Command("ffmpeg", "-nostdin", "-xerror", "-v", "error", "-i", got, "-f", "null", "-").CombinedOutput(); err != nil {
		t.Errorf("received: %v, %s, %s", err, out, said.String())
	}
}

func TestEarlyStreamFailureIsNotComplete(t *testing.T) {
	t.Parallel()
	run := newRunner(t).Begin(lease(t, "stream", `{"output_mode":"rtmp","rtmp_url":`+quoted("rtmp://"+closedPort(t)+"/live/key")+`,"input":`+quoted(liveSource(t, "60"))+`,
		"resource_limits":{"timeout_sec":30}}`))
	wantFailure(t, walk(testContext(t), run), protocol.ReasonNetworkError)
}

// listens looks the address up among the kernel's listening sockets: a connection to
// try it out would be taken for the stream.
func listens(t *testing.T, address string) bool {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(raw), fmt.Sprintf(":%04X 00000000:0000 0A", a.Port))
}

// TestFailureHidesSecretsOfInput: also where the URL is longer than what a message shows.
func TestFailureHidesSecretsOfInput(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("abcdefghij", 20)
	for _, url := range []string{"rtmp://127.0.0.1:1/live/key?token=" + secret, "srt://127.0.0.1:1?passphrase=" + secret[:60] + "&streamid=" + secret} {
		run := newRunner(t, func(s *Settings) { s.Inputs.Loopback = true }).Begin(lease(t, "secret", `{`+small+`,"input":`+quoted(url)+`}`))
		err := walk(testContext(t), run)
		if e := run.Snapshot().Encode; err == nil || strings.Contains(err.Error()+e.Log+strings.Join(e.Args, " "), "abcdefghijab") {
			t.Errorf("%s: got %v, want an error without the secret; log: %s", url[:20], err, e.Log)
		}
	}
}
