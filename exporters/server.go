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
	"golang.org/x/net/netutil"
)

// Bounds on what clients of a port may cost the agent.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	handlerTimeout    = 10 * time.Second // of one answer
	writeTimeout      = 20 * time.Second // handlerTimeout, and time to send it
	idleTimeout       = 2 * time.Minute  // above the usual scrape intervals
	maxHeaderBytes    = 16 << 10
	maxConnections    = 64 // of one port; more wait to be accepted
	maxConcurrent     = 8  // answers of one route being made; more are told 503
	shutdownTimeout   = 2 * time.Second
)

// Config describes one metrics port.
type Config struct {
	Name        string // cpu, ffmpeg, agent: in logs and errors
	Title       string // heading of the landing page
	Description string // one line below it
	Key         string // configuration key of the port, named in errors: exporters.cpu.port
	Address     string // IP address or host name to listen on; "" is all interfaces
	Port        int    // 0 takes any free one
	// WebConfig is the path of a Prometheus web configuration file (TLS, basic
	// auth), which then holds for every route; "" is none. Users and certificates
	// are read afresh as they are used.
	WebConfig  string
	Collectors []prometheus.Collector
	// Routes are served beside /metrics, /health and the landing page, by path. A
	// /health among them replaces the plain one. They answer GET and HEAD.
	Routes map[string]http.Handler
	Logger *zap.Logger // nil logs nothing
}

// Server is one metrics port.
type Server struct {
	cfg     Config
	log     *zap.Logger
	handler http.Handler
	addr    atomic.Pointer[net.Addr]
	turn    chan struct{} // held while it serves
}

// NewServer makes a server, which does not listen yet. It fails on a port or a route
// that cannot be, and on collectors that collide.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Port < 0 || cfg.Port > 65535 {
		return nil, fmt.Errorf("%s exporter: port %d (%s): must be from 0 to 65535", cfg.Name, cfg.Port, cfg.Key)
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	s := &Server{cfg: cfg, log: cfg.Logger, turn: make(chan struct{}, 1)}
	handler, err := s.newHandler()
	if err != nil {
		return nil, fmt.Errorf("%s exporter: %w", cfg.Name, err)
	}
	s.handler = handler
	return s, nil
}

// Name is the exporter's.
func (s *Server) Name() string { return s.cfg.Name }

// Addr is where the server listens; nil while it does not.
func (s *Server) Addr() net.Addr {
	if addr := s.addr.Load(); addr != nil {
		return *addr
	}
	return nil
}

// Serve listens and answers until the context ends (nil) or it fails. Requests under
// way then get up to 2 s to finish. It may be called again: a call waits until the one
// before has let go of the port. The figures that collectors carry over go on.
func (s *Server) Serve(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil
	}
	if err := web.Validate(s.cfg.WebConfig); err != nil {
		return fmt.Errorf("%s exporter: web configuration %s (exporters.web_config): %w", s.cfg.Name, s.cfg.WebConfig, err)
	}
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
		zap.Bool("web_config", s.cfg.WebConfig != ""))

	server := s.newHTTPServer()
	stopped := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(stopped)
		stop(server)
	})
	err = web.Serve(listener, server, &web.FlagConfig{WebConfigFile: &s.cfg.WebConfig}, s.toolkitLogger())
	if release() {
		return errors.Join(fmt.Errorf("%s exporter: serving on %v (%s): %w", s.cfg.Name, addr, s.cfg.Key, err), server.Close())
	}
	<-stopped
	return nil
}

// listen opens the port; its error says which, by what key it is set, and what to do.
func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	address := net.JoinHostPort(s.cfg.Address, strconv.Itoa(s.cfg.Port))
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err == nil {
		return netutil.LimitListener(listener, maxConnections), nil
	}
	err = fmt.Errorf("%s exporter: port %d (%s): %w", s.cfg.Name, s.cfg.Port, s.cfg.Key, err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w: another program has it (`ss -ltnp 'sport = :%d'` shows which): stop that or set %s to a free port",
			err, s.cfg.Port, s.cfg.Key)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%w: set %s to a port from 1024", err, s.cfg.Key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%w: set exporters.listen_address to an address of this machine", err)
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
		// Broken handshakes and the like: a client's doing, not news.
		ErrorLog: stdLog(s.log, zap.DebugLevel),
	}
}

// stop lets requests under way finish, then closes what is left.
func stop(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
}

// toolkitLogger passes on the toolkit's warnings and errors. What it says of each
// port beside that, Serve says in one line.
func (s *Server) toolkitLogger() *slog.Logger {
	return slog.New(warnings{zapslog.NewHandler(s.log.Core())})
}

type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}
