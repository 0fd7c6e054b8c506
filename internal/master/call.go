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

	"ffmpeg-agent/messages/protocol"
)

// call is one request to the master.
type call struct {
	method string
	path   string // escaped
	query  string // escaped
	body   []byte // JSON; nil for none
	// repeatable: the transport may send a POST again on a fresh connection when the
	// master closed the old one just then. A GET it repeats in any case, unless it
	// goes over a connection of its own.
	repeatable bool
	timeout    time.Duration
	over       func(*links) *http.Client // nil: (*links).ordinary
}

// name is the call as errors show it.
func (k call) name() string { return k.method + " " + shorten(k.path, 120) }

// do sends a request and has a 2xx answer read within the call's deadline. The
// error is a *protocol.Error.
func (c *Client) do(ctx context.Context, k call, read func(*answer) error) error {
	within := k.timeout
	if deadline, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(deadline).Round(time.Millisecond))
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	key := strings.TrimSpace(c.settings.APIKey())
	fail := func(e *protocol.Error, text string) error {
		e.Err = &callError{text: k.name() + ": " + redact(text, key), cause: e.Err}
		return e
	}
	if !headerValue(key) {
		return fail(&protocol.Error{Kind: protocol.Unauthorized},
			"the API key (master.api_key, master.api_key_file) contains characters that no header can carry")
	}

	sent := &sending{}
	req, err := c.request(httptrace.WithClientTrace(ctx, sent.trace()), k, key)
	if err != nil {
		return fail(&protocol.Error{Kind: protocol.Rejected, Err: err}, oneLine(err.Error()))
	}
	if k.over == nil {
		k.over = (*links).ordinary
	}
	response, err := k.over(c.current()).Do(req)
	if err != nil {
		return fail(&protocol.Error{Kind: protocol.Unreachable, Err: err, Ambiguous: sent.maybe() && !certificateRefused(err)},
			c.explain(ctx, within, err))
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		e, text := refusal(response, key)
		return fail(e, text)
	}

	err = read(&answer{Response: response, limit: c.limits.answer})
	var garbled garbledError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &garbled):
		return fail(&protocol.Error{Kind: protocol.Malformed, Status: response.StatusCode, Ambiguous: true, Err: err},
			statusText(response.StatusCode)+", but it is no answer: "+oneLine(err.Error()))
	default:
		return fail(&protocol.Error{Kind: protocol.Unreachable, Status: response.StatusCode, Ambiguous: true, Err: err},
			statusText(response.StatusCode)+", but "+c.explain(ctx, within, err))
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
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Accept", "application/json")
	if k.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if k.repeatable {
		req.Header["Idempotency-Key"] = nil // tells the transport, and is not sent: see http.Transport
	}
	return req, nil
}

// sending notes how far a request got. The hooks run on the transport's goroutines.
type sending struct{ begun, broken atomic.Bool }

func (s *sending) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		// Called before the request's last byte leaves, and so before any master can
		// have acted on it; WroteRequest may come later than the answer's end.
		WroteHeaders: func() { s.begun.Store(true) },
		WroteRequest: func(i httptrace.WroteRequestInfo) { s.broken.Store(i.Err != nil) },
	}
}

// maybe reports whether the whole request may have reached the master.
func (s *sending) maybe() bool { return s.begun.Load() && !s.broken.Load() }

// answer is a 2xx answer that is being read.
type answer struct {
	*http.Response
	limit int64 // bytes
}

// garbledError is the fault of an answer's content, not of its way to us.
type garbledError struct{ error }

func (e garbledError) Unwrap() error { return e.error }

// json reads the whole answer, which must be one JSON value.
func (a *answer) json(into any) error {
	tooLarge := garbledError{fmt.Errorf("it is larger than %d KiB", a.limit>>10)}
	if a.ContentLength > a.limit {
		return tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(a.Body, a.limit+1))
	if err != nil {
		return err
	}
	if int64(len(body)) > a.limit {
		return tooLarge
	}
	if err := json.Unmarshal(body, into); err != nil {
		return garbledError{err}
	}
	return nil
}

// ignore is for a call whose status says all, on a connection that ends with it: a
// body that trickles in or breaks off changes nothing and is not waited for.
func ignore(*answer) error { return nil }

// drain is for a call whose status says all, on a connection that is used again:
// that takes an answer read to its end, if it comes.
func drain(a *answer) error {
	_, _ = io.Copy(io.Discard, io.LimitReader(a.Body, 4<<10))
	return nil
}

// headerValue reports whether a key can be sent as it is.
func headerValue(key string) bool {
	return strings.IndexFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
