// Package fetch copies the input of a job from an HTTP server into the job's workspace: a
// file, or an HLS playlist that has an end, with the segments of one variant. It checks
// every address by a reach.Policy, resumes transfers that break off, and compares lengths
// and checksums. An input that FFmpeg had better read itself is reported as Direct; a Relay
// then sits between FFmpeg and the server. Link does the same for a playlist on this machine.
package fetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/protocol"
)

// Settings apply to all fetches of a Fetcher.
type Settings struct {
	Policy *reach.Policy // what URLs, redirects and playlists may reach
	// RootCAs verify servers; nil: the system's.
	RootCAs *x509.CertPool
	// Proxy returns the proxy for a request, nil for none; nil: ProxyFromEnvironment. The
	// proxy itself is exempt from Policy. A host behind it is resolved and checked if this
	// machine can resolve it, and left to the proxy otherwise.
	Proxy func(*http.Request) (*url.URL, error)
	// StallTimeout is how long a transfer may go without receiving a byte before it is
	// aborted and resumed; 0: 60 s.
	StallTimeout time.Duration
	// RetryWait is the delay before an interrupted transfer is resumed. It doubles with each
	// attempt that receives nothing, up to 30 s; 0: 1 s.
	RetryWait time.Duration
	Log       *zap.Logger // nil: no log
}

// Request is an input to fetch.
type Request struct {
	URL         string // http or https
	Dir         string // an existing directory for the files, all of them named by this package
	InputFormat string // the job's input_format; hls or dash declare a playlist
	SHA256      string // of the file at URL, hexadecimal; empty: not checked
	Variant     Variant
	// Part is the length of the beginning of the input if the job uses no more; 0: all.
	Part time.Duration
	// Stream is set if the job has input_mode: stream. Fetch then requests the input only to
	// determine its format, and returns a Direct.
	Stream bool
	// FreeDisk returns how many bytes may still be written to Dir, for example what is free
	// above jobs.min_free_disk; nil: no limit.
	FreeDisk func() int64
}

// Variant describes the job's largest output, by which a variant of an HLS playlist is chosen.
// Zero values mean unknown.
type Variant struct {
	Width, Height int   // pixels
	Bitrate       int64 // bits per second
}

// Progress is the progress of a fetch.
type Progress struct {
	Bytes   int64 // received and kept
	Total   int64 // expected; -1: not known
	Resumed int   // interrupted transfers that were resumed
	// Segment counts the completed segments of an HLS playlist, Segments all; 0 for a file.
	Segment, Segments int
}

// Result is a fetched input.
type Result struct {
	Path        string // of the file, or of a playlist beside its segments
	Format      string // reach.HLS, or empty for a file
	ContentType string // of the file at URL, as its server says
	Bytes       int64  // received and kept
	Resumes     int    // interrupted transfers that were resumed
	Restarts    int    // interrupted transfers that had to start over
	Wall        time.Duration
	// Media is the duration of the fetched part of an HLS playlist, and Segments are those of
	// its segments, as the playlist states them.
	Media    time.Duration
	Segments []time.Duration
	Missing  time.Duration // marked by the playlist as missing (EXT-X-GAP)
	Notes    []string      // for the job's result
}

// Direct is the error for an input that is not fetched because FFmpeg had better read it
// itself.
type Direct struct {
	Why    string
	Format string // reach.HLS or reach.DASH for a playlist; empty if that is not known
	Live   bool   // its length is not known
}

func (d *Direct) Error() string { return "not fetched: " + d.Why }

// Limits of fetching.
const (
	maxPlaylist  = 4 << 20   // bytes
	maxKey       = 4 << 10   // bytes
	largeFile    = 256 << 20 // bytes; a smaller file is fetched even if the job uses only a part of it
	defaultStall = 60 * time.Second
)

// Fetcher fetches inputs. It may be used concurrently.
type Fetcher struct {
	settings Settings
	client   client
	retry    retryPolicy
	log      *zap.Logger
}

// New returns a Fetcher. It fails if a proxy variable of the environment is not a URL.
func New(s Settings) (*Fetcher, error) {
	if s.Proxy == nil {
		proxy, err := ProxyFromEnvironment()
		if err != nil {
			return nil, err
		}
		s.Proxy = proxy
	}
	if s.StallTimeout == 0 {
		s.StallTimeout = defaultStall
	}
	if s.Log == nil {
		s.Log = zap.NewNop()
	}
	retry := defaultRetry
	if s.RetryWait > 0 {
		retry.first = s.RetryWait
	}
	return &Fetcher{settings: s, client: newClient(s), retry: retry, log: s.Log}, nil
}

// Close closes idle connections.
func (f *Fetcher) Close() { f.client.close() }

