package fetch

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/job"
)

// Relay is a server on a loopback address, between an FFmpeg that reads an input over http or
// https itself and the server of the input. It serves a file under a URL of its own. For a
// playlist, whose URLs FFmpeg follows, it acts as FFmpeg's proxy. Either way FFmpeg's arguments
// contain no secret, and the Policy checks each address after name resolution. The relay handles
// TLS, except for tunnels to other servers that a playlist names. Other users of this machine
// cannot connect.
type Relay struct {
	fetcher  *Fetcher
	input    *url.URL
	playlist bool
	path     string // of FileURL
	listener net.Listener
	server   *http.Server
	ctx      context.Context
	cancel   context.CancelFunc
	working  sync.WaitGroup // the server and the tunnels

	mu       sync.Mutex
	failed   error           // the first
	broke    bool            // a transfer of stated length ended early
	verified map[string]bool // servers with verified certificates
}

// Relay starts a relay for an input, which is a file or a playlist, and an FFmpeg that runs as
// the user with the id user. Close ends it.
func (f *Fetcher) Relay(input *url.URL, playlist bool, user int) (*Relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for FFmpeg: %w", err)
	}
	r := &Relay{
		fetcher: f, input: input, playlist: playlist, listener: &userListener{Listener: listener, user: user, log: f.log}, verified: map[string]bool{},
		path: "/" + rand.Text() + "/input" + extension("", input.Path),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.server = &http.Server{
		Handler: r, ReadHeaderTimeout: 10 * time.Second, ErrorLog: zap.NewStdLog(zap.NewNop()),
		BaseContext: func(net.Listener) context.Context { return r.ctx },
	}
	r.working.Go(func() { _ = r.server.Serve(r.listener) })
	return r, nil
}

// FileURL returns the URL from which FFmpeg reads an input that is a file.
func (r *Relay) FileURL() string { return r.ProxyURL() + r.path }

// PlaylistURL returns the URL from which FFmpeg, with the relay as its proxy, reads an input
// that is a playlist: that of the input without its secrets and without TLS, which the relay
// adds. Relative URLs in the playlist thus lead to the input's server through the relay.
func (r *Relay) PlaylistURL() string {
	u := url.URL{Scheme: "http", Host: hostPort(r.input), Path: r.input.Path, RawPath: r.input.RawPath}
	return u.String()
}

// hostPort returns the host and the port of a URL.
func hostPort(u *url.URL) string {
	port := "80"
	if u.Scheme == "https" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
}

// ProxyURL returns the URL of the relay as FFmpeg's proxy.
func (r *Relay) ProxyURL() string { return "http://" + r.listener.Addr().String() }

// Failure returns the first failure between the relay and a server, in the form that Fetch
// returns; nil if there was none.
func (r *Relay) Failure() *job.Failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		return nil
	}
	var f *job.Failure
	err, _ := classify("input "+show(r.input), r.failed)
	errors.As(err, &f)
	return f
}

// BrokeOff reports whether a server sent less than its stated length.
func (r *Relay) BrokeOff() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broke
}

// Close closes all connections. It may be called more than once.
func (r *Relay) Close() {
	r.cancel()
	_ = r.server.Close()
	r.working.Wait()
}

func (r *Relay) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	var err error
	switch {
	case r.playlist && q.Method == http.MethodConnect:
		err = r.connect(w, q)
	case q.Method != http.MethodGet:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case r.playlist && q.URL.IsAbs():
		err = r.forward(w, q)
	case !r.playlist && !q.URL.IsAbs() && q.URL.Path == r.path:
		err = r.serveInput(w, q)
	default:
		http.NotFound(w, q)
	}
	if err == nil {
		return
	}
	if r.ctx.Err() != nil { // closed
		panic(http.ErrAbortHandler)
	}
	var refused *reach.Refused
	status := http.StatusBadGateway
	if errors.As(err, &refused) {
		status = http.StatusForbidden
	}
	r.fail(err)
	http.Error(w, http.StatusText(status), status)
}

// fail records an error, unless FFmpeg caused it by closing its connection.
func (r *Relay) fail(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = err
	}
}

// requestHeaders are the headers of FFmpeg's requests that are forwarded.
var requestHeaders = []string{"Range", "Authorization", "Cookie", "Referer", "Icy-Metadata"}

