package exporters

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener for in-memory connections, so that deadlines use synctest's clock.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func newTestServer(t *testing.T, routes map[string]http.Handler) *Server {
	t.Helper()
	s, err := NewServer(Config{Name: "test", Routes: routes})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSlowClientIsDisconnected(t *testing.T) {
	for name, test := range map[string]struct {
		first string // sent at once
		sends string // sent every second thereafter
		limit time.Duration
	}{
		"slow header": {"GET / HTTP/1.1\r\nA: ", "x", readHeaderTimeout},
		"no request":  {"", "", readHeaderTimeout},
		"slow body":   {"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n", "x", readTimeout},
		"idle":        {"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", "", idleTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newTestServer(t, nil).newHTTPServer()
				listener := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
				go server.Serve(listener)
				defer server.Close()
				client, conn := net.Pipe()
				listener.conns <- conn
				start := time.Now()
				var writer sync.WaitGroup
				writer.Go(func() {
					io.WriteString(client, test.first)
					for test.sends != "" {
						time.Sleep(time.Second)
						if _, err := io.WriteString(client, test.sends); err != nil {
							return
						}
					}
				})
				io.Copy(io.Discard, client) // until the server closes the connection
				if took := time.Since(start); took > test.limit+5*time.Second {
					t.Errorf("disconnected after %v, want %v", took, test.limit)
				}
				client.Close()
				writer.Wait()
			})
		})
	}
}

func TestHungHandlersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := newTestServer(t, map[string]http.Handler{
			"/hung": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }),
		})
		get := func(path string) int {
			answer := httptest.NewRecorder()
			s.handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
			return answer.Code
		}
		start := time.Now()
		codes := make(chan int, maxConcurrent)
		for range maxConcurrent {
			go func() { codes <- get("/hung") }()
		}
		synctest.Wait()
		if code := get("/hung"); code != http.StatusServiceUnavailable || time.Since(start) != 0 {
			t.Errorf("request above the limit: got %d after %v, want 503 at once", code, time.Since(start))
		}
		if code := get("/health"); code != http.StatusOK {
			t.Errorf("other route: got %d, want 200", code)
		}
		for range maxConcurrent {
			if code := <-codes; code != http.StatusServiceUnavailable {
				t.Errorf("hung request: got %d, want 503", code)
			}
		}
		if took := time.Since(start); took != handlerTimeout {
			t.Errorf("hung requests: response after %v, want %v", took, handlerTimeout)
		}
		if code := get("/hung"); code != http.StatusServiceUnavailable {
			t.Errorf("request while handlers are still hung: got %d, want 503", code)
		}
		close(release)
		synctest.Wait()
		if code := get("/hung"); code != http.StatusOK {
			t.Errorf("request after the handlers returned: got %d, want 200", code)
		}
	})
}
