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

// jobs gets the list of all jobs, decodes it as a stream and calls visit for each job until
// that returns false. Elements that are not jobs are skipped.
func (c *Client) jobs(ctx context.Context, timeout time.Duration, visit func(protocol.Job) bool) error {
	return c.list(ctx, "jobs", timeout, jobElements(visit))
}

// jobElements calls visit for the elements that are jobs.
func jobElements(visit func(protocol.Job) bool) func(json.RawMessage) bool {
	return func(raw json.RawMessage) bool {
		var job protocol.Job
		return json.Unmarshal(raw, &job) != nil || job.ID == "" || len(job.ID) > maxIDBytes || visit(job)
	}
}

// list gets GET /NAME, {"NAME":[…] or null, …}, decodes it as a stream and calls visit for
// each element until that returns false. It fails if the list is malformed, too large or
// incomplete.
func (c *Client) list(ctx context.Context, name string, timeout time.Duration, visit func(json.RawMessage) bool) error {
	err := c.do(ctx, call{method: http.MethodGet, path: "/" + name, timeout: timeout}, func(r *response) error {
		stream := newStream(r.Body, c.limits)
		err := stream.list(name, visit)
		if stream.readErr != nil { // takes precedence over the decoding error it caused
			return stream.readErr
		}
		if err != nil {
			return malformedError{err}
		}
		return nil
	})
	var e *protocol.Error
	if errors.As(err, &e) && e.Kind == protocol.NotFound {
		e.Kind = protocol.ServerError // NotFound would mean that a node or job is unknown
	}
	return err
}

// stream decodes JSON with a limit on the bytes read per value, which limits the decoder's
// buffer.
type stream struct {
	*json.Decoder
	source  io.Reader
	limits  limits
	read    int64 // bytes read so far
	limit   int64 // bytes that may be read before the next value is complete
	readErr error // of source, except io.EOF
}

func newStream(source io.Reader, l limits) *stream {
	s := &stream{source: source, limits: l}
	s.Decoder = json.NewDecoder(readerFunc(s.readLimited))
	return s
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (s *stream) readLimited(p []byte) (int, error) {
	if left := s.limit - s.read; left <= 0 {
		if s.limit >= s.limits.list {
			return 0, fmt.Errorf("list larger than %d KiB", s.limits.list>>10)
		}
		return 0, fmt.Errorf("element larger than %d KiB", s.limits.element>>10)
	} else if int64(len(p)) > left {
		p = p[:left]
	}
	n, err := s.source.Read(p)
	s.read += int64(n)
	if err != nil && err != io.EOF {
		s.readErr = err
	}
	return n, err
}

// raiseLimit allows the next value to be read.
func (s *stream) raiseLimit() { s.limit = min(s.InputOffset()+s.limits.element, s.limits.list) }

func (s *stream) token() (json.Token, error) {
	s.raiseLimit()
	return s.Token()
}

func (s *stream) value() (json.RawMessage, error) {
	s.raiseLimit()
	var raw json.RawMessage
	err := s.Decode(&raw)
	return raw, err
}

// more reports whether the current object or array has another element. More reads ahead,
// so the limit applies here too.
func (s *stream) more() bool {
	s.raiseLimit()
	return s.More()
}

// list decodes {"NAME":[…] or null, …}.
func (s *stream) list(name string, visit func(json.RawMessage) bool) error {
	if t, err := s.token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	found := false
	for s.more() {
		key, err := s.token()
		if err != nil {
			return err
		}
		if key != name {
			if _, err := s.value(); err != nil {
				return err
			}
			continue
		}
		found = true
		if more, err := s.elements(name, visit); err != nil || !more {
			return err
		}
	}
	if _, err := s.token(); err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("no %q field", name)
	}
	return nil
}

// elements decodes the array. more is false if visit returned false.
func (s *stream) elements(name string, visit func(json.RawMessage) bool) (more bool, err error) {
	switch t, err := s.token(); {
	case err != nil:
		return false, err
	case t == nil:
		return true, nil
	case t != json.Delim('['):
		return false, fmt.Errorf("%q is not a list", name)
	}
	for s.more() {
		raw, err := s.value()
		if err != nil {
			return false, err
		}
		if !visit(raw) {
			return false, nil
		}
	}
	_, err = s.token()
	return true, err
}
