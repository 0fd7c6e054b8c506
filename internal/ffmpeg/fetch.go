package ffmpeg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ffmpeg-agent/internal/fetch"
	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// fetchedDir is the directory of a fetched input in a workspace.
const fetchedDir = "fetched"

// MeterFetch sets a function that the input is fetched in: it must call its argument once. Call
// MeterFetch before Prepare.
func (r *Run) MeterFetch(around func(fetch func())) { r.meterFetch = around }

// obtainInput makes the input one that FFmpeg can read: a file or playlist on this machine, by
// fetching it where it is on a server, or else what FFmpeg reads over the network itself.
func (r *Run) obtainInput(ctx context.Context) error {
	in := r.files.reads
	switch {
	case r.plan.input == "":
		return nil
	case in.URL == nil && in.Format == "":
		return r.compareChecksum(ctx)
	case in.URL == nil:
		return r.readLocalPlaylist(ctx)
	case reach.IsHTTP(in.URL):
		return r.fetchInput(ctx)
	}
	return r.readStream(ctx)
}

// fetchRequest is what is fetched and how.
func (r *Run) fetchRequest() (fetch.Request, error) {
	dir := filepath.Join(r.workspace, fetchedDir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fetch.Request{}, fmt.Errorf("creating the directory of the input: %w", err)
	}
	q := fetch.Request{
		Dir: dir, InputFormat: r.plan.reading.format, SHA256: r.plan.reading.sha256, Variant: r.plan.wantedVariant(), FreeDisk: r.freeDisk,
	}
	if !r.plan.whole {
		q.Part = r.plan.duration
	}
	return q, nil
}

// wantedVariant is the largest output, to choose a variant of an HLS playlist by.
func (p *plan) wantedVariant() (v fetch.Variant) {
	for _, r := range p.renditions {
		if r.sourceSize || !r.size.known() { // the input's: the best there is
			return fetch.Variant{}
		}
		if r.size.pixels() > int64(v.Width)*int64(v.Height) {
			v.Width, v.Height = r.size.width, r.size.height
		}
	}
	return v
}

// freeDisk is how much may be written to the workspace.
func (r *Run) freeDisk() int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(r.workspace, &s); err != nil {
		return 0
	}
	free, capacity := int64(s.Bavail)*int64(s.Bsize), uint64(s.Blocks)*uint64(s.Bsize)
	if r.settings.MinFreeDisk != nil {
		free -= int64(r.settings.MinFreeDisk(capacity))
	}
	return free
}

// fetchInput fetches the input, or has FFmpeg read it through a relay.
func (r *Run) fetchInput(ctx context.Context) error {
	request, err := r.fetchRequest()
	if err != nil {
		return err
	}
	request.URL = r.files.reads.URL.String()
	why := ""
	if request.Stream = r.plan.reading.stream || r.settings.StreamInputs; request.Stream && !r.plan.reading.stream {
		why = "jobs.fetch_inputs is off"
	}
	r.setPhase(job.PhaseFetch)
	defer r.setPhase(job.PhasePrepare)
	var got fetch.Result
	err = r.mayTake(r.plan.timeout, func() (err error) {
		got, err = r.meteredFetch(ctx, request)
		return err
	})
	var direct *fetch.Direct
	if errors.As(err, &direct) {
		r.update(func(e *job.Encode) { e.Fetch = nil })
		if why == "" {
			why = direct.Why
		}
		return r.readThroughRelay(direct, why)
	}
	if err != nil {
		return err
	}
	r.useFetched(got)
	return nil
}

// meteredFetch fetches within the job's timeout.
func (r *Run) meteredFetch(ctx context.Context, request fetch.Request) (got fetch.Result, err error) {
	begun := time.Now()
	within, cancel := context.WithTimeout(ctx, r.plan.timeout)
	defer cancel()
	var full *job.Failure // the disk, where the progress reported it
	checked, wait := begun, checkInterval
	last := job.Fetch{Started: begun, Total: -1}
	record := func(ended bool) {
		now := last
		now.Took = job.Seconds(time.Since(begun))
		now.Done = ended
		r.update(func(e *job.Encode) { e.Fetch = &now })
	}
	record(false)
	around := r.meterFetch
	if around == nil {
		around = func(fetch func()) { fetch() }
	}
	around(func() {
		got, err = r.fetcher.Fetch(within, request, func(p fetch.Progress) {
			last.Bytes, last.Total, last.Resumed, last.Segment, last.Segments = p.Bytes, p.Total, p.Resumed, p.Segment, p.Segments
			record(false)
			if full == nil && time.Since(checked) >= wait { // another job may write as well
				checked = time.Now()
				if full, wait = r.diskGuarded(); full != nil {
					cancel()
				}
			}
		})
		if err == nil {
			last.Bytes, last.Resumed = got.Bytes, got.Resumes+got.Restarts
		}
		record(err == nil)
	})
	if full != nil && ctx.Err() == nil {
		return got, full
	}
	if err != nil && ctx.Err() == nil && within.Err() != nil {
		return got, failure(protocol.ReasonTimeout, "fetching the input took longer than %s", r.plan.timeout)
	}
	return got, err
}

