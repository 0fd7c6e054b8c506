package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"ffmpeg-agent/messages/protocol"
)

// retryPolicy controls how interrupted transfers are resumed.
type retryPolicy struct {
	first, longest time.Duration // delay before the next attempt, doubled from first to longest
	attempts       int           // after so many in a row without a new byte the transfer fails
}

var defaultRetry = retryPolicy{first: time.Second, longest: 30 * time.Second, attempts: 5}

const (
	maxRetryAfter = 2 * time.Minute // longest Retry-After that is obeyed
	maxChanges    = 3               // changes of a file during its transfer after which it fails
	diskCheck     = 64 << 20        // bytes between checks of the free disk
	bufferSize    = 256 << 10       // bytes
)

var (
	errStalled = errors.New("no data received")
	errEarly   = errors.New("the transfer ended early")
	errRange   = errors.New("the server answered a range request with something else")
)

// fileHeader holds the properties of a file that the header of a response states.
type fileHeader struct {
	url         *url.URL // after redirects
	contentType string
	size        int64 // bytes; -1: not stated
	ranges      bool  // the server accepts range requests
}

// transfer fetches one URL, into a file or into memory.
type transfer struct {
	*fetching
	label  string // names the URL in errors
	url    *url.URL
	single bool   // no other request to this server is likely to follow
	sha256 string // expected; empty: any
	// accept decides from the header whether to continue, and sets path or limit. It is called
	// again when the transfer starts over.
	accept func(fileHeader) error
	path   string // of the file to write; empty: into data
	limit  int64  // of data, in bytes

	data      []byte
	final     *url.URL // after redirects
	file      *os.File
	hash      hash.Hash
	n, best   int64 // bytes received of this version of the file, and the maximum of all versions
	size      int64 // -1: not known
	validator string
	started   bool
	changes   int
	unchecked int64 // bytes written since the free disk was checked
}

