package chaos

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// filmHost is the host of the inputs that agents fetch. No name has to be resolved, and it is
// of a block that is set apart for documentation (RFC 5737): each agent's films answer for it as
// its proxy, since not all agents reach this machine by the same address.
const filmHost = "http://192.0.2.1"

// Films. Any but the first exists for one kind of fault.
const (
	clipFilm  = "/clip.mp4"
	largeFilm = "/large.mp4" // largeSize
	liesFilm  = "/lies.mp4"  // has more bytes than its server says
)

// largeSize is that of the large film, bytes: the rest of it is padding.
const largeSize = 16 << 20

// films is the server of the inputs that one agent fetches.
type films struct {
	clip     []byte
	listener net.Listener
	server   *http.Server

	mu       sync.Mutex
	armed    []*filmRule
	requests int
	changed  chan struct{} // closed with each request
}

// filmRule plays a fault on the next request for a film.
type filmRule struct {
	path    string
	play    func(w http.ResponseWriter, r *http.Request, film []byte)
	matched chan int // gets the number of the request
}

func newFilms(address, clip string) (*films, error) {
	film, err := os.ReadFile(clip)
	if err != nil {
		return nil, err
	}
	f := &films{clip: film, changed: make(chan struct{})}
	if f.listener, err = net.Listen("tcp", address); err != nil {
		return nil, err
	}
	f.server = &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = f.server.Serve(f.listener) }()
	return f, nil
}

func (f *films) address() string { return f.listener.Addr().String() }

func (f *films) close() { _ = f.server.Close() }

// arm has the next request for a film meet a fault.
func (f *films) arm(path string, play func(http.ResponseWriter, *http.Request, []byte)) *filmRule {
	r := &filmRule{path: path, play: play, matched: make(chan int, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = append(f.armed, r)
	return r
}

func (f *films) disarm(r *filmRule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.armed {
		if other == r {
			f.armed = append(f.armed[:i], f.armed[i+1:]...)
			return
		}
	}
}

// take counts a request and returns the fault that it is to meet, if any.
func (f *films) take(path string) *filmRule {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	close(f.changed)
	f.changed = make(chan struct{})
	for i, r := range f.armed {
		if r.path == path {
			f.armed = append(f.armed[:i], f.armed[i+1:]...)
			r.matched <- f.requests
			return r
		}
	}
	return nil
}

// seen is the number of requests so far, and what is closed with the next.
func (f *films) seen() (requests int, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests, f.changed
}

// padded is the clip with a box at its end that players skip.
func (f *films) padded() []byte {
	film := make([]byte, largeSize)
	n := copy(film, f.clip)
	size := largeSize - n
	copy(film[n:], []byte{byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size), 'f', 'r', 'e', 'e'})
	return film
}

func (f *films) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	film := f.clip
	if r.URL.Path == largeFilm {
		film = f.padded()
	}
	rule := f.take(r.URL.Path)
	switch {
	case rule != nil:
		rule.play(w, r, film)
	case r.URL.Path == liesFilm:
		sendTooMuch(w, film)
	default:
		w.Header().Set("ETag", `"film"`)
		http.ServeContent(w, r, "film.mp4", time.Time{}, bytes.NewReader(film))
	}
}

// sendHalf promises a film and sends the first half of it.
func sendHalf(w http.ResponseWriter, film []byte) {
	w.Header().Set("ETag", `"film"`)
	w.Header().Set("Content-Length", fmt.Sprint(len(film)))
	_, _ = w.Write(film[:len(film)/2])
	_ = http.NewResponseController(w).Flush()
}

// sendTooMuch sends more than it promises, which is a whole film.
func sendTooMuch(w http.ResponseWriter, film []byte) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n", len(film))
	_, _ = conn.Write(append(bytes.Clone(film), make([]byte, 1000)...))
	_, _ = io.Copy(io.Discard, conn)
}
