package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"ffmpeg-agent/messages/protocol"
)

// jobs reads the list of all jobs as a stream and shows each to visit, until that
// returns false. An element that is no job is passed over; a list that is no list,
// too long, or breaks off is an error.
func (c *Client) jobs(ctx context.Context, timeout time.Duration, visit func(protocol.Job) bool) error {
	err := c.do(ctx, call{method: http.MethodGet, path: "/jobs", timeout: timeout}, func(a *answer) error {
		stream := newStream(a.Body, c.limits)
		err := stream.jobs(visit)
		if stream.broken != nil { // whatever the decoder made of it
			return stream.broken
		}
		if err != nil {
			return garbledError{err}
		}
		return nil
	})
	var e *protocol.Error
	if errors.As(err, &e) && e.Kind == protocol.NotFound {
		e.Kind = protocol.ServerError // no job and no node was asked for
	}
	return err
}

// stream decodes JSON from a reader that may deliver only so many bytes between
// one value and the next, which bounds what the decoder ever buffers.
type stream struct {
	*json.Decoder
	from   io.Reader
	limits limits
	read   int64 // bytes delivered so far
	until  int64 // bytes that may be delivered until the next value is complete
	broken error // what the reader failed with, other than its end
}

func newStream(from io.Reader, l limits) *stream {
	s := &stream{from: from, limits: l}
	s.Decoder = json.NewDecoder(readerFunc(s.deliver))
	return s
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (s *stream) deliver(p []byte) (int, error) {
	if left := s.until - s.read; left <= 0 {
		if s.until >= s.limits.list {
			return 0, fmt.Errorf("it is larger than %d KiB", s.limits.list>>10)
		}
		return 0, fmt.Errorf("a part of it is larger than %d KiB", s.limits.element>>10)
	} else if int64(len(p)) > left {
		p = p[:left]
	}
	n, err := s.from.Read(p)
	s.read += int64(n)
	if err != nil && err != io.EOF {
		s.broken = err
	}
	return n, err
}

// permit allows the next value its share.
func (s *stream) permit() { s.until = min(s.InputOffset()+s.limits.element, s.limits.list) }

func (s *stream) token() (json.Token, error) {
	s.permit()
	return s.Token()
}

func (s *stream) value() (json.RawMessage, error) {
	s.permit()
	var raw json.RawMessage
	err := s.Decode(&raw)
	return raw, err
}

// more reports whether the object or array has a further element. Reading on to
// see that needs its share too.
func (s *stream) more() bool {
	s.permit()
	return s.More()
}

// jobs reads {"jobs":[…] or null, …} to its end.
func (s *stream) jobs(visit func(protocol.Job) bool) error {
	if t, err := s.token(); err != nil || t != json.Delim('{') {
		return orElse(err, "it is no JSON object")
	}
	listed := false
	for s.more() {
		key, err := s.token()
		if err != nil {
			return err
		}
		if key != "jobs" {
			if _, err := s.value(); err != nil {
				return err
			}
			continue
		}
		listed = true
		if more, err := s.elements(visit); err != nil || !more {
			return err
		}
	}
	if _, err := s.token(); err != nil {
		return err
	}
	if !listed {
		return errors.New(`it has no "jobs"`)
	}
	return nil
}

// elements reads the array; more is false when visit wants no further job.
func (s *stream) elements(visit func(protocol.Job) bool) (more bool, err error) {
	switch t, err := s.token(); {
	case err != nil:
		return false, err
	case t == nil: // null: no jobs
		return true, nil
	case t != json.Delim('['):
		return false, errors.New(`"jobs" is no list`)
	}
	for s.more() {
		raw, err := s.value()
		if err != nil {
			return false, err
		}
		var job protocol.Job
		if json.Unmarshal(raw, &job) == nil && job.ID != "" && !visit(job) {
			return false, nil
		}
	}
	_, err = s.token()
	return true, err
}

func orElse(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}
