package fetch

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialAs connects to a server on this machine as another user, for which it has to be root.
func dialAs(t *testing.T, user int, address string) net.Conn {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	dialed := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(user), 0, 0)
		conn, err := net.Dial("tcp", address)
		dialed <- result{conn, err}
	}()
	r := <-dialed
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.conn.Close() })
	return r.conn
}

func TestRelayRefusesOtherUsers(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "film") })
	input, err := url.Parse(server.URL + "/film.mp4")
	if err != nil {
		t.Fatal(err)
	}
	const reader, other = 65533, 65534
	type peer struct {
		relayOf, user int
		served        bool
	}
	peers := []peer{{os.Getuid(), os.Getuid(), true}, {os.Getuid() + 1, os.Getuid(), false}}
	if os.Getuid() == 0 {
		peers = []peer{{0, 0, true}, {reader, 0, true}, {reader, reader, true}, {reader, other, false}, {0, other, false}}
	}
	for _, p := range peers {
		r, err := newFetcher(t, nil).Relay(input, false, p.relayOf)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		conn := dialAs(t, p.user, r.listener.Addr().String())
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(conn, "GET "+r.path+" HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")
		got, _ := io.ReadAll(conn)
		if strings.HasSuffix(string(got), "film") != p.served {
			t.Errorf("relay for user %d: user %d got %q, want served: %t", p.relayOf, p.user, got, p.served)
		}
		if r.Failure() != nil {
			t.Errorf("relay for user %d: a connection of user %d made the job fail: %v", p.relayOf, p.user, r.Failure())
		}
	}
}

func TestSocketUser(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if uid, err := peerUser(conn); uid != os.Getuid() || err != nil {
		t.Errorf("got user %d, %v, want %d", uid, err, os.Getuid())
	}
	client.Close() // the kernel says user 0 of it
	if uid, err := peerUser(conn); err == nil {
		t.Errorf("of a closed connection: got user %d, want an error", uid)
	}
}
