package fetch

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/protocol"
)

func newRelay(t *testing.T, f *Fetcher, input string) *Relay { return relayOf(t, f, input, false) }

func newProxy(t *testing.T, f *Fetcher, input string) *Relay { return relayOf(t, f, input, true) }

func relayOf(t *testing.T, f *Fetcher, input string, playlist bool) *Relay {
	t.Helper()
	u, err := url.Parse(input)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Relay(u, playlist, os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// through returns a client with the relay as its proxy, like FFmpeg.
func through(t *testing.T, r *Relay, roots *x509.CertPool) *http.Client {
	t.Helper()
	proxy, err := url.Parse(r.ProxyURL())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

func ask(t *testing.T, c *http.Client, url string, header ...string) (status int, body string, err error) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(q)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

func pool(servers ...*httptest.Server) *x509.CertPool {
	roots := x509.NewCertPool()
	for _, s := range servers {
		roots.AddCert(s.Certificate())
	}
	return roots
}

func TestRelayServesTheInputWithRanges(t *testing.T) {
	want := string(content(100_000))
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "hunter2" || r.URL.Query().Get("sig") != "x" {
			t.Errorf("got user %q, password %q, query %q", user, password, r.URL.RawQuery)
		}
		http.ServeContent(w, r, "film.mp4", time.Time{}, strings.NewReader(want))
	})
	r := newRelay(t, newFetcher(t, nil), strings.Replace(server.URL, "http://", "http://me:hunter2@", 1)+"/film.mp4?sig=x")
	if strings.Contains(r.FileURL(), "hunter2") || strings.Contains(r.FileURL(), "sig") || !strings.HasSuffix(r.FileURL(), ".mp4") {
		t.Errorf("got URL %s, want one without secrets that ends in .mp4", r.FileURL())
	}
	if status, got, err := ask(t, server.Client(), r.FileURL()); status != 200 || got != want || err != nil {
		t.Errorf("got %d, %d bytes, %v", status, len(got), err)
	}
	if status, got, err := ask(t, server.Client(), r.FileURL(), "Range", "bytes=99990-"); status != 206 || got != want[99990:] || err != nil {
		t.Errorf("range request: got %d, %d bytes, %v", status, len(got), err)
	}
	for _, other := range []string{"/", "/input.mp4", "/film.mp4?sig=x"} {
		if status, _, _ := ask(t, server.Client(), r.ProxyURL()+other); status != http.StatusNotFound {
			t.Errorf("%s: got status %d, want 404", other, status)
		}
	}
	if r.Failure() != nil || r.BrokeOff() {
		t.Errorf("got failure %v", r.Failure())
	}
}

func TestRelayChecksEachAddress(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest/", http.StatusFound)
	})
	f := newFetcher(t, nil)
	for name, try := range map[string]func(r *Relay) (int, error){
		"redirect of a file": func(r *Relay) (int, error) { s, _, err := ask(t, server.Client(), r.FileURL()); return s, err },
		"redirect of a part": func(r *Relay) (int, error) { s, _, err := ask(t, through(t, r, nil), server.URL); return s, err },
		"address": func(r *Relay) (int, error) {
			s, _, err := ask(t, through(t, r, nil), "http://169.254.169.254/x")
			return s, err
		},
		"protocol": func(r *Relay) (int, error) { return connectTo(t, r, "169.254.169.254:443") },
	} {
		r := relayOf(t, f, server.URL+"/film.mp4", name != "redirect of a file")
		if status, err := try(r); status != http.StatusForbidden || err != nil {
			t.Errorf("%s: got status %d, %v; want 403", name, status, err)
		}
		wantFailure(t, r.Failure(), protocol.ReasonUserError, "169.254.169.254", "jobs.input_networks")
	}
}

// connectTo requests a tunnel from a relay.
func connectTo(t *testing.T, r *Relay, address string) (int, error) {
	t.Helper()
	conn, err := net.Dial("tcp", r.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", address, address)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}

func TestRelayTunnelsToVerifiedServersOnly(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "part") }))
	server.Config.ErrorLog = quiet
	server.StartTLS()
	t.Cleanup(server.Close)
	trusting := newFetcher(t, func(s *Settings) { s.RootCAs = pool(server) })
	r := newProxy(t, trusting, "https://127.0.0.1/x.mpd")
	for range 2 {
		if status, got, err := ask(t, through(t, r, pool(server)), server.URL); status != 200 || got != "part" || err != nil {
			t.Errorf("got %d, %q, %v", status, got, err)
		}
	}
	r = newProxy(t, newFetcher(t, func(s *Settings) { s.RootCAs = x509.NewCertPool() }), "https://127.0.0.1/x.mpd")
	if status, err := connectTo(t, r, server.Listener.Addr().String()); status != http.StatusBadGateway || err != nil {
		t.Errorf("got status %d, %v; want 502", status, err)
	}
	wantFailure(t, r.Failure(), protocol.ReasonNetworkError, "certificate is not trusted")
}

func TestRelayOfAFileIsNoProxy(t *testing.T) {
	server := serve(t, func(_ http.ResponseWriter, q *http.Request) { t.Errorf("the server was asked for %s", q.URL) })
	r := newRelay(t, newFetcher(t, nil), strings.Replace(server.URL, "://", "://me:hunter2@", 1)+"/film.mp4")
	for _, u := range []string{server.URL + "/other.ts", server.URL + r.path} {
		if status, _, err := ask(t, through(t, r, nil), u); status != http.StatusNotFound || err != nil {
			t.Errorf("%s: got status %d, %v; want 404", u, status, err)
		}
	}
	if status, err := connectTo(t, r, server.Listener.Addr().String()); status != http.StatusMethodNotAllowed || err != nil {
		t.Errorf("CONNECT: got status %d, %v; want 405", status, err)
	}
	p := newProxy(t, newFetcher(t, nil), server.URL+"/x.mpd")
	if status, _, err := ask(t, server.Client(), p.FileURL()); status != http.StatusNotFound || err != nil {
		t.Errorf("file of a playlist's relay: got status %d, %v; want 404", status, err)
	}
}

