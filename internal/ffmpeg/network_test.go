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

func TestInputThatBreaksOffOnItsWayIsANetworkError(t *testing.T) {
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
	run := newRunner(t).Begin(lease(t, "half", `{`+small+`,"input":`+quoted(server.URL)+`}`))
	f := wantFailure(t, walk(testContext(t), run), protocol.ReasonNetworkError)
	if e := run.Snapshot().Encode; e.ExitCode == nil || *e.ExitCode != 0 || !strings.Contains(f.Message, "ends after") {
		t.Errorf("message %q, exit %v; the test shows something only where FFmpeg says that all is well", f.Message, e.ExitCode)
	}
}

func TestStreamThatNobodyTakesIsANetworkError(t *testing.T) {
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
	server := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-listen", "1", "-i", url, "-c", "copy", into)
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
	if e.Frames != 25 || e.Pixels != 25*160*120 || e.Output != strings.Replace(url, "key-of-stream", "***", 1) || e.SizeBytes <= 0 {
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

func TestStreamWhoseServerGoesAwayIsANetworkError(t *testing.T) {
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
