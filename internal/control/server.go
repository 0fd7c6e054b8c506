// Package control lets operators on the same machine inspect and control a running agent,
// through JSON over HTTP on a unix socket.
//
// There is no authentication: only the agent's user and root can open the socket. Responses
// contain no secrets; in particular, job parameters are omitted, because they may contain
// stream keys.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// Handlers handle the requests. They are called concurrently. Requests whose handler is nil
// fail with an error.
type Handlers struct {
	// Status returns the agent's status. It must not block.
	Status func() messages.Status
	// Drain makes the agent exit after its running jobs. It must not wait for that, and
	// may be called repeatedly.
	Drain func(context.Context) error
	// Undo makes a draining agent take jobs again.
	Undo func(context.Context) error
	// Reload loads the configuration again, and waits for that. The error is why nothing has
	// changed.
	Reload func(context.Context) error
	// Find returns the attempts of a job, latest last, or none.
	Find func(jobID string) ([]job.Record, error)
	// Recent returns all attempts in the journal, latest first.
	Recent func() ([]job.Summary, error)
	// Crash and Hang inject a fault into an actor. They must be nil unless
	// debug.fault_injection is enabled.
	Crash func(actorPath string) error
	Hang  func(actorPath string, d time.Duration) error
}

var (
	errFaultsDisabled = errors.New("fault injection is disabled; set debug.fault_injection to true in the agent's configuration and restart it")
	errNotSupported   = errors.New("not supported by this agent")
	errBusy           = errors.New("too many concurrent requests")
	errPanicked       = errors.New("internal error; see the agent's log")
)

const (
	readTimeout     = 5 * time.Second
	writeTimeout    = 30 * time.Second
	idleTimeout     = 30 * time.Second
	shutdownTimeout = time.Second
	checkInterval   = 10 * time.Second // of the socket's existence
	maxHeader       = 16 << 10
)

// Server serves requests on the socket.
type Server struct {
	path          string
	handler       http.Handler
	log           *zap.Logger
	serving       chan struct{} // semaphore held by Serve
	checkInterval time.Duration
}

// NewServer returns a server for a socket at an absolute path of at most 107 bytes.
func NewServer(path string, h Handlers, log *zap.Logger) *Server {
	s := &Server{path: path, log: log, serving: make(chan struct{}, 1), checkInterval: checkInterval}
	mux := http.NewServeMux()
	mux.Handle("GET "+pathStatus, s.handle(h.status))
	mux.Handle("POST "+pathDrain, s.handle(act(h.Drain)))
	mux.Handle("DELETE "+pathUndo, s.handle(act(h.Undo)))
	mux.Handle("POST "+pathReload, s.handle(act(h.Reload)))
	mux.Handle("GET "+pathRecords, s.handle(h.records))
	mux.Handle("GET "+pathRecent, s.handle(h.recent))
	mux.Handle("POST "+pathCrash, s.handle(h.crash))
	mux.Handle("POST "+pathHang, s.handle(h.hang))
	s.handler = limit(mux)
	return s
}

// Name returns the server's name in logs and in the actor tree.
func (s *Server) Name() string { return "control" }

// Serve creates the socket, serves requests until it fails or ctx is canceled (which returns
// nil), and removes the socket. It replaces a stale socket, and fails with ErrInUse if another
// process is listening. It may be called again; a call waits until the previous one has
// returned.
func (s *Server) Serve(ctx context.Context) (err error) {
	select {
	case s.serving <- struct{}{}:
		defer func() { <-s.serving }()
	case <-ctx.Done():
		return nil
	}
	if ctx.Err() != nil {
		return nil
	}
	sock, err := listen(ctx, s.path)
	if err != nil {
		return s.fail(err)
	}
	defer func() { err = errors.Join(err, sock.remove()) }()
	s.log.Info("listening on control socket", zap.String("socket", s.path))
	return s.serve(ctx, sock)
}

func (s *Server) serve(ctx context.Context, sock *socket) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          zap.NewStdLog(s.log),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(sock) }()
	check := time.NewTicker(s.checkInterval)
	defer check.Stop()
	for {
		select {
		case err := <-served:
			_ = server.Close()
			return s.fail(err)
		case <-ctx.Done():
			shutdown(server)
			<-served
			return nil
		case <-check.C:
			if !sock.inPlace() {
				shutdown(server)
				<-served
				return s.fail(errors.New("the socket was removed"))
			}
		}
	}
}

