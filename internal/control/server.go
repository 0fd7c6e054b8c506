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

// Handlers are what requests do. They are called from several goroutines at a time.
// One that is nil is refused, saying so.
type Handlers struct {
	// Status is how the agent fares. It must wait for nothing.
	Status func() messages.Status
	// Drain asks the agent to end once its jobs are done. It returns at once and
	// may be repeated.
	Drain func(context.Context) error
	// Find lists the attempts at a job, the newest last; none is no error.
	Find func(jobID string) ([]job.Record, error)
	// Crash and Hang put a fault into an actor; nil unless debug.fault_injection is
	// on. The error for an unknown actor names those there are.
	Crash func(actorPath string) error
	Hang  func(actorPath string, d time.Duration) error
}

// What refuses a request.
var (
	errNoFaults    = errors.New("fault injection is off: set debug.fault_injection to true in the agent's configuration and start it again")
	errNotProvided = errors.New("this agent cannot do that")
	errBusy        = errors.New("too many requests at a time")
	errPanicked    = errors.New("the request failed inside the agent; its log says how")
)

// Deadlines of the server. Nothing that is asked takes long.
const (
	readTimeout   = 5 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 30 * time.Second
	shutdownGrace = time.Second
	lookEvery     = 10 * time.Second
	maxHeader     = 16 << 10
)

// Server is the agent's end of the socket.
type Server struct {
	path    string
	handler http.Handler
	log     *zap.Logger
	turn    chan struct{} // held by the Serve that has the socket
	look    time.Duration // how often it is looked whether the socket is still there
}

// NewServer makes a server for a socket at an absolute path of at most 107 bytes.
func NewServer(path string, h Handlers, log *zap.Logger) *Server {
	s := &Server{path: path, log: log, turn: make(chan struct{}, 1), look: lookEvery}
	mux := http.NewServeMux()
	mux.Handle("GET "+pathStatus, s.answer(h.status))
	mux.Handle("POST "+pathDrain, s.answer(h.drain))
	mux.Handle("GET "+pathRecords, s.answer(h.records))
	mux.Handle("POST "+pathCrash, s.answer(h.crash))
	mux.Handle("POST "+pathHang, s.answer(h.hang))
	s.handler = bounded(mux)
	return s
}

// Name is what logs and the actor tree call it.
func (s *Server) Name() string { return "control" }

// Serve makes the socket and answers until the context ends (nil) or it fails, and
// removes the socket. It may be called again after that; called while an earlier
// call is on its way out, it waits for that. A stale socket is taken over; the error
// wraps ErrInUse where a process answers on it.
func (s *Server) Serve(ctx context.Context) (err error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
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
	s.log.Info("operators can ask on the control socket", zap.String("socket", s.path))
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
	look := time.NewTicker(s.look)
	defer look.Stop()
	for {
		select {
		case err := <-served:
			_ = server.Close()
			return s.fail(err)
		case <-ctx.Done():
			shutdown(server)
			<-served
			return nil
		case <-look.C:
			if !sock.inPlace() {
				shutdown(server)
				<-served
				return s.fail(errors.New("somebody removed it"))
			}
		}
	}
}

// shutdown lets answers that are on their way arrive.
func shutdown(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close()
	}
}

func (s *Server) fail(err error) error {
	return fmt.Errorf("control socket %s (control.socket): %w", s.path, err)
}

// bounded refuses what is more than an operator can mean.
func bounded(next http.Handler) http.Handler {
	free := make(chan struct{}, maxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case free <- struct{}{}:
			defer func() { <-free }()
		default:
			send(w, http.StatusServiceUnavailable, refusal{errBusy.Error()})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		next.ServeHTTP(w, r)
	})
}

// answer makes a handler of a function that returns a status and the answer's body,
// or an error as its body.
func (s *Server) answer(do func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := s.contained(do, r)
		var refused *refusedError
		switch {
		case errors.As(err, &refused):
			send(w, refused.status, refusal{refused.Error()})
		case err != nil:
			send(w, http.StatusInternalServerError, refusal{err.Error()})
		case body == nil:
			send(w, http.StatusAccepted, struct{}{})
		default:
			send(w, http.StatusOK, body)
		}
	})
}

// contained turns a panic into an error: one request must not cost the agent.
func (s *Server) contained(do func(*http.Request) (any, error), r *http.Request) (body any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a request on the control socket panicked", zap.String("request", r.Method+" "+r.URL.Path),
				zap.Any("panic", p), zap.Stack("stack"))
			body, err = nil, errPanicked
		}
	}()
	return do(r)
}

func send(w http.ResponseWriter, status int, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		status = http.StatusInternalServerError
		raw, _ = json.Marshal(refusal{"encoding the answer: " + err.Error()})
	}
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(status)
	_, _ = w.Write(raw) // who asked may be gone
}

// refusedError is the asker's fault, or what this agent was not set up for.
type refusedError struct {
	status int
	error
}

func (e *refusedError) Unwrap() error { return e.error }

func refuse(status int, err error) error { return &refusedError{status, err} }

func (h *Handlers) status(*http.Request) (any, error) {
	if h.Status == nil {
		return nil, refuse(http.StatusNotImplemented, errNotProvided)
	}
	return h.Status(), nil
}

func (h *Handlers) drain(r *http.Request) (any, error) {
	if h.Drain == nil {
		return nil, refuse(http.StatusNotImplemented, errNotProvided)
	}
	return nil, h.Drain(r.Context())
}

func (h *Handlers) records(r *http.Request) (any, error) {
	if h.Find == nil {
		return nil, refuse(http.StatusNotImplemented, errNotProvided)
	}
	id := r.URL.Query().Get(queryJob)
	if id == "" {
		return nil, refuse(http.StatusBadRequest, errors.New("a job's id is needed"))
	}
	found, err := h.Find(id)
	if err != nil {
		return nil, err
	}
	answer := recordsAnswer{Records: make([]record, len(found))}
	for i, r := range found {
		answer.Records[i] = tell(r)
	}
	return answer, nil
}

func (h *Handlers) crash(r *http.Request) (any, error) {
	if h.Crash == nil {
		return nil, refuse(http.StatusForbidden, errNoFaults)
	}
	var req crashRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if req.Actor == "" {
		return nil, refuse(http.StatusBadRequest, errNotAnActor)
	}
	return nil, badRequest(h.Crash(req.Actor))
}

func (h *Handlers) hang(r *http.Request) (any, error) {
	if h.Hang == nil {
		return nil, refuse(http.StatusForbidden, errNoFaults)
	}
	var req hangRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.Actor == "":
		return nil, refuse(http.StatusBadRequest, errNotAnActor)
	case req.For <= 0:
		return nil, refuse(http.StatusBadRequest, fmt.Errorf("an actor cannot hang for %s: more than 0 is needed", req.For))
	}
	return nil, badRequest(h.Hang(req.Actor, req.For))
}

func badRequest(err error) error {
	if err == nil {
		return nil
	}
	return refuse(http.StatusBadRequest, err)
}

// decode reads a request's body: one JSON value, and nothing it does not know.
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
		return refuse(http.StatusRequestEntityTooLarge, fmt.Errorf("the request is larger than %d bytes", large.Limit))
	}
	return badRequest(fmt.Errorf("reading the request: %w", err))
}
