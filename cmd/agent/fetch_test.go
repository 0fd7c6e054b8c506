package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

var (
	fetchMegabytes = flag.Int("fetch.megabytes", 64, "size of the input that is fetched through a proxy that breaks off, MB")
	fetchLies      = flag.Bool("fetch.lies", false, "fetch an input whose server lies about its length as well, which takes a while to be given up")
)

// paddedFilm is a film followed by a box of zeros that players skip.
type paddedFilm struct {
	film      []byte
	size, pos int64
}

func newPaddedFilm(film []byte, size int64) *paddedFilm {
	box := uint32(size - int64(len(film)))
	return &paddedFilm{film: append(film, byte(box>>24), byte(box>>16), byte(box>>8), byte(box), 'f', 'r', 'e', 'e'), size: size}
}

func (p *paddedFilm) Read(b []byte) (int, error) {
	if p.pos >= p.size {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.size-p.pos)]
	clear(b)
	if p.pos < int64(len(p.film)) {
		copy(b, p.film[p.pos:])
	}
	p.pos += int64(len(b))
	return len(b), nil
}

func (p *paddedFilm) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += p.pos
	case io.SeekEnd:
		offset += p.size
	}
	p.pos = offset
	return offset, nil
}

// breakingProxy is a proxy before one server, whatever host is asked for. It breaks off the
// first transfers after so many bytes each.
func breakingProxy(t *testing.T, server string, times int32, after int64) (url string, asked *atomic.Int32) {
	t.Helper()
	asked = &atomic.Int32{}
	transport := &http.Transport{DisableKeepAlives: true}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		q, err := http.NewRequestWithContext(r.Context(), r.Method, server+r.URL.Path, nil)
		if err != nil {
			t.Error(err)
			return
		}
		q.Header = r.Header
		resp, err := transport.RoundTrip(q)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(resp.StatusCode)
		if n > times {
			_, _ = io.Copy(w, resp.Body)
			return
		}
		_, _ = io.CopyN(w, resp.Body, after)
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL, asked
}

func TestLargeInputComesThroughABreakingProxy(t *testing.T) {
	film, err := os.ReadFile(ffmpegtest.Video(t.TempDir(), 10))
	if err != nil {
		t.Fatal(err)
	}
	size := int64(*fetchMegabytes) * 1_000_000
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"film"`)
		if r.URL.Path == "/lies.mp4" {
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
			_, _ = w.Write(film)
			return
		}
		http.ServeContent(w, r, "film.mp4", time.Time{}, newPaddedFilm(film, size))
	}))
	t.Cleanup(server.Close)
	const breaks = 3
	proxy, asked := breakingProxy(t, server.URL, breaks, size/4)
	bed := newTestbed(t)
	startAgent(t, append(bed.environment(), "HTTP_PROXY="+proxy), bed.flags()...)
	submit := func(path string) protocol.Job {
		return bed.submit(map[string]any{"input": "http://192.0.2.1" + path, "resolution": "640x360", "preset": "veryfast"})
	}

	job := submit("/film.mp4")
	bed.awaitResult(job.ID, protocol.StatusCompleted)
	r, _, _ := bed.master.Result(job.ID)
	figures, err := fetchFigures(r.Metrics)
	if j := r.EnergyJoules; j != nil {
		figures += fmt.Sprintf(": %.1f J", *j)
	}
	t.Log(figures)
	if err != nil || r.Metrics["fetch_bytes"] != float64(size) || r.Metrics["fetch_resumed"] != float64(breaks) || r.Metrics["input_bytes"] != float64(size) {
		t.Errorf("%v; want %d bytes in one transfer that was resumed %d times", err, size, breaks)
	}
	if n := asked.Load(); n != breaks+1 {
		t.Errorf("got %d requests, want %d", n, breaks+1)
	}
	if !*fetchLies {
		return
	}
	begun := time.Now()
	job = submit("/lies.mp4")
	bed.awaitResult(job.ID, protocol.StatusFailed)
	r, _, _ = bed.master.Result(job.ID)
	t.Logf("a length that is a lie: %s after %s: %s", r.FailureReason, time.Since(begun).Round(100*time.Millisecond), r.Error)
	if r.FailureReason != protocol.ReasonNetworkError {
		t.Errorf("got reason %s, want network_error", r.FailureReason)
	}
}

// fetchFigures are what a result says of fetching and of the encode. An error says which is
// missing: no joules of fetching though there are some of the encode.
func fetchFigures(m map[string]any) (string, error) {
	seconds, _ := m["fetch_seconds"].(float64)
	bytes, _ := m["fetch_bytes"].(float64)
	joules, known := m["fetch_joules"].(float64)
	text := fmt.Sprintf("fetched %.0f MB in %.2f s (%.0f MB/s), resumed %v times, %.1f J (%v); encoded in %v s, energy %v",
		bytes/1e6, seconds, bytes/1e6/seconds, m["fetch_resumed"], joules, m["fetch_energy_source"], m[protocol.MetricDuration], m["energy_source"])
	if seconds <= 0 || !known && !strings.Contains(fmt.Sprint(m["energy_source"]), "unavailable") {
		return text, errors.New("no seconds or joules of fetching")
	}
	return text, nil
}