func TestRelayReportsTruncatedTransfer(t *testing.T) {
	for name, c := range map[string]struct {
		stated bool
		broke  bool
	}{"length stated": {true, true}, "not stated": {false, false}} {
		server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if c.stated {
				w.Header().Set("Content-Length", "1000")
			}
			_, _ = w.Write(make([]byte, 500))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		r := newRelay(t, newFetcher(t, nil), server.URL+"/film.ts")
		if _, got, err := ask(t, server.Client(), r.FileURL()); err == nil || len(got) != 500 {
			t.Errorf("%s: got %d bytes and error %v, want 500 and an error", name, len(got), err)
		}
		if r.BrokeOff() != c.broke {
			t.Errorf("%s: got %t, want %t", name, r.BrokeOff(), c.broke)
		}
	}
}

func TestRelayReportsExcessData(t *testing.T) {
	answer := "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 30000)
	r := newRelay(t, newFetcher(t, nil), rawServer(t, answer)+"/film.mp4")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if _, got, err := ask(t, client, r.FileURL()); err == nil {
		t.Errorf("got %d bytes without an error", len(got))
	}
	wantFailure(t, r.Failure(), protocol.ReasonInputError, "more than its Content-Length", "20000")
}

func TestCloseEndsRelayConnections(t *testing.T) {
	begun := make(chan struct{})
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-r.Context().Done()
	})
	r := newRelay(t, newFetcher(t, nil), server.URL+"/live.ts")
	ended := make(chan error, 1)
	go func() {
		_, _, err := ask(t, server.Client(), r.FileURL())
		ended <- err
	}()
	<-begun
	r.Close()
	if err := <-ended; err == nil {
		t.Error("a transfer through a closed relay ended without an error")
	}
	if r.Failure() != nil {
		t.Errorf("got failure %v, want none", r.Failure())
	}
}

func TestRelayUsesTheProxy(t *testing.T) {
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "part") }))
	t.Cleanup(server.Close)
	plain := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "part") })
	for name, c := range map[string]struct{ to, url string }{
		"tunnel": {server.Listener.Addr().String(), "https://example.com/part"}, "request": {plain.Listener.Addr().String(), "http://example.com/part"},
	} {
		var used atomic.Int64
		via := &url.URL{Scheme: "http", Host: proxyServer(t, c.to, &used).Listener.Addr().String(), User: url.UserPassword("me", "hunter2")}
		f := newFetcher(t, func(s *Settings) { s.RootCAs, s.Proxy = pool(server), http.ProxyURL(via) })
		r := newProxy(t, f, "https://example.com/x.mpd")
		if status, got, err := ask(t, through(t, r, pool(server)), c.url); status != 200 || got != "part" || err != nil {
			t.Errorf("%s: got %d, %q, %v; failure %v", name, status, got, err, r.Failure())
		}
		if used.Load() == 0 {
			t.Errorf("%s: the proxy was not used", name)
		}
	}
}

func TestRefusedTunnelNamesTheProxyWithoutPassword(t *testing.T) {
	proxy := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) })
	via := &url.URL{Scheme: "http", Host: proxy.Listener.Addr().String(), User: url.UserPassword("me", "hunter2")}
	f := newFetcher(t, func(s *Settings) { s.Proxy = http.ProxyURL(via) })
	_, err := f.client.tunnel(t.Context(), &url.URL{Scheme: "https", Host: "example.com"})
	if err == nil || !strings.Contains(err.Error(), via.Host) || !strings.Contains(err.Error(), "407") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got error %v, want 407 and the proxy's address alone", err)
	}
	var refused *reach.Refused
	if errors.As(err, &refused) {
		t.Error("the proxy itself was refused")
	}
}

func TestPlaylistURLHidesSecretsAndTLS(t *testing.T) {
	var asked []string
	var mu sync.Mutex
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, password+" "+r.URL.String())
	}))
	t.Cleanup(server.Close)
	f := newFetcher(t, func(s *Settings) { s.RootCAs = pool(server) })
	r := newProxy(t, f, strings.Replace(server.URL, "://", "://me:hunter2@", 1)+"/a/x.mpd?sig=1")
	if got, want := r.PlaylistURL(), strings.Replace(server.URL, "https", "http", 1)+"/a/x.mpd"; got != want {
		t.Errorf("got URL %s, want %s", got, want)
	}
	base := strings.TrimSuffix(r.PlaylistURL(), "/a/x.mpd")
	for _, u := range []string{r.PlaylistURL(), base + "/a/1.m4s", base + "/2.m4s?t=3"} {
		if status, _, err := ask(t, through(t, r, nil), u); status != 200 || err != nil {
			t.Errorf("%s: got %d, %v", u, status, err)
		}
	}
	want := []string{"hunter2 /a/x.mpd?sig=1", "hunter2 /a/1.m4s", "hunter2 /2.m4s?t=3"}
	if !slices.Equal(asked, want) {
		t.Errorf("the server was asked for %q, want %q", asked, want)
	}
}