// shutdown gives pending requests shutdownTimeout to finish.
func shutdown(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close()
	}
}

func (s *Server) fail(err error) error {
	return fmt.Errorf("control socket %s (control.socket): %w", s.path, err)
}

// limit limits the number and size of requests.
func limit(next http.Handler) http.Handler {
	slots := make(chan struct{}, maxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			respond(w, http.StatusServiceUnavailable, errorResponse{errBusy.Error()})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		next.ServeHTTP(w, r)
	})
}

// handle returns a handler that responds with the value or the error returned by do. A nil
// value means 202 Accepted.
func (s *Server) handle(do func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := s.recovered(do, r)
		var requestErr *requestError
		switch {
		case errors.As(err, &requestErr):
			respond(w, requestErr.status, errorResponse{requestErr.Error()})
		case err != nil:
			respond(w, http.StatusInternalServerError, errorResponse{err.Error()})
		case value == nil:
			respond(w, http.StatusAccepted, struct{}{})
		default:
			respond(w, http.StatusOK, value)
		}
	})
}

// recovered calls do and turns a panic into an error.
func (s *Server) recovered(do func(*http.Request) (any, error), r *http.Request) (value any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("control request panicked", zap.String("request", r.Method+" "+r.URL.Path),
				zap.Any("panic", p), zap.Stack("stack"))
			value, err = nil, errPanicked
		}
	}()
	return do(r)
}

func respond(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		status = http.StatusInternalServerError
		body, _ = json.Marshal(errorResponse{"encoding the response: " + err.Error()})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails if the client has disconnected
}

// requestError is an error with an HTTP status other than 500.
type requestError struct {
	status int
	error
}

func (e *requestError) Unwrap() error { return e.error }

func withStatus(status int, err error) error { return &requestError{status, err} }

func (h *Handlers) status(*http.Request) (any, error) {
	if h.Status == nil {
		return nil, withStatus(http.StatusNotImplemented, errNotSupported)
	}
	return h.Status(), nil
}

// act handles requests that have and return no data.
func act(do func(context.Context) error) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		if do == nil {
			return nil, withStatus(http.StatusNotImplemented, errNotSupported)
		}
		return nil, do(r.Context())
	}
}

func (h *Handlers) records(r *http.Request) (any, error) {
	if h.Find == nil {
		return nil, withStatus(http.StatusNotImplemented, errNotSupported)
	}
	id := r.URL.Query().Get(queryJob)
	if id == "" {
		return nil, withStatus(http.StatusBadRequest, errors.New("missing job ID"))
	}
	found, err := h.Find(id)
	if err != nil {
		return nil, err
	}
	response := recordsResponse{Records: make([]record, len(found))}
	for i, r := range found {
		response.Records[i] = encodeRecord(r)
	}
	return response, nil
}

func (h *Handlers) recent(*http.Request) (any, error) {
	if h.Recent == nil {
		return nil, withStatus(http.StatusNotImplemented, errNotSupported)
	}
	all, err := h.Recent()
	if all == nil {
		all = []job.Summary{}
	}
	return all, err
}

func (h *Handlers) crash(r *http.Request) (any, error) {
	if h.Crash == nil {
		return nil, withStatus(http.StatusForbidden, errFaultsDisabled)
	}
	var req crashRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if req.Actor == "" {
		return nil, withStatus(http.StatusBadRequest, errMissingActor)
	}
	return nil, badRequest(h.Crash(req.Actor))
}

func (h *Handlers) hang(r *http.Request) (any, error) {
	if h.Hang == nil {
		return nil, withStatus(http.StatusForbidden, errFaultsDisabled)
	}
	var req hangRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.Actor == "":
		return nil, withStatus(http.StatusBadRequest, errMissingActor)
	case req.For <= 0:
		return nil, withStatus(http.StatusBadRequest, fmt.Errorf("duration %s: must be positive", req.For))
	}
	return nil, badRequest(h.Hang(req.Actor, req.For))
}

func badRequest(err error) error {
	if err == nil {
		return nil
	}
	return withStatus(http.StatusBadRequest, err)
}

// decode decodes the request's body, a single JSON value without unknown fields.
func decode(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("more than one JSON value")
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return withStatus(http.StatusRequestEntityTooLarge, fmt.Errorf("request larger than %d bytes", large.Limit))
	}
	return badRequest(fmt.Errorf("decoding the request: %w", err))
}
