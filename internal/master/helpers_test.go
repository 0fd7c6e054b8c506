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

// clientFor makes a client of a master at url, with deadlines that no test waits for.
func clientFor(t *testing.T, url string, change ...func(*Settings)) *Client {
	t.Helper()
	s := Settings{
		URL: url, APIKey: func() string { return testKey }, Version: "1.2.3",
		HeartbeatTimeout: 20 * time.Second, CallTimeout: 20 * time.Second, ReportTimeout: 20 * time.Second, ListTimeout: 20 * time.Second,
	}
	for _, f := range change {
		f(&s)
	}
	c, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// hasty makes every deadline short, for masters that hang; long enough for a
// request to leave in on a busy machine.
func hasty(s *Settings) {
	const d = time.Second
	s.HeartbeatTimeout, s.CallTimeout, s.ReportTimeout, s.ListTimeout = d, d, d, d
}

// request is a request as it arrived.
type request struct {
	Method, URI, Body, From string
	Header                  http.Header
}

// arrivals collects requests; it is safe for concurrent use.
type arrivals struct {
	mu   sync.Mutex
	list []request
}

func (a *arrivals) add(r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, request{r.Method, r.RequestURI, string(body), r.RemoteAddr, r.Header})
}

func (a *arrivals) all() []request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]request(nil), a.list...)
}

// uris are the requests as "METHOD URI".
func (a *arrivals) uris() (uris []string) {
	for _, r := range a.all() {
		uris = append(uris, r.Method+" "+r.URI)
	}
	return uris
}

// serve is a master whose every answer is made by handle.
func serve(t *testing.T, handle http.HandlerFunc) (*httptest.Server, *arrivals) {
	t.Helper()
	arrived := &arrivals{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived.add(r)
		handle(w, r)
	}))
	t.Cleanup(server.Close)
	return server, arrived
}

// answering is a master that always answers alike.
func answering(t *testing.T, status int, body string) (*httptest.Server, *arrivals) {
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

// raw is a master that misbehaves below HTTP: handle has each connection to itself.
func raw(t *testing.T, handle func(net.Conn)) (url string) {
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

// afterRequest reads one whole request and then does what it is told.
func afterRequest(then func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			io.Copy(io.Discard, r.Body)
			then(conn)
		}
	}
}

// reset ends a connection with RST.
func reset(conn net.Conn) {
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// hang keeps a connection until its client gives up.
func hang(conn net.Conn) { io.Copy(io.Discard, conn) }

func says(text string) func(net.Conn) {
	return func(conn net.Conn) { io.WriteString(conn, text) }
}

// failure is the error as the port promises it.
func failure(t *testing.T, err error) *protocol.Error {
	t.Helper()
	var e *protocol.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want a MasterError", err, err)
	}
	text := err.Error()
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || len([]rune(text)) > 600 {
		t.Errorf("error text is not one plain line: %q", text)
	}
	if strings.Contains(text, testKey) {
		t.Errorf("error text shows the key: %q", text)
	}
	return e
}

func wantFailure(t *testing.T, err error, kind protocol.ErrorKind, text ...string) *protocol.Error {
	t.Helper()
	e := failure(t, err)
	if e.Kind != kind {
		t.Errorf("%v, want %v: %v", e.Kind, kind, err)
	}
	for _, part := range text {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	return e
}

func lease(j protocol.Job) job.Lease { return job.Lease{Job: j, NodeID: session.NodeID} }

func record(result string) job.Record {
	return job.Record{Lease: lease(protocol.Job{ID: "j1"}), Result: []byte(result)}
}

// everyCall is each call of the port, by name.
var everyCall = map[string]func(context.Context, *Client) error{
	"register": func(ctx context.Context, c *Client) error {
		_, err := c.Register(ctx, messages.NodeFacts{Address: "host"})
		return err
	},
	"heartbeat": func(ctx context.Context, c *Client) error { return c.Heartbeat(ctx, session, messages.NodeStatus{}) },
	"next":      func(ctx context.Context, c *Client) error { _, err := c.Next(ctx, session); return err },
	"held":      func(ctx context.Context, c *Client) error { _, err := c.Held(ctx, session); return err },
	"extend": func(ctx context.Context, c *Client) error {
		_, err := c.Extend(ctx, lease(protocol.Job{ID: "j1"}))
		return err
	},
	"report":  func(ctx context.Context, c *Client) error { return c.Report(ctx, record(`{}`)) },
	"release": func(ctx context.Context, c *Client) error { return c.Release(ctx, record(`{}`)) },
}

// start makes a call in the background and returns what waits for its error.
func start(call func(context.Context, *Client) error, c *Client) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- call(context.Background(), c) }()
	return func() error { return <-done }
}
