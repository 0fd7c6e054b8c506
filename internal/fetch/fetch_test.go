package fetch

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/protocol"
)

func TestFetchesFile(t *testing.T) {
	want := content(700_000)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("got %s with Accept-Encoding %q, want GET and identity", r.Method, r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Type", "video/mp4")
		http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(string(want)))
	})
	var last Progress
	r, err := newFetcher(t, nil).Fetch(t.Context(), Request{
		URL: s.URL + "/It's%20me?token=hunter2#x", Dir: t.TempDir(), SHA256: strings.ToUpper(sum(want)),
	}, func(p Progress) { last = p })
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, r, want)
	if filepath.Base(r.Path) != "input.mp4" || r.ContentType != "video/mp4" || r.Format != "" || r.Wall <= 0 {
		t.Errorf("got %+v, want input.mp4 of type video/mp4 and a duration", r)
	}
	if want := (Progress{Bytes: 700_000, Total: 700_000}); last != want {
		t.Errorf("got last progress %+v, want %+v", last, want)
	}
}

func TestResumesInterruptedTransfer(t *testing.T) {
	want := content(1_000_000)
	for name, test := range map[string]struct {
		server            breaker
		resumes, restarts int
		lastRange         string
	}{
		"three times":                 {breaker{after: []int{300_000, 1, 200_000}, ranges: true}, 3, 0, "bytes=500001-"},
		"more often than it is tried": {breaker{after: []int{9, 9, 9, 9, 9, 9, 9}, ranges: true}, 7, 0, "bytes=63-"},
		"no ranges":                   {breaker{after: []int{300_000, 400_000}}, 0, 2, "bytes=400000-"},
		"changed": {breaker{after: []int{300_000}, ranges: true, etag: func(request int) string {
			return fmt.Sprintf(`"v%d"`, request)
		}}, 0, 1, "bytes=300000-"},
		"no validator": {breaker{after: []int{300_000}, ranges: true, etag: func(int) string { return "" }}, 0, 1, ""},
		"weak ETag":    {breaker{after: []int{300_000}, ranges: true, etag: func(int) string { return `W/"x"` }}, 0, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			test.server.content = want
			s := serve(t, test.server.ServeHTTP)
			r, err := newFetcher(t, nil).Fetch(t.Context(), Request{URL: s.URL + "/a.ts", Dir: t.TempDir(), SHA256: sum(want)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, r, want)
			if r.Resumes != test.resumes || r.Restarts != test.restarts {
				t.Errorf("got %d resumes and %d restarts, want %d and %d", r.Resumes, r.Restarts, test.resumes, test.restarts)
			}
			if got := test.server.requests[len(test.server.requests)-1]; got != test.lastRange {
				t.Errorf("got a last Range of %q, want %q", got, test.lastRange)
			}
		})
	}
}