func header(q *http.Request) http.Header {
	h := http.Header{}
	for _, name := range requestHeaders {
		if v := q.Header.Values(name); len(v) > 0 {
			h[name] = v
		}
	}
	return h
}

// serveInput serves the input as a file, after redirects.
func (r *Relay) serveInput(w http.ResponseWriter, q *http.Request) error {
	resp, err := r.fetcher.client.get(q.Context(), r.input, header(q), false)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest && resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		r.fail(&statusError{code: resp.StatusCode})
	}
	r.respond(w, resp)
	return nil
}

// forward forwards a request. FFmpeg follows redirects itself, again through the relay.
func (r *Relay) forward(w http.ResponseWriter, q *http.Request) error {
	u, err := r.fetcher.settings.Policy.ParseURL(r.target(q.URL).String())
	if err != nil {
		return err
	}
	resp, err := r.fetcher.client.send(q.Context(), u, header(q), false)
	if err != nil {
		return err
	}
	r.respond(w, resp)
	return nil
}

// target returns the real URL for one that FFmpeg requested; see PlaylistURL. User and password
// of the input are for its server alone, as in a playlist that is fetched.
func (r *Relay) target(u *url.URL) *url.URL {
	to := *u
	if hostPort(u) != hostPort(r.input) {
		return &to
	}
	to.Scheme = r.input.Scheme
	if u.EscapedPath() == r.input.EscapedPath() && u.RawQuery == "" {
		to.RawQuery = r.input.RawQuery
	}
	if u.User == nil {
		to.User = r.input.User
	}
	return &to
}

// responseHeaders are the headers of responses that are forwarded.
var responseHeaders = []string{
	"Content-Type", "Content-Length", "Content-Range", "Accept-Ranges", "Location", "Etag", "Last-Modified", "Set-Cookie", "Www-Authenticate",
}

func (r *Relay) respond(w http.ResponseWriter, resp *http.Response) {
	defer resp.Body.Close()
	for _, name := range responseHeaders {
		if v := resp.Header.Values(name); len(v) > 0 {
			w.Header()[name] = v
		}
	}
	w.WriteHeader(resp.StatusCode)
	out := http.NewResponseController(w)
	buffer := make([]byte, bufferSize)
	for {
		n, err := resp.Body.Read(buffer)
		if _, gone := w.Write(buffer[:n]); gone != nil {
			return // FFmpeg has read enough
		}
		if err == io.EOF {
			return
		}
		if err == nil {
			err = out.Flush() // a live input may be slow
		} else if resp.Request.Context().Err() == nil {
			r.fail(err)
			r.mu.Lock()
			r.broke = r.broke || resp.ContentLength >= 0
			r.mu.Unlock()
		}
		if err != nil {
			panic(http.ErrAbortHandler) // so that FFmpeg notices the truncation
		}
	}
}

// connect tunnels FFmpeg's TLS connection to a server. FFmpeg does not verify the certificates
// of all the servers that a playlist names, so the relay first verifies them on a connection of
// its own.
func (r *Relay) connect(w http.ResponseWriter, q *http.Request) error {
	u, err := r.fetcher.settings.Policy.ParseURL("https://" + q.Host)
	if err != nil {
		return err
	}
	if err := r.verify(q.Context(), u); err != nil {
		return err
	}
	server, err := r.fetcher.client.tunnel(q.Context(), u)
	if err != nil {
		return err
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		server.Close()
		return err
	}
	defer context.AfterFunc(r.ctx, func() { client.Close(); server.Close() })()
	r.working.Add(1)
	defer r.working.Done()
	_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	var copying sync.WaitGroup
	splice := func(to net.Conn, from io.Reader) {
		_, _ = io.Copy(to, from)
		client.Close()
		server.Close()
	}
	copying.Go(func() { splice(server, buffered) })
	copying.Go(func() { splice(client, server) })
	copying.Wait()
	return nil
}

func (r *Relay) verify(ctx context.Context, u *url.URL) error {
	r.mu.Lock()
	known := r.verified[u.Host]
	r.mu.Unlock()
	if known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := r.fetcher.client.tunnel(ctx, u)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := tls.Client(conn, r.fetcher.client.tlsConfig(u.Hostname())).HandshakeContext(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verified[u.Host] = true
	return nil
}