// Fetch copies an input into r.Dir and calls progress, which may be nil, several times a
// second. The error is a *Direct, a *job.Failure, or that of the context. After an error no
// file of the fetch is left in r.Dir.
func (f *Fetcher) Fetch(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	begun := time.Now()
	j := &fetching{Fetcher: f, request: r, report: progress}
	result, err := j.fetch(ctx)
	if err != nil {
		j.removeFiles()
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		return Result{}, err
	}
	result.Bytes, result.Resumes, result.Restarts = j.bytes, j.resumes, j.restarts
	result.Notes = j.notes
	result.Wall = time.Since(begun)
	return result, nil
}

// fetching is one call of Fetch.
type fetching struct {
	*Fetcher
	request Request
	files   []string // created
	root    string   // directory of a local playlist

	bytes, total      int64
	resumes, restarts int
	segment, segments int
	notes             []string
	report            func(Progress)
	reported          time.Time
}

var sha256Hex = regexp.MustCompile(`^[0-9A-Fa-f]{64}$`)

func (j *fetching) fetch(ctx context.Context) (Result, error) {
	if s := j.request.SHA256; s != "" && !sha256Hex.MatchString(s) {
		return Result{}, failure(protocol.ReasonUserError, "input_sha256: %.80q is not 64 hexadecimal digits", s)
	}
	u, err := j.settings.Policy.ParseURL(j.request.URL)
	if err != nil {
		return Result{}, failure(protocol.ReasonUserError, "input: %v", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return Result{}, &Direct{Why: "only http and https are fetched"}
	}
	if format, _ := reach.IsPlaylist(u.Path, "", j.request.InputFormat); format == reach.DASH && !j.request.Stream {
		return Result{}, errDASH
	}
	return j.open(ctx, u)
}

var errDASH = &Direct{Why: "a DASH playlist", Format: reach.DASH}

// open requests the input and determines its format from the response.
func (j *fetching) open(ctx context.Context, u *url.URL) (Result, error) {
	t := &transfer{fetching: j, label: "input " + show(u), url: u, sha256: j.request.SHA256}
	namedFormat, _ := reach.IsPlaylist(u.Path, "", j.request.InputFormat)
	t.single = namedFormat == ""
	var result Result
	var format string
	t.accept = func(h fileHeader) error {
		result.ContentType = h.contentType
		format = j.format(u, h)
		switch {
		case j.request.Stream:
			return &Direct{Why: "the job says input_mode: stream", Format: format}
		case format == reach.DASH:
			return errDASH
		case format == reach.HLS:
			t.limit = maxPlaylist
			return nil
		case h.size < 0:
			return &Direct{Why: "the server does not state its length", Live: true}
		case h.size == 0:
			return failure(protocol.ReasonInputError, "%s: empty", t.label)
		case j.request.Part > 0 && h.size > largeFile && h.ranges:
			return &Direct{Why: fmt.Sprintf("the job uses only %s of a file of %s", j.request.Part, bytesText(h.size))}
		}
		if free, limited := j.free(); limited && h.size > free {
			return &Direct{Why: fmt.Sprintf("it has %s and %s of disk are free for it", bytesText(h.size), bytesText(max(free, 0)))}
		}
		t.path = filepath.Join(j.request.Dir, "input"+extension(h.contentType, u.Path, h.url.Path))
		j.total = h.size
		return nil
	}
	j.total = -1
	if err := t.run(ctx); err != nil {
		return Result{}, err
	}
	if format == reach.HLS {
		return j.fetchPlaylist(ctx, t, result)
	}
	result.Path = t.path
	j.progress(true)
	return result, nil
}

func (j *fetching) format(u *url.URL, h fileHeader) string {
	if format, ok := reach.IsPlaylist(u.Path, h.contentType, j.request.InputFormat); ok {
		return format
	}
	format, _ := reach.IsPlaylist(h.url.Path, "", "")
	return format
}

// free returns how much may still be written.
func (j *fetching) free() (bytes int64, limited bool) {
	if j.request.FreeDisk == nil {
		return 0, false
	}
	return j.request.FreeDisk(), true
}

// create creates a file, which must not exist yet.
func (j *fetching) create(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		j.files = append(j.files, path)
	}
	return file, err
}

func (j *fetching) removeFiles() {
	for _, path := range j.files {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			j.log.Warn("could not remove a partly fetched input", zap.Error(err))
		}
	}
}

func (j *fetching) note(format string, args ...any) {
	j.notes = append(j.notes, fmt.Sprintf(format, args...))
}

const reportEvery = 200 * time.Millisecond

func (j *fetching) progress(now bool) {
	if j.report == nil || !now && time.Since(j.reported) < reportEvery {
		return
	}
	j.reported = time.Now()
	j.report(Progress{
		Bytes: j.bytes, Total: j.total, Resumed: j.resumes + j.restarts, Segment: j.segment, Segments: j.segments,
	})
}

// show returns a URL without its secrets.
func show(u *url.URL) string { return safetext.URL(u.String()) }

func bytesText(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%d bytes", n)
}
