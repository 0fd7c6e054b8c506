package ffmpeg

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/internal/fetch"
	"ffmpeg-agent/messages/protocol"
)

// dashIn makes a playlist x.mpd with its segments in a directory.
func dashIn(t *testing.T, dir string) string {
	t.Helper()
	in := clip(t, filepath.Join(t.TempDir(), "in.mp4"), "4", "-g", "25")
	ffmpegIn(t, dir, "-i", in, "-c", "copy", "-f", "dash", "-seg_duration", "1", "x.mpd")
	return filepath.Join(dir, "x.mpd")
}

// encrypted serves a directory over https, and makes FFmpeg and the fetcher of a runner trust
// the server where trusted is set.
func encrypted(t *testing.T, r *Runner, dir string, trusted bool) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.FileServer(http.Dir(dir)))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if trusted {
		roots.AddCert(server.Certificate())
		t.Setenv("SSL_CERT_FILE", file)
	}
	f, err := fetch.New(fetch.Settings{Policy: r.settings().Inputs, RootCAs: roots, RetryWait: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	r.fetchBy(f)
	return server
}

func TestDASHIsReadByFFmpeg(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	local := dashIn(t, dir)
	for id, input := range map[string]string{"http": serveFiles(t, dir) + "/x.mpd", "local": local} {
		e, err := finished(t, newRunner(t), id, `{`+small+`,"input":`+quoted(input)+`}`)
		if err != nil || e.Frames < 100 || e.Frames > 101 {
			t.Errorf("%s: %d frames, %v\n%s", id, e.Frames, err, e.Log)
		}
		wantEncodeNote(t, e, "FFmpeg read the input itself: a DASH playlist")
	}
}

func TestLivePlaylistIsReadByFFmpeg(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text, err := os.ReadFile(hlsIn(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/x.m3u8" {
			http.FileServer(http.Dir(dir)).ServeHTTP(w, q)
			return
		}
		list := string(text)
		if asked.Add(1) <= 3 { // it ends while FFmpeg reads it
			list = strings.ReplaceAll(strings.ReplaceAll(list, "#EXT-X-ENDLIST\n", ""), "#EXT-X-PLAYLIST-TYPE:VOD\n", "")
		}
		_, _ = w.Write([]byte(list))
	}))
	t.Cleanup(server.Close)
	e, err := finished(t, newRunner(t), "live", `{`+small+`,"input":`+quoted(server.URL+"/x.m3u8")+`}`)
	if err != nil || e.Frames < 25 {
		t.Errorf("%d frames, %v\n%s", e.Frames, err, e.Log)
	}
	wantEncodeNote(t, e, "a live playlist (no EXT-X-ENDLIST)")
}

func TestFFmpegVerifiesCertificates(t *testing.T) {
	dir := t.TempDir()
	dashIn(t, dir)
	clip(t, filepath.Join(dir, "in.mp4"), "2")
	for name, trusted := range map[string]bool{"trusted": true, "unknown": false} {
		t.Run(name, func(t *testing.T) {
			r := newRunner(t)
			server := encrypted(t, r, dir, trusted)
			for _, path := range []string{"/x.mpd", "/in.mp4"} {
				run := r.Begin(lease(t, path, `{`+small+`,"input_mode":"stream","input":`+quoted(server.URL+path+"?sig=verysecret")+`}`))
				err := walk(testContext(t), run)
				e := run.Snapshot().Encode
				if given := fmt.Sprint(run.files.input.args(), e.Args, e.Log); strings.Contains(given, "verysecret") {
					t.Errorf("%s: a secret is in FFmpeg's arguments or shown: %s", path, given)
				}
				if trusted && (err != nil || e.Frames < 50) {
					t.Errorf("%s: %d frames, %v\n%s", path, e.Frames, err, e.Log)
				}
				if !trusted {
					wantFailure(t, err, protocol.ReasonNetworkError)
				}
			}
		})
	}
}

// TestSegmentsOfUnknownServersAreRefused: FFmpeg does not verify the certificates of servers
// that a playlist names.
func TestSegmentsOfUnknownServersAreRefused(t *testing.T) {
	dir := t.TempDir()
	list, err := os.ReadFile(hlsIn(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	for name, trusted := range map[string]bool{"trusted": true, "unknown": false} {
		t.Run(name, func(t *testing.T) {
			r := newRunner(t)
			segments := encrypted(t, r, dir, trusted)
			text := strings.ReplaceAll(string(list), "\ns", "\n"+segments.URL+"/s")
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }))
			t.Cleanup(server.Close)
			e, err := finished(t, r, name, `{`+small+`,"input_mode":"stream","input":`+quoted(server.URL+"/x.m3u8")+`}`)
			if trusted && (err != nil || e.Frames < 100) {
				t.Errorf("%d frames, %v\n%s", e.Frames, err, e.Log)
			}
			if !trusted {
				if f := wantFailure(t, err, protocol.ReasonNetworkError); !strings.Contains(f.Message, "certificate") {
					t.Errorf("message %q", f.Message)
				}
			}
		})
	}
}

func TestInputsUseTheProxyOfTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	dashIn(t, dir)
	clip(t, filepath.Join(dir, "in.mp4"), "2")
	var asked atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		login := &http.Request{Header: http.Header{"Authorization": q.Header["Proxy-Authorization"]}}
		if _, password, _ := login.BasicAuth(); password != "verysecret" || q.URL.Hostname() != "media.invalid" {
			t.Errorf("the proxy is asked for %s with password %q", q.URL, password)
		}
		asked.Add(1)
		http.FileServer(http.Dir(dir)).ServeHTTP(w, q)
	}))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTP_PROXY", strings.Replace(proxy.URL, "://", "://me:verysecret@", 1))
	r := newRunner(t, func(s *Settings) { s.Inputs.Loopback = false }) // which the proxy is exempt from
	for _, path := range []string{"/in.mp4", "/x.mpd"} {
		before := asked.Load()
		e, err := finished(t, r, path, `{`+small+`,"input":`+quoted("http://media.invalid"+path)+`}`)
		if err != nil || e.Frames < 50 || asked.Load() == before {
			t.Errorf("%s: %d frames, %d requests, %v\n%s", path, e.Frames, asked.Load()-before, err, e.Log)
		}
		if shown := strings.Join(e.Args, " ") + e.Log; strings.Contains(shown, "verysecret") {
			t.Errorf("the proxy's password is shown: %s", shown)
		}
	}
}

func TestMalformedProxyIsAStartError(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://me:verysecret@:3128 x")
	_, err := New(Settings{DataDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "HTTPS_PROXY") || strings.Contains(err.Error(), "verysecret") {
		t.Errorf("got %v, want an error that names HTTPS_PROXY", err)
	}
}
