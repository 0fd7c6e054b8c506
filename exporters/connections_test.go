package exporters

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestIdleConnectionsDoNotBlockOthers(t *testing.T) {
	s := newTestServer(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	defer func() { cancel(); <-served }()
	for s.Addr() == nil {
		time.Sleep(time.Millisecond)
	}
	_, port, _ := net.SplitHostPort(s.Addr().String())
	address := net.JoinHostPort("127.0.0.1", port)
	for i := range 2 * maxConnections {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 { // the others send nothing at all
			fmt.Fprint(conn, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
		}
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	fmt.Fprint(conn, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("health: %v, %v", answer, err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
}

func TestConnectionsOfOnePeerAreLimited(t *testing.T) {
	c := &connections{all: map[net.Conn]*connection{}}
	var flood []*pipeFrom
	for range maxPeerConnections {
		conn := newPipeFrom("203.0.113.1:1")
		c.changed(conn, http.StateNew)
		c.changed(conn, http.StateActive)
		flood = append(flood, conn)
	}
	other := newPipeFrom("203.0.113.2:1")
	c.changed(other, http.StateNew)
	more := newPipeFrom("203.0.113.1:2")
	c.changed(more, http.StateNew)
	if !more.closed || other.closed || flood[0].closed {
		t.Errorf("with all of a peer's connections busy: closed the new one %v, another peer's %v, a busy one %v", more.closed, other.closed, flood[0].closed)
	}
	c.changed(flood[3], http.StateIdle)
	more = newPipeFrom("203.0.113.1:3")
	c.changed(more, http.StateNew)
	if more.closed || !flood[3].closed {
		t.Errorf("with an idle connection: closed the new one %v, the idle one %v", more.closed, flood[3].closed)
	}
}

type pipeFrom struct {
	net.Conn
	from   string
	closed bool
}

func newPipeFrom(from string) *pipeFrom  { return &pipeFrom{from: from} }
func (p *pipeFrom) RemoteAddr() net.Addr { return tcpAddr(p.from) }
func (p *pipeFrom) Close() error         { p.closed = true; return nil }

type tcpAddr string

func (a tcpAddr) Network() string { return "tcp" }
func (a tcpAddr) String() string  { return string(a) }
