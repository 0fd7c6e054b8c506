// Package exporters serves Prometheus metrics and probes: CPU power, GPUs, running
// encodes, and the agent itself, each on its own port.
//
// The package only formats. All values come from snapshots returned by functions, so that
// a scrape never waits for an actor. Running a Server, and restarting it after a failure,
// is up to the caller.
package exporters

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/exporter-toolkit/web"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
)

// Limits on the resources that clients of a port can use.
const (
	readHeaderTimeout  = 5 * time.Second
	readTimeout        = 10 * time.Second
	handlerTimeout     = 10 * time.Second // per request
	writeTimeout       = 20 * time.Second // handlerTimeout plus time to send the response
	idleTimeout        = 2 * time.Minute  // longer than common scrape intervals
	maxHeaderBytes     = 16 << 10
	maxConnections     = 64 // per port, and of one peer, see connections
	maxPeerConnections = 16
	maxConcurrent      = 8 // requests per route; further ones get 503
	shutdownTimeout    = 2 * time.Second
)

// defaultStaleAfter is the default StaleAfter of the CPU and GPU collectors.
const defaultStaleAfter = 3 * time.Minute

// Config configures a Server.
type Config struct {
	Name        string    // "cpu", "ffmpeg", "agent", …, for logs and errors
	Title       string    // title of the landing page
	Description string    // subtitle of the landing page
	Key         string    // configuration key of the port, for errors: "exporters.cpu.port"
	Address     string    // IP address or host name to listen on; "" means all interfaces
	Port        int       // 0 means any free port
	WebConfig   WebConfig // TLS and basic auth of all routes
	Collectors  []prometheus.Collector
	// Routes are additional GET and HEAD handlers by path. /health replaces the default
	// one, which always responds with 200.
	Routes map[string]http.Handler
	Logger *zap.Logger // nil disables logging
}

// Server is one metrics port.
type Server struct {
	cfg     Config
	log     *zap.Logger
	handler http.Handler
	addr    atomic.Pointer[net.Addr]
	web     atomic.Pointer[WebConfig] // of the next Serve
	served  atomic.Pointer[WebConfig] // of the current one
	serving chan struct{}             // semaphore held by Serve
}

// NewServer returns a server that is not listening yet. It fails if the port or a route
// is invalid, or if collectors conflict.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Port < 0 || cfg.Port > 65535 {
		return nil, fmt.Errorf("%s exporter: port %d (%s): must be from 0 to 65535", cfg.Name, cfg.Port, cfg.Key)
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	s := &Server{cfg: cfg, log: cfg.Logger, serving: make(chan struct{}, 1)}
	s.SetWebConfig(cfg.WebConfig)
	s.served.Store(&cfg.WebConfig)
	handler, err := s.newHandler()
	if err != nil {
		return nil, fmt.Errorf("%s exporter: %w", cfg.Name, err)
	}
	s.handler = handler
	return s, nil
}

// SetWebConfig sets the web configuration of the next Serve.
func (s *Server) SetWebConfig(c WebConfig) { s.web.Store(&c) }

// Name returns the configured name.
func (s *Server) Name() string { return s.cfg.Name }

// Addr returns the address that the server listens on, or nil if it does not.
func (s *Server) Addr() net.Addr {
	if addr := s.addr.Load(); addr != nil {
		return *addr
	}
	return nil
}

// Serve listens and serves until it fails or ctx is canceled. On cancelation it returns
// nil, after giving pending requests up to 2 s to finish. It may be called again; a call
// waits until the previous one has released the port. Collectors keep their state.
func (s *Server) Serve(ctx context.Context) error {
	select {
	case s.serving <- struct{}{}:
		defer func() { <-s.serving }()
	case <-ctx.Done():
		return nil
	}
	s.served.Store(s.web.Load())
	webConfig, closeConfig, err := s.served.Load().open()
	if err != nil {
		return fmt.Errorf("%s exporter: %w", s.cfg.Name, err)
	}
	defer closeConfig()
	listener, err := s.listen(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer listener.Close()
	addr := listener.Addr()
	s.addr.Store(&addr)
	defer s.addr.Store(nil)
	s.log.Info("serving metrics", zap.String("exporter", s.cfg.Name), zap.Stringer("address", addr),
		zap.Bool("web_config", webConfig != ""))

	server := s.newHTTPServer()
	stopped := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(stopped)
		stop(server)
	})
	err = web.Serve(listener, server, &web.FlagConfig{WebConfigFile: &webConfig}, s.toolkitLogger())
	if release() {
		return errors.Join(fmt.Errorf("%s exporter: serving on %v (%s): %w", s.cfg.Name, addr, s.cfg.Key, err), server.Close())
	}
	<-stopped
	return nil
}

// listen opens the port. Errors name the port, its configuration key and a remedy.
func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	address := net.JoinHostPort(s.cfg.Address, strconv.Itoa(s.cfg.Port))
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err == nil {
		return listener, nil
	}
	err = fmt.Errorf("%s exporter: port %d (%s): %w", s.cfg.Name, s.cfg.Port, s.cfg.Key, err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w; stop the program that uses it (see `ss -ltnp 'sport = :%d'`) or set %s to a free port",
			err, s.cfg.Port, s.cfg.Key)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%w; set %s to 1024 or higher", err, s.cfg.Key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%w; set exporters.listen_address to an address of this machine", err)
	}
	return nil, err
}

func (s *Server) newHTTPServer() *http.Server {
	return &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         (&connections{all: map[net.Conn]*connection{}}).changed,
		// Failed TLS handshakes and other client errors.
		ErrorLog: stdLog(s.log, zap.DebugLevel),
	}
}

// stop gives pending requests shutdownTimeout to finish, then closes their connections.
func stop(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
}

// toolkitLogger passes on the toolkit's warnings and errors, but not its info lines,
// because Serve logs the same in one line.
func (s *Server) toolkitLogger() *slog.Logger {
	return slog.New(warnings{zapslog.NewHandler(s.log.Core())})
}

type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}
