package master

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/protocol"
)

// call is a request to the master.
type call struct {
	method string
	path   string // escaped
	query  string // escaped
	body   []byte // JSON; nil for none
	// idempotent allows the transport to resend a POST if the master closed the idle
	// connection. The transport resends a GET in any case, unless its client uses a new
	// connection for each request.
	idempotent bool
	timeout    time.Duration
	client     func(*clients) *http.Client // nil means clients.shared
	public     bool                        // sent without the key
}

// name returns the call for error messages.
func (k call) name() string { return k.method + " " + safetext.Shorten(safetext.Line(k.path), 120) }

// do sends a request and passes a 2xx response to read, all within the call's timeout.
// Errors are of type *protocol.Error.
func (c *Client) do(ctx context.Context, k call, read func(*response) error) error {
	timeout := k.timeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline).Round(time.Millisecond))
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	with, key := c.clients.Load(), ""
	if !k.public {
		key = with.key
	}
	fail := func(e *protocol.Error, text string) error {
		e.Err = &callError{text: k.name() + ": " + redact(text, key), cause: e.Err}
		return e
	}
	if !validHeader(key) {
		return fail(&protocol.Error{Kind: protocol.Unauthorized},
			"the API key (master.api_key, master.api_key_file) contains characters that are invalid in an HTTP header")
	}

	sent := &sendTracker{}
	req, err := c.request(httptrace.WithClientTrace(ctx, sent.trace()), k, key)
	if err != nil {
		return fail(&protocol.Error{Kind: protocol.Rejected, Err: err}, oneLine(err.Error()))
	}
	if k.client == nil {
		k.client = (*clients).shared
	}
	r, err := k.client(with).Do(req)
	if err != nil {
		return fail(&protocol.Error{Kind: protocol.Unreachable, Err: err, Ambiguous: sent.maybeComplete() && !clientCertRejected(err)},
			c.explain(ctx, timeout, err))
	}
	defer r.Body.Close()
	if r.StatusCode/100 != 2 {
		e, text := statusError(r, key)
		return fail(e, text)
	}

	err = read(&response{Response: r, limit: c.limits.response})
	var malformed malformedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &malformed):
		return fail(&protocol.Error{Kind: protocol.Malformed, Status: r.StatusCode, Ambiguous: true, Err: err},
			statusText(r.StatusCode)+": malformed response: "+oneLine(err.Error()))
	default:
		return fail(&protocol.Error{Kind: protocol.Unreachable, Status: r.StatusCode, Ambiguous: true, Err: err},
			statusText(r.StatusCode)+": "+c.explain(ctx, timeout, err))
	}
}

func (c *Client) request(ctx context.Context, k call, key string) (*http.Request, error) {
	target := c.base + k.path
	if k.query != "" {
		target += "?" + k.query
	}
	var body io.Reader
	if k.body != nil {
		body = bytes.NewReader(k.body)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.userAgent)
	req.Header.Set("Accept", "application/json")
	if k.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if k.idempotent {
		req.Header["Idempotency-Key"] = nil // not sent, but makes http.Transport treat the request as idempotent
	}
	return req, nil
}

// sendTracker records how much of a request was written. Its hooks run on the goroutines
// of the transport.
type sendTracker struct{ wroteHeaders, failed atomic.Bool }

func (s *sendTracker) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		// WroteHeaders is called before the last byte is written, and hence before the
		// master can act on the request. WroteRequest can come after the response.
		WroteHeaders: func() { s.wroteHeaders.Store(true) },
		WroteRequest: func(i httptrace.WroteRequestInfo) { s.failed.Store(i.Err != nil) },
	}
}

// maybeComplete reports whether the complete request may have reached the master.
func (s *sendTracker) maybeComplete() bool { return s.wroteHeaders.Load() && !s.failed.Load() }

// response is a 2xx response.
type response struct {
	*http.Response
	limit int64 // maximum size of the body in bytes
}

// malformedError reports invalid content of a response, as opposed to a failed transfer.
type malformedError struct{ error }

func (e malformedError) Unwrap() error { return e.error }

// json decodes the body, which must be a single JSON value.
func (r *response) json(into any) error {
	tooLarge := malformedError{fmt.Errorf("larger than %d KiB", r.limit>>10)}
	if r.ContentLength > r.limit {
		return tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, r.limit+1))
	if err != nil {
		return err
	}
	if int64(len(body)) > r.limit {
		return tooLarge
	}
	if err := json.Unmarshal(body, into); err != nil {
		return malformedError{err}
	}
	return nil
}

// ignoreBody is for calls where only the status matters and the connection is not reused.
// It does not wait for a slow or incomplete body.
func ignoreBody(*response) error { return nil }

// drainBody is for calls where only the status matters and the connection is reused, which
// requires that the body was read.
func drainBody(r *response) error {
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 4<<10))
	return nil
}

// validHeader reports whether key can be sent in a header.
func validHeader(key string) bool {
	return strings.IndexFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
