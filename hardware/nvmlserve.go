package hardware

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// orphanGrace is how long the child may go on after its parent has closed its input.
const orphanGrace = 500 * time.Millisecond

// ServeNVML is the life of the child process: it starts NVML as its parent says in
// the first line of its input, answers requests, and returns when the input ends, NVML does not
// start, or the context is done. It is for a process of its own: signals that ask
// it to end are ignored, since its parent ends it, and when a call into the library is still
// hanging 500 ms after the input's end, the whole process ends.
func ServeNVML(ctx context.Context, in io.Reader, out io.Writer) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	defer close(done)
	lines := make(chan []byte, 1)
	go readRequests(in, lines, done)

	s := nvmlServer{out: out}
	defer s.close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			if end, err := s.answer(line); end || err != nil {
				return err
			}
		}
	}
}

// readRequests hands on the parent's lines, and sees to it that nothing outlives the
// parent, a hanging call included.
func readRequests(in io.Reader, lines chan<- []byte, done <-chan struct{}) {
	scanner := bufio.NewScanner(in)
	for scanner.Scan() {
		select {
		case lines <- append([]byte(nil), scanner.Bytes()...):
		case <-done:
			return
		}
	}
	close(lines)
	select {
	case <-done:
	case <-time.After(orphanGrace):
		os.Exit(1)
	}
}

// nvmlServer is the child between two lines.
type nvmlServer struct {
	out     io.Writer
	session *nvmlSession // nil before NVML was started
	failure *nvmlFailure
}

// answer takes the parent's next line; true: it was the last one.
func (s *nvmlServer) answer(line []byte) (bool, error) {
	if s.session == nil && s.failure == nil {
		var setup nvmlSetup
		if err := json.Unmarshal(line, &setup); err != nil {
			return false, fmt.Errorf("reading what NVML to start: %w", err)
		}
		s.session, s.failure = openNVMLSession(setup)
		return false, nil
	}
	var request nvmlRequest
	if err := json.Unmarshal(line, &request); err != nil {
		return false, fmt.Errorf("reading a request: %w", err)
	}
	answer := nvmlAnswer{Failure: s.failure}
	if s.failure == nil {
		answer = s.session.look(request.Full)
	}
	answer.ID = request.ID
	text, err := json.Marshal(answer)
	if err != nil {
		return false, fmt.Errorf("composing an answer: %w", err)
	}
	if _, err := s.out.Write(append(text, '\n')); err != nil && !errors.Is(err, syscall.EPIPE) {
		return false, fmt.Errorf("answering: %w", err)
	}
	return s.failure != nil, nil
}

func (s *nvmlServer) close() {
	if s.session != nil {
		s.session.close()
	}
}