// run transfers the whole file and resumes after interruptions.
func (t *transfer) run(ctx context.Context) error {
	if t.url.Scheme == "file" {
		return t.link()
	}
	t.hash = sha256.New()
	defer func() {
		if t.file != nil {
			t.file.Close()
		}
	}()
	waits := backoff.ExponentialBackOff{
		InitialInterval: t.retry.first, MaxInterval: t.retry.longest, Multiplier: 2, RandomizationFactor: 0.25,
	}
	for failed := 0; ; {
		best := t.best
		err := t.attempt(ctx)
		if err == nil {
			return t.finish()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f, final := classify(t.label, err)
		if final {
			return f
		}
		if t.best > best {
			failed = 0
			waits.Reset()
		}
		if failed++; failed >= t.retry.attempts {
			return t.gaveUp(err, f)
		}
		wait := max(waits.NextBackOff(), retryAfter(err))
		t.log.Info("transfer of an input was interrupted, resuming", zap.String("input", t.label), zap.Int64("bytes", t.n),
			zap.Error(err), zap.Duration("wait", wait))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// gaveUp returns the error after the last attempt.
func (t *transfer) gaveUp(err, f error) error {
	if !t.started {
		return f
	}
	of := ""
	if t.size >= 0 {
		of = fmt.Sprintf(" of %d", t.size)
	}
	return failure(protocol.ReasonNetworkError, "%s: %v after %d%s bytes, gave up after %d attempts", t.label, err, t.n, of, t.retry.attempts)
}

func retryAfter(err error) time.Duration {
	var status *statusError
	if !errors.As(err, &status) || status.retry == "" {
		return 0
	}
	wait := time.Duration(0)
	if seconds, err := strconv.ParseUint(status.retry, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(status.retry); err == nil {
		wait = time.Until(at)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// finish verifies the checksum of the whole file.
func (t *transfer) finish() error {
	if t.file != nil {
		file := t.file
		t.file = nil
		if err := file.Close(); err != nil {
			return diskFailure(t.label, err)
		}
	}
	if got := hex.EncodeToString(t.hash.Sum(nil)); t.sha256 != "" && !strings.EqualFold(got, t.sha256) {
		return failure(protocol.ReasonInputError, "%s: SHA-256 is %s, but the job's input_sha256 is %s", t.label, got, strings.ToLower(t.sha256))
	}
	return nil
}

// attempt transfers the missing rest with one request.
func (t *transfer) attempt(ctx context.Context) (err error) {
	if t.n > 0 && t.validator == "" {
		if err := t.restart(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(t.settings.StallTimeout, func() { cancel(errStalled) })
	defer stall.Stop()
	defer func() {
		if err != nil && context.Cause(ctx) == errStalled {
			err = fmt.Errorf("%w for %s", errStalled, t.settings.StallTimeout)
		}
	}()
	header := http.Header{}
	if t.n > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", t.n))
		header.Set("If-Range", t.validator)
	}
	resp, err := t.client.get(ctx, t.url, header, t.single)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := t.begin(resp); err != nil {
		return err
	}
	return t.copy(resp.Body, stall)
}

// begin decides from the header of a response how the transfer continues.
func (t *transfer) begin(resp *http.Response) error {
	asked := t.n > 0
	switch {
	case resp.StatusCode == http.StatusOK:
		return t.beginWhole(resp)
	case asked && resp.StatusCode == http.StatusPartialContent:
		if err := encoded(resp); err != nil {
			return err
		}
		if !t.continues(resp) {
			t.validator = "" // range requests to this server are not reliable: start over
			return errRange
		}
		t.resumes++
		return nil
	case asked && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		t.validator = ""
		return errRange
	}
	return &statusError{code: resp.StatusCode, retry: resp.Header.Get("Retry-After")}
}

// encoded returns an error for a response that is compressed without having been asked to be.
func encoded(resp *http.Response) error {
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return &problem{protocol.ReasonInputError, fmt.Sprintf("the server sent it with Content-Encoding %.20q, which was not asked for", e)}
	}
	return nil
}

func (t *transfer) beginWhole(resp *http.Response) error {
	if err := encoded(resp); err != nil {
		return err
	}
	validator := validatorOf(resp)
	if t.started && (validator != t.validator && t.validator != "" || resp.ContentLength != t.size) {
		if t.changes++; t.changes >= maxChanges {
			return &problem{protocol.ReasonInputError, fmt.Sprintf("the file changed %d times while it was fetched", t.changes)}
		}
	}
	if t.n > 0 {
		if err := t.restart(); err != nil {
			return err
		}
	}
	t.size, t.validator, t.final = resp.ContentLength, validator, resp.Request.URL
	err := t.accept(fileHeader{
		url: t.final, contentType: resp.Header.Get("Content-Type"), size: t.size,
		ranges: strings.EqualFold(resp.Header.Get("Accept-Ranges"), "bytes"),
	})
	t.started = true
	if err != nil || t.path == "" || t.file != nil {
		return err
	}
	if t.file, err = t.create(t.path); err != nil {
		return fmt.Errorf("%w: %w", errDisk, err)
	}
	return nil
}

// validatorOf returns the identifier of a version of a file for If-Range (RFC 9110 section
// 13.1.5), which accepts no weak ETag; empty if there is none.
func validatorOf(resp *http.Response) string {
	if tag := resp.Header.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return resp.Header.Get("Last-Modified")
}

// continues reports whether a partial response is the rest of the file.
func (t *transfer) continues(resp *http.Response) bool {
	if tag := resp.Header.Get("ETag"); strings.HasPrefix(tag, `"`) && strings.HasPrefix(t.validator, `"`) && tag != t.validator {
		return false
	}
	unit, spec, _ := strings.Cut(resp.Header.Get("Content-Range"), " ")
	span, total, ok := strings.Cut(spec, "/")
	first, last, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 || !strings.EqualFold(unit, "bytes") || first != strconv.FormatInt(t.n, 10) {
		return false
	}
	if t.size >= 0 && total != "*" && total != strconv.FormatInt(t.size, 10) {
		return false
	}
	end, err := strconv.ParseInt(last, 10, 64)
	return err == nil && (t.size < 0 || end < t.size) && (resp.ContentLength < 0 || resp.ContentLength == end-t.n+1)
}

// restart discards the received bytes.
func (t *transfer) restart() error {
	t.restarts++
	t.bytes -= t.n
	t.n, t.data = 0, nil
	t.hash.Reset()
	if t.file == nil {
		return nil
	}
	_, err := t.file.Seek(0, io.SeekStart)
	if err == nil {
		err = t.file.Truncate(0)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errDisk, err)
	}
	return nil
}

// copy writes a body, and resets the stall timer at each read.
func (t *transfer) copy(body io.Reader, stall *time.Timer) error {
	buffer := make([]byte, bufferSize)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			stall.Reset(t.settings.StallTimeout)
			if err := t.write(buffer[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF && t.size >= 0 && t.n < t.size, err == io.ErrUnexpectedEOF:
			return errEarly
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

func (t *transfer) write(p []byte) error {
	if t.size >= 0 && t.n+int64(len(p)) > t.size {
		return tooMuch(t.size)
	}
	if t.sha256 != "" {
		t.hash.Write(p)
	}
	if t.path == "" {
		if int64(len(t.data)+len(p)) > t.limit {
			return &problem{protocol.ReasonInputError, fmt.Sprintf("larger than %d bytes", t.limit)}
		}
		t.data = append(t.data, p...)
	} else if err := t.writeDisk(p); err != nil {
		return err
	}
	t.n += int64(len(p))
	t.best = max(t.best, t.n)
	t.bytes += int64(len(p))
	t.progress(false)
	return nil
}

func (t *transfer) writeDisk(p []byte) error {
	if t.unchecked += int64(len(p)); t.unchecked >= diskCheck {
		t.unchecked = 0
		if free, limited := t.free(); limited && (free <= 0 || t.size-t.n > free) {
			return t.noSpace()
		}
	}
	if _, err := t.file.Write(p); err != nil {
		return fmt.Errorf("%w: %w", errDisk, withoutPath(err))
	}
	return nil
}

func (t *transfer) noSpace() error {
	return &problem{protocol.ReasonResourceError, "not enough free disk to fetch it"}
}

// withoutPath strips the path, which is internal to the agent, from an error.
func withoutPath(err error) error {
	var at *os.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
