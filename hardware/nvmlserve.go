package hardware

import (
	"bufio"
	"bytes"
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

// orphanGrace is how long the child may take to exit after its parent has closed its input.
const orphanGrace = 500 * time.Millisecond

// ServeNVML is the main function of the child process. It initializes NVML with the settings in
// the first line of its input, responds to requests, and returns when the input ends, NVML fails
// to initialize, or the context is done. It must have a process of its own: it ignores SIGINT,
// SIGTERM and SIGHUP, because its parent ends it, and exits the process if a call into the
// library still hangs 500 ms after the end of the input.
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
			if last, err := s.handle(line); last || err != nil {
				return err
			}
		}
	}
}

// readRequests sends the parent's lines to lines. When the input ends, it ensures that the
// process does not outlive its parent, even if a call hangs.
func readRequests(in io.Reader, lines chan<- []byte, done <-chan struct{}) {
	scanner := bufio.NewScanner(in)
	for scanner.Scan() {
		select {
		case lines <- bytes.Clone(scanner.Bytes()):
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

// nvmlServer handles the lines of the parent.
type nvmlServer struct {
	out     io.Writer
	session *nvmlSession // nil before NVML was started
	failure *nvmlFailure
}

// handle handles the parent's next line. last reports that the child exits after it.
func (s *nvmlServer) handle(line []byte) (last bool, err error) {
	if s.session == nil && s.failure == nil {
		var setup nvmlSetup
		if err := json.Unmarshal(line, &setup); err != nil {
			return false, fmt.Errorf("decoding the setup: %w", err)
		}
		s.session, s.failure = openNVMLSession(setup)
		return false, nil
	}
	var request nvmlRequest
	if err := json.Unmarshal(line, &request); err != nil {
		return false, fmt.Errorf("decoding a request: %w", err)
	}
	response := nvmlResponse{Failure: s.failure}
	if s.failure == nil {
		response = s.session.read(request.Details)
	}
	response.ID = request.ID
	text, err := json.Marshal(response)
	if err != nil {
		return false, fmt.Errorf("encoding a response: %w", err)
	}
	if _, err := s.out.Write(append(text, '\n')); err != nil && !errors.Is(err, syscall.EPIPE) {
		return false, fmt.Errorf("writing a response: %w", err)
	}
	return s.failure != nil, nil
}

func (s *nvmlServer) close() {
	if s.session != nil {
		s.session.close()
	}
}