// useFetched makes a fetched or linked input what FFmpeg reads.
func (r *Run) useFetched(got fetch.Result) {
	in := r.settings.readers().file(got.Path, r.plan.reading.demuxer())
	if got.Format == reach.HLS {
		in.options = r.settings.readers().linkedHLS()
	}
	for _, n := range got.Notes {
		r.note("%s", n)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files.input, r.files.inputPath, r.files.fetched = in, got.Path, got
	r.encode.InputBytes = got.Bytes
}

// readLocalPlaylist makes links to the segments of an HLS playlist that has an end. FFmpeg
// reads any other as it is.
func (r *Run) readLocalPlaylist(ctx context.Context) error {
	in := r.files.reads
	why := "a DASH playlist"
	if in.Format == reach.HLS {
		request, err := r.fetchRequest()
		if err != nil {
			return err
		}
		var got fetch.Result
		err = r.mayTake(probeLocalTimeout, func() (err error) { // it looks at each segment
			got, err = r.fetcher.Link(ctx, in.Path, request)
			return err
		})
		if err == nil {
			r.useFetched(got)
			return nil
		}
		var direct *fetch.Direct
		if !errors.As(err, &direct) {
			return err
		}
		why = direct.Why
	}
	if err := reach.CheckPlaylist(in.Path, in.Format); err != nil {
		var invalid *reach.Invalid
		reason := protocol.ReasonInputError
		if errors.As(err, &invalid) {
			reason = protocol.ReasonUserError
		}
		return failure(reason, "input %s: %v", quote("input", r.plan.input), err)
	}
	r.files.inputPath = "" // the playlist is not the media
	r.useDirect(r.settings.readers().localPlaylist(in.Path, in.Format), why)
	return nil
}

// readThroughRelay has FFmpeg read an input over http or https.
func (r *Run) readThroughRelay(direct *fetch.Direct, why string) error {
	u := r.files.reads.URL
	relay, err := r.fetcher.Relay(u, direct.Format != "", r.runner.sandboxes.user())
	if err != nil {
		return err
	}
	in := r.settings.readers().relayed(relay.FileURL(), r.plan.reading.demuxer())
	if direct.Format != "" {
		in = r.settings.readers().proxiedPlaylist(relay.PlaylistURL(), direct.Format, relay.ProxyURL())
	}
	in.finite = !direct.Live
	r.relay = relay
	r.redactor.replace(in.url, safetext.URL(u.String()))
	r.redactor.replace(relay.ProxyURL(), "http://relay")
	r.useDirect(in, why)
	return nil
}

// readStream has FFmpeg read a live input, once the addresses of its host were checked.
func (r *Run) readStream(ctx context.Context) error {
	u := r.files.reads.URL
	err := r.mayTake(probeNetworkTimeout, func() error { return r.settings.Inputs.CheckHost(ctx, u.Hostname()) })
	var refused *reach.Refused
	switch {
	case errors.As(err, &refused):
		return failure(protocol.ReasonUserError, "input %s: %v", quote("input", r.plan.input), err)
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return failure(protocol.ReasonNetworkError, "input %s: %v", quote("input", r.plan.input), err)
	}
	if u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		r.note("the URL of the input, with its secrets, is visible to other users of this machine in FFmpeg's arguments")
	}
	r.useDirect(r.settings.readers().stream(u.String(), u.Scheme, r.plan.reading.demuxer()), "a live input ("+u.Scheme+")")
	return nil
}

// useDirect makes FFmpeg read an input that was not fetched.
func (r *Run) useDirect(in source, why string) {
	r.note("FFmpeg read the input itself: %s", why)
	if r.plan.reading.sha256 != "" {
		r.note("input_sha256 was not compared, since FFmpeg read the input itself")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files.input = in
}

// relayFailure is what failed between the relay and the input's server; nil: nothing did, or
// there is no relay.
func (r *Run) relayFailure() *job.Failure {
	if r.relay == nil {
		return nil
	}
	return r.relay.Failure()
}

// closeRelay ends the relay where there is one.
func (r *Run) closeRelay() {
	if r.relay != nil {
		r.relay.Close()
	}
}

// compareChecksum compares a file on this machine with the job's input_sha256.
func (r *Run) compareChecksum(ctx context.Context) error {
	want := r.plan.reading.sha256
	if want == "" {
		return nil
	}
	f, err := reach.OpenRegular(r.files.inputPath)
	if err != nil {
		return failure(protocol.ReasonInputError, "input %s: %v", quote("input", r.plan.input), withoutPath(err))
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, &stoppable{ctx, f, r.patience.sign}); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return failure(protocol.ReasonInputError, "input %s: %v", quote("input", r.plan.input), withoutPath(err))
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return failure(protocol.ReasonInputError, "input %s: SHA-256 is %s, the job's input_sha256 is %s", quote("input", r.plan.input), got, want)
	}
	return nil
}

// stoppable is a reader that ends with a context.
type stoppable struct {
	ctx  context.Context
	from io.Reader
	sign func() // called by each read
}

func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	s.sign()
	return s.from.Read(p)
}
