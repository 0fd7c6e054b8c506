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
		flood = append(flood, c.busy("203.0.113.1:1"))
	}
	other := c.busy("203.0.113.2:1")
	flood = append(flood, c.busy("203.0.113.1:2"))
	if !flood[0].closed || other.closed || flood[maxPeerConnections].closed {
		t.Errorf("with all of a peer's connections busy: closed the oldest %v, another peer's %v, the new one %v; want the oldest alone",
			flood[0].closed, other.closed, flood[maxPeerConnections].closed)
	}
	c.changed(flood[3], http.StateIdle)
	more := c.busy("203.0.113.1:3")
	if more.closed || !flood[3].closed || flood[1].closed {
		t.Errorf("with an idle connection: closed the new one %v, the idle one %v, a busy one %v; want the idle one alone", more.closed, flood[3].closed, flood[1].closed)
	}
}

func TestSlowClientsDoNotBlockOtherPeers(t *testing.T) {
	c := &connections{all: map[net.Conn]*connection{}}
	scrape := c.busy("198.51.100.1:1")
	var flood []*pipeFrom
	for i := range maxConnections {
		flood = append(flood, c.busy(fmt.Sprintf("203.0.113.%d:1", i%4)))
	}
	more := newPipeFrom("198.51.100.1:2")
	c.changed(more, http.StateNew) // its request is on the way
	flood = append(flood, c.busy("203.0.113.0:1"))
	if more.closed || scrape.closed || !flood[0].closed {
		t.Errorf("with slow requests of four peers: closed the new one %v, another peer's %v, the oldest of the four's %v; want that alone", more.closed, scrape.closed, flood[0].closed)
	}
	closed := 0
	for _, f := range flood {
		if f.closed {
			closed++
		}
	}
	if closed != 3 || len(c.all) != maxConnections {
		t.Errorf("closed %d of the flood, kept %d connections; want 3, %d", closed, len(c.all), maxConnections)
	}
}

func TestPeersAreAddressesOrIPv6Networks(t *testing.T) {
	for remote, want := range map[string]string{
		"203.0.113.1:80": "203.0.113.1/32", "[::ffff:203.0.113.1]:80": "203.0.113.1/32", "[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64", "[fe80::1%lo]:80": "fe80::/64",
	} {
		if got := peerOf(tcpAddr(remote)); got != want {
			t.Errorf("%s: got %s, want %s", remote, got, want)
		}
	}
}

// busy adds a connection with a request in progress.
func (c *connections) busy(from string) *pipeFrom {
	conn := newPipeFrom(from)
	c.changed(conn, http.StateNew)
	c.changed(conn, http.StateActive)
	return conn
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
