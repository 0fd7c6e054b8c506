package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

// newFetcher returns a Fetcher that may reach this machine and retries at once.
func newFetcher(t *testing.T, change func(*Settings)) *Fetcher {
	t.Helper()
	s := Settings{
		Policy: &reach.Policy{Protocols: []string{"file", "http", "https", "rtmp"}, Loopback: true},
		Proxy:  noProxy, StallTimeout: 20 * time.Second,
	}
	if change != nil {
		change(&s)
	}
	f, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	f.retry = retryPolicy{first: time.Millisecond, longest: 2 * time.Millisecond, attempts: 5}
	t.Cleanup(f.Close)
	return f
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

// content returns bytes that are the same in each run.
func content(n int) []byte {
	random := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	random.Read(b)
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func fetchURL(t *testing.T, f *Fetcher, u string) (Result, error) {
	t.Helper()
	return f.Fetch(t.Context(), Request{URL: u, Dir: t.TempDir()}, nil)
}

func wantFile(t *testing.T, r Result, want []byte) {
	t.Helper()
	got, err := os.ReadFile(r.Path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got %d bytes with SHA-256 %s, want %d with %s", len(got), sum(got), len(want), sum(want))
	}
	if r.Bytes != int64(len(want)) {
		t.Errorf("got %d bytes counted, want %d", r.Bytes, len(want))
	}
}

// wantFailure checks the reason of a failure, the words in its message, and that it contains no
// secret.
func wantFailure(t *testing.T, err error, reason protocol.FailureReason, words ...string) {
	t.Helper()
	var f *job.Failure
	if !errors.As(err, &f) {
		t.Fatalf("got error %v, want a failure with reason %s", err, reason)
	}
	if f.Reason != reason {
		t.Errorf("got reason %s (%s), want %s", f.Reason, f.Message, reason)
	}
	for _, w := range words {
		if !strings.Contains(f.Message, w) {
			t.Errorf("got message %q, want it to contain %q", f.Message, w)
		}
	}
	if strings.Contains(f.Message, "hunter2") {
		t.Errorf("message %q contains a secret", f.Message)
	}
}

func wantDirect(t *testing.T, err error, word string) {
	t.Helper()
	var d *Direct
	if !errors.As(err, &d) || !strings.Contains(d.Why, word) {
		t.Errorf("got error %v, want Direct because of %q", err, word)
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("got %v, %v left in the directory, want nothing", entries, err)
	}
}

// breaker serves content with ranges and cuts each response off after a number of bytes. After
// the last of them it sends whole responses.
type breaker struct {
	content  []byte
	after    []int
	etag     func(request int) string
	ranges   bool
	requests []string // the Range of each
}

func (b *breaker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i := len(b.requests)
	b.requests = append(b.requests, r.Header.Get("Range"))
	etag := `"v1"`
	if b.etag != nil {
		etag = b.etag(i)
	}
	w.Header().Set("ETag", etag)
	rest := b.content
	status := http.StatusOK
	var from int
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); n == 1 && b.ranges && r.Header.Get("If-Range") == etag {
		rest, status = b.content[from:], http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b.content)-1, len(b.content)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
	w.WriteHeader(status)
	if i < len(b.after) {
		w.Write(rest[:b.after[i]])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	w.Write(rest)
}

func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// quiet discards a server's log of clients that are meant to fail.
var quiet = log.New(io.Discard, "", 0)
