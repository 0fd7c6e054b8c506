package chaos

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newTestFilms(t *testing.T) *films {
	t.Helper()
	clip := filepath.Join(t.TempDir(), "clip.mp4")
	if err := os.WriteFile(clip, []byte(strings.Repeat("film", 250)), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := newFilms("127.0.0.1:0", clip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

// get asks as a client does that the films are the proxy of.
func (f *films) get(ctx context.Context, path, bytes string) (status int, body string, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, filmHost+path, nil)
	if err != nil {
		return 0, "", err
	}
	if bytes != "" {
		q.Header.Set("Range", "bytes="+bytes)
		q.Header.Set("If-Range", `"film"`)
	}
	q.Close = true
	client := http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: f.address()}), DisableKeepAlives: true}}
	resp, err := client.Do(q)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

func TestFilmsAreSentInParts(t *testing.T) {
	f := newTestFilms(t)
	if status, body, err := f.get(t.Context(), clipFilm, ""); status != 200 || len(body) != 1000 || err != nil {
		t.Errorf("got %d, %d bytes, %v; want the 1000 of the clip", status, len(body), err)
	}
	if status, body, err := f.get(t.Context(), clipFilm, "990-"); status != 206 || len(body) != 10 || err != nil {
		t.Errorf("got %d, %d bytes, %v; want the last 10", status, len(body), err)
	}
	if status, body, err := f.get(t.Context(), largeFilm, ""); status != 200 || len(body) != largeSize || body[1004:1008] != "free" || err != nil {
		t.Errorf("got %d, %d bytes, %v; want the clip and padding", status, len(body), err)
	}
	if n, _ := f.seen(); n != 3 {
		t.Errorf("got %d requests, want 3", n)
	}
}

func TestFilmFaultIsPlayedOnce(t *testing.T) {
	f := newTestFilms(t)
	rule := f.arm(clipFilm, func(w http.ResponseWriter, _ *http.Request, film []byte) {
		sendHalf(w, film)
		panic(http.ErrAbortHandler)
	})
	if _, body, err := f.get(t.Context(), largeFilm, ""); len(body) != largeSize || err != nil {
		t.Errorf("another film: got %d bytes, %v", len(body), err)
	}
	if _, body, err := f.get(t.Context(), clipFilm, ""); len(body) > 500 || err == nil {
		t.Errorf("got %d bytes and error %v, want half of the clip and an error", len(body), err)
	}
	if n := <-rule.matched; n != 2 {
		t.Errorf("got request %d, want 2", n)
	}
	if _, body, err := f.get(t.Context(), clipFilm, ""); len(body) != 1000 || err != nil {
		t.Errorf("after the fault: got %d bytes, %v", len(body), err)
	}
	f.disarm(rule)
}

func TestFilmStallsUntilItsClientGivesUp(t *testing.T) {
	f := newTestFilms(t)
	ended := make(chan struct{})
	f.arm(clipFilm, func(w http.ResponseWriter, r *http.Request, film []byte) {
		sendHalf(w, film)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := f.get(ctx, clipFilm, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	<-ended
}

func TestFilmLiesAboutItsLength(t *testing.T) {
	f := newTestFilms(t)
	_, body, err := f.get(t.Context(), liesFilm, "")
	if err != nil || len(body) != 1000 { // Go's client drops what is beyond the length
		t.Errorf("got %d bytes, %v", len(body), err)
	}
}
