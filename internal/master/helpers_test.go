package master

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testKey = "s3cret-key"

var session = messages.Session{NodeID: "n/1 ü", Address: "host"}

// clientFor returns a client with timeouts long enough not to expire.
func clientFor(t *testing.T, url string, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{
		URL: url, APIKey: testKey, Version: "1.2.3",
		HeartbeatTimeout: 20 * time.Second, CallTimeout: 20 * time.Second, ReportTimeout: 20 * time.Second, ListTimeout: 20 * time.Second,
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// shortTimeouts is for masters that hang. The timeouts still allow a request to be sent on
// a busy machine.
func shortTimeouts(cfg *Config) {
	const d = time.Second
	cfg.HeartbeatTimeout, cfg.CallTimeout, cfg.ReportTimeout, cfg.ListTimeout = d, d, d, d
}

// request is a received request.
type request struct {
	Method, URI, Body, From string
	Header                  http.Header
}

// requestLog collects requests. It is safe for concurrent use.
type requestLog struct {
	mu   sync.Mutex
	list []request
}

func (l *requestLog) add(r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, request{r.Method, r.RequestURI, string(body), r.RemoteAddr, r.Header})
}

func (l *requestLog) all() []request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]request(nil), l.list...)
}

// uris returns the requests as "METHOD URI".
func (l *requestLog) uris() (uris []string) {
	for _, r := range l.all() {
		uris = append(uris, r.Method+" "+r.URI)
	}
	return uris
}

// serve starts a master with the given handler.
func serve(t *testing.T, handle http.HandlerFunc) (*httptest.Server, *requestLog) {
	t.Helper()
	requests := &requestLog{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.add(r)
		handle(w, r)
	}))
	t.Cleanup(server.Close)
	return server, requests
}

// respondWith starts a master that responds to each request with status and body.
func respondWith(t *testing.T, status int, body string) (*httptest.Server, *requestLog) {
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

// serveTCP starts a master that handles TCP connections, for faults below HTTP.
func serveTCP(t *testing.T, handle func(net.Conn)) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var handlers sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	handlers.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			handlers.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		handlers.Wait()
	})
	return "http://" + listener.Addr().String()
}

// afterRequest reads one complete request before it calls then.
func afterRequest(then func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			io.Copy(io.Discard, r.Body)
			then(conn)
		}
	}
}

// reset closes a connection with RST.
func reset(conn net.Conn) {
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// hang keeps a connection open until the client closes it.
func hang(conn net.Conn) { io.Copy(io.Discard, conn) }

// send returns a handler that writes text to the connection.
func send(text string) func(net.Conn) {
	return func(conn net.Conn) { io.WriteString(conn, text) }
}

// protocolError checks that err is a *protocol.Error with a single-line message without the
// API key.
func protocolError(t *testing.T, err error) *protocol.Error {
	t.Helper()
	var e *protocol.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v (%T), want a *protocol.Error", err, err)
	}
	text := err.Error()
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || len([]rune(text)) > 600 {
		t.Errorf("got message %q, want a single line of up to 600 characters", text)
	}
	if strings.Contains(text, testKey) {
		t.Errorf("message contains the key: %q", text)
	}
	return e
}

func wantError(t *testing.T, err error, kind protocol.ErrorKind, text ...string) *protocol.Error {
	t.Helper()
	e := protocolError(t, err)
	if e.Kind != kind {
		t.Errorf("got kind %q of %v, want %q", e.Kind, err, kind)
	}
	for _, part := range text {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got error %q, want %q in it", err, part)
		}
	}
	return e
}

func lease(j protocol.Job) job.Lease { return job.Lease{Job: j, NodeID: session.NodeID} }

func record(result string) job.Record {
	return job.Record{Lease: lease(protocol.Job{ID: "j1"}), Result: []byte(result)}
}

// allCalls are the client's methods by name.
var allCalls = map[string]func(context.Context, *Client) error{
	"register": func(ctx context.Context, c *Client) error {
		_, err := c.Register(ctx, messages.NodeFacts{Address: "host"})
		return err
	},
	"heartbeat": func(ctx context.Context, c *Client) error { return c.Heartbeat(ctx, session, messages.NodeStatus{}) },
	"next":      func(ctx context.Context, c *Client) error { _, err := c.Next(ctx, session); return err },
	"held":      func(ctx context.Context, c *Client) error { _, err := c.Held(ctx, session); return err },
	"remove":    func(ctx context.Context, c *Client) error { return c.Remove(ctx, session) },
	"extend": func(ctx context.Context, c *Client) error {
		_, err := c.Extend(ctx, lease(protocol.Job{ID: "j1"}))
		return err
	},
	"report":  func(ctx context.Context, c *Client) error { return c.Report(ctx, record(`{}`)) },
	"release": func(ctx context.Context, c *Client) error { return c.Release(ctx, record(`{}`)) },
}

// start makes a call in the background. wait returns its error.
func start(call func(context.Context, *Client) error, c *Client) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- call(context.Background(), c) }()
	return func() error { return <-done }
}