func TestWrongRangeRestartsTransfer(t *testing.T) {
	want := content(1000)
	for name, contentRange := range map[string]string{
		"start": "bytes 0-999/1000", "total": "bytes 400-999/2000", "garbage": "bytes", "beyond": "bytes 400-1200/1000",
	} {
		t.Run(name, func(t *testing.T) {
			var requests int
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				requests++
				w.Header().Set("ETag", `"a"`)
				switch {
				case r.Header.Get("Range") != "":
					w.Header().Set("Content-Range", contentRange)
					w.WriteHeader(http.StatusPartialContent)
					w.Write(want[400:])
				case requests == 1:
					w.Header().Set("Content-Length", "1000")
					w.Write(want[:400])
				default:
					w.Header().Set("Content-Length", "1000")
					w.Write(want)
				}
			})
			r, err := fetchURL(t, newFetcher(t, nil), s.URL+"/a.ts")
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, r, want)
			if r.Resumes != 0 || r.Restarts != 1 {
				t.Errorf("got %d resumes and %d restarts, want 0 and 1", r.Resumes, r.Restarts)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		reason  protocol.FailureReason
		word    string
	}{
		"401": {status(401), protocol.ReasonInputError, "HTTP 401 Unauthorized"},
		"403": {status(403), protocol.ReasonInputError, "HTTP 403 Forbidden"},
		"404": {status(404), protocol.ReasonInputError, "HTTP 404 Not Found"},
		"410": {status(410), protocol.ReasonInputError, "HTTP 410 Gone"},
		"416": {status(416), protocol.ReasonInputError, "HTTP 416"},
		"204": {status(204), protocol.ReasonInputError, "HTTP 204"},
		"408": {status(408), protocol.ReasonNetworkError, "HTTP 408"},
		"429": {status(429), protocol.ReasonNetworkError, "HTTP 429"},
		"500": {status(500), protocol.ReasonNetworkError, "HTTP 500"},
		"501": {status(501), protocol.ReasonNetworkError, "HTTP 501"},
		"503": {status(503), protocol.ReasonNetworkError, "HTTP 503"},
		"empty": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "0")
		}, protocol.ReasonInputError, "empty"},
		"compressed": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(content(10))
		}, protocol.ReasonInputError, "gzip"},
		"wrong checksum": {func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte("x"))
		}, protocol.ReasonInputError, "SHA-256"},
		"short": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write(content(500))
		}, protocol.ReasonNetworkError, "ended early after 500 of 1000 bytes"},
		"redirects for ever": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/again?k=hunter2", http.StatusFound)
		}, protocol.ReasonInputError, "more than 10 redirects"},
		"redirect to a file": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		}, protocol.ReasonUserError, "redirected to file:///***, which is neither http nor https"},
		"redirect to no host": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http:///x?k=hunter2")
			w.WriteHeader(http.StatusFound)
		}, protocol.ReasonInputError, "no host"},
		"redirect to metadata": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest?k=hunter2", http.StatusFound)
		}, protocol.ReasonUserError, "redirected to http://169.254.169.254/***"},
		"changes for ever": {func() http.HandlerFunc {
			var n atomic.Int64
			return func(w http.ResponseWriter, r *http.Request) {
				i := int(n.Add(1))
				w.Header().Set("ETag", fmt.Sprintf(`"%d"`, i))
				w.Header().Set("Content-Length", "1000")
				w.Write(content(100 * i))
			}
		}(), protocol.ReasonInputError, "changed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, test.handler)
			dir := t.TempDir()
			request := Request{URL: "http://user:hunter2@" + s.Listener.Addr().String() + "/a.ts?key=hunter2", Dir: dir, SHA256: sum(nil)}
			_, err := newFetcher(t, nil).Fetch(t.Context(), request, nil)
			wantFailure(t, err, test.reason, "/a.ts", test.word)
			wantEmpty(t, dir)
		})
	}
}

func TestRefusesInvalidURLs(t *testing.T) {
	for name, u := range map[string]string{
		"protocol": "gopher://user:hunter2@host/x", "password": "http://user:%zzhunter2@host/x", "no host": "http:///hunter2",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fetchURL(t, newFetcher(t, nil), u)
			wantFailure(t, err, protocol.ReasonUserError, "input")
		})
	}
}

func TestRetriesTemporaryErrors(t *testing.T) {
	var requests atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) < 5 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("abc"))
	})
	r, err := fetchURL(t, newFetcher(t, nil), s.URL+"/a.ts")
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, r, []byte("abc"))
}

func TestRetryAfterIsBounded(t *testing.T) {
	for given, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "86400": maxRetryAfter, "x": 0, "-3": 0,
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): maxRetryAfter,
	} {
		if got := retryAfter(&statusError{code: 503, retry: given}); got != want {
			t.Errorf("Retry-After %q: got %s, want %s", given, got, want)
		}
	}
}

func TestConnectionRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = fetchURL(t, newFetcher(t, nil), "http://"+l.Addr().String()+"/a.ts")
	wantFailure(t, err, protocol.ReasonNetworkError, "connection refused")
}

// rawServer answers each connection's request with text and closes it.
func rawServer(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, answer)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "http://" + l.Addr().String()
}

func TestExcessDataOverTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n"+strings.Repeat("x", 30000))
	}))
	t.Cleanup(s.Close)
	_, err := fetchURL(t, newFetcher(t, func(settings *Settings) { settings.RootCAs = pool(s) }), s.URL+"/a.ts")
	wantFailure(t, err, protocol.ReasonInputError, "more than its Content-Length", "20000")
}

func TestExcessData(t *testing.T) {
	answer := "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 30000)
	dir := t.TempDir()
	_, err := newFetcher(t, nil).Fetch(t.Context(), Request{URL: rawServer(t, answer) + "/a.ts", Dir: dir}, nil)
	wantFailure(t, err, protocol.ReasonInputError, "more than its Content-Length", "20000")
	wantEmpty(t, dir)
}

func TestStalledTransferIsResumed(t *testing.T) {
	want := content(1000)
	var requests atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"a"`)
		if requests.Add(1) == 1 {
			w.Header().Set("Content-Length", "1000")
			w.Write(want[:400])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(want)))
	})
	f := newFetcher(t, func(s *Settings) { s.StallTimeout = 200 * time.Millisecond })
	r, err := f.Fetch(within(t, 20*time.Second), Request{URL: s.URL + "/a.ts", Dir: t.TempDir()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, r, want)
	if r.Resumes != 1 {
		t.Errorf("got %d resumes, want 1", r.Resumes)
	}
}

func TestSilentServer(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	f := newFetcher(t, func(s *Settings) { s.StallTimeout = 50 * time.Millisecond })
	_, err := f.Fetch(within(t, 20*time.Second), Request{URL: s.URL + "/a.ts", Dir: t.TempDir()}, nil)
	wantFailure(t, err, protocol.ReasonNetworkError, "no data received for 50ms")
}

func TestCanceledAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.Write(content(400))
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	})
	dir := t.TempDir()
	_, err := newFetcher(t, nil).Fetch(ctx, Request{URL: s.URL + "/a.ts", Dir: dir}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	wantEmpty(t, dir)
}

func TestLoopbackIsRefused(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { t.Error("the server was reached") })
	f := newFetcher(t, func(s *Settings) { s.Policy.Loopback = false })
	hosts := []string{"127.0.0.1", "[::ffff:127.0.0.1]"}
	if _, err := net.LookupHost("localhost"); err == nil { // a bare tree has no /etc/hosts
		hosts = append(hosts, "localhost")
	}
	for _, host := range hosts {
		_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
		_, err := fetchURL(t, f, "http://"+host+":"+port+"/a.ts")
		wantFailure(t, err, protocol.ReasonUserError, "loopback", "jobs.input_networks")
	}
}

func TestRedirectToLoopbackIsRefused(t *testing.T) {
	inner := serve(t, func(w http.ResponseWriter, r *http.Request) { t.Error("the server was reached") })
	outer := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inner.URL+"/secret", http.StatusFound)
	})
	// Both servers are on loopback; the second loopback address stands for an external one.
	f := newFetcher(t, func(s *Settings) {
		s.Policy.Loopback = false
		s.Policy.Networks = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	})
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: outer.Config.Handler}}
	s.Start()
	t.Cleanup(s.Close)
	_, err = fetchURL(t, f, s.URL+"/a.ts")
	wantFailure(t, err, protocol.ReasonUserError, "redirected to "+inner.URL+"/***", "loopback")
}

func TestCredentialsStayWithTheirHost(t *testing.T) {
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if h := r.Header.Get("Authorization") + r.Header.Get("Referer"); h != "" {
			t.Errorf("another host got %q, want nothing", h)
		}
		w.Write([]byte("abc"))
	})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "hunter2" {
			t.Errorf("%s: got user %q, password %q, want me and hunter2", r.URL, user, password)
		}
		if r.URL.Path == "/a.ts" {
			http.Redirect(w, r, "/b.ts", http.StatusMovedPermanently)
			return
		}
		http.Redirect(w, r, other.URL+"/c.ts", http.StatusTemporaryRedirect)
	})
	r, err := fetchURL(t, newFetcher(t, nil), strings.Replace(s.URL, "://", "://me:hunter2@", 1)+"/a.ts?k=1")
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, r, []byte("abc"))
}

func TestTLSIsVerified(t *testing.T) {
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("abc")) })
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down.ts" {
			http.Redirect(w, r, plain.URL, http.StatusFound)
			return
		}
		w.Write([]byte("abc"))
	}))
	s.Config.ErrorLog = quiet
	s.StartTLS()
	t.Cleanup(s.Close)
	_, err := fetchURL(t, newFetcher(t, nil), s.URL+"/a.ts")
	wantFailure(t, err, protocol.ReasonNetworkError, "certificate is not trusted")

	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	f := newFetcher(t, func(s *Settings) { s.RootCAs = pool })
	r, err := fetchURL(t, f, s.URL+"/a.ts")
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, r, []byte("abc"))
	_, err = fetchURL(t, f, s.URL+"/down.ts")
	wantFailure(t, err, protocol.ReasonUserError, "from https to http://")
}

func TestLeftToFFmpeg(t *testing.T) {
	file := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Length", fmt.Sprint(largeFile+1))
		w.(http.Flusher).Flush()
	}
	text := func(contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			io.WriteString(w, body)
		}
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		request Request
		why     string
	}{
		"no length": {func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			w.Write([]byte("abc"))
		}, Request{URL: "/a.ts"}, "length"},
		"no room":       {file, Request{URL: "/a.ts", FreeDisk: func() int64 { return 1000 }}, "1000 bytes of disk"},
		"small part":    {file, Request{URL: "/a.ts", Part: 10 * time.Second}, "uses only 10s"},
		"DASH by name":  {nil, Request{URL: "/a.mpd?x"}, "DASH"},
		"DASH by type":  {text("application/dash+xml", "<MPD/>"), Request{URL: "/a"}, "DASH"},
		"DASH declared": {nil, Request{URL: "/a", InputFormat: "dash"}, "DASH"},
		"live playlist": {text("application/vnd.apple.mpegurl", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n"), Request{URL: "/a"}, "live"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, test.handler)
			test.request.URL, test.request.Dir = s.URL+test.request.URL, t.TempDir()
			_, err := newFetcher(t, nil).Fetch(t.Context(), test.request, nil)
			wantDirect(t, err, test.why)
			wantEmpty(t, test.request.Dir)
		})
	}
	t.Run("rtmp", func(t *testing.T) {
		f := newFetcher(t, func(s *Settings) { s.Policy.Protocols = []string{"rtmp"} })
		_, err := fetchURL(t, f, "rtmp://host/app")
		wantDirect(t, err, "http")
	})
}

func TestDiskFillsWhileFetching(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(2*diskCheck))
		chunk := make([]byte, 1<<20)
		for range 2 * diskCheck >> 20 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	var asked int
	dir := t.TempDir()
	_, err := newFetcher(t, nil).Fetch(t.Context(), Request{URL: s.URL + "/a.ts", Dir: dir, FreeDisk: func() int64 {
		if asked++; asked == 1 {
			return 2 * diskCheck
		}
		return 5000
	}}, nil)
	wantFailure(t, err, protocol.ReasonResourceError, "free disk")
	wantEmpty(t, dir)
}

func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		w.Write(content(1_000_000))
	})
	_, err := newFetcher(t, nil).Fetch(t.Context(), Request{URL: s.URL + "/a.ts", Dir: dir}, nil)
	wantFailure(t, err, protocol.ReasonResourceError, "no space left")
	if strings.Contains(err.Error(), dir) {
		t.Errorf("message %q contains the workspace's path", err)
	}
	wantEmpty(t, dir)
}

// proxyServer is a proxy for http and for CONNECT that connects to target whatever host is
// requested.
func proxyServer(t *testing.T, target string, used *atomic.Int64) *httptest.Server {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		used.Add(1)
		if user := r.Header.Get("Proxy-Authorization"); user == "" {
			t.Error("the proxy got no user")
		}
		if r.Method != http.MethodConnect {
			u, _ := url.Parse("http://" + target + r.URL.Path)
			resp, err := http.DefaultTransport.RoundTrip(&http.Request{Method: "GET", URL: u, Header: http.Header{"Connection": {"close"}}, Close: true})
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			w.Header().Set("Content-Length", resp.Header.Get("Content-Length"))
			io.Copy(w, resp.Body)
			return
		}
		there, err := net.Dial("tcp", target)
		if err != nil {
			t.Error(err)
			return
		}
		defer there.Close()
		w.WriteHeader(http.StatusOK)
		here, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer here.Close()
		go func() { io.Copy(there, buffered); there.Close() }()
		io.Copy(here, there)
	})
}

func TestProxyIsUsed(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("abc")) })
	plain := serve(t, handler)
	secure := httptest.NewTLSServer(handler)
	t.Cleanup(secure.Close)
	pool := x509.NewCertPool()
	pool.AddCert(secure.Certificate())
	var used atomic.Int64
	plainProxy := proxyServer(t, plain.Listener.Addr().String(), &used)
	secureProxy := proxyServer(t, secure.Listener.Addr().String(), &used)
	withUser := func(u string) string { return strings.Replace(u, "://", "://me:hunter2@", 1) }
	t.Setenv("HTTP_PROXY", withUser(plainProxy.URL))
	t.Setenv("HTTPS_PROXY", withUser(secureProxy.URL))
	t.Setenv("NO_PROXY", "direct.invalid")
	// The proxies are on loopback, which the policy refuses for inputs.
	f := newFetcher(t, func(s *Settings) { s.Proxy, s.Policy.Loopback, s.RootCAs = nil, false, pool })
	for _, u := range []string{"http://media.invalid/a.ts", "https://example.com/a.ts"} { // example.com is in httptest's certificate
		before := used.Load()
		r, err := fetchURL(t, f, u)
		if err != nil {
			t.Fatal(err)
		}
		wantFile(t, r, []byte("abc"))
		if used.Load() == before {
			t.Errorf("%s: the proxy was not used", u)
		}
	}
	used.Store(0)
	_, err := fetchURL(t, f, "http://direct.invalid/a.ts")
	wantFailure(t, err, protocol.ReasonNetworkError, "direct.invalid")
	_, err = fetchURL(t, f, "http://169.254.169.254/latest")
	wantFailure(t, err, protocol.ReasonUserError, "169.254.169.254")
	if n := used.Load(); n != 0 {
		t.Errorf("got %d requests to the proxy, want none", n)
	}
}

func TestMalformedProxyIsAnError(t *testing.T) {
	for name, value := range map[string]string{
		"HTTP_PROXY": "http://me:hunter2%zz@proxy:3128", "https_proxy": "ftp://me:hunter2@proxy", "HTTPS_PROXY": "http://", "http_proxy": "::",
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range proxyVariables {
				t.Setenv(v, "")
			}
			t.Setenv(name, value)
			_, err := New(Settings{Policy: &reach.Policy{}})
			if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got error %v, want one that names %s without the password", err, name)
			}
		})
	}
	for _, value := range []string{"proxy.example:3128", "http://proxy.example", "socks5://user:x@10.0.0.1:1080"} {
		if err := checkProxy("HTTP_PROXY", value); err != nil {
			t.Errorf("%s: got %v, want no error", value, err)
		}
	}
}

func TestExtension(t *testing.T) {
	for _, test := range []struct{ path, contentType, want string }{
		{"/a/film.MP4", "", ".mp4"}, {"/a/film.php", "video/webm; codecs=vp9", ".webm"}, {"/film.exe", "application/octet-stream", ""},
		{"/film.mkv", "video/mp4", ".mkv"}, {"/film", "", ""},
	} {
		if got := extension(test.contentType, test.path); got != test.want {
			t.Errorf("%s, %s: got %q, want %q", test.path, test.contentType, got, test.want)
		}
	}
}
