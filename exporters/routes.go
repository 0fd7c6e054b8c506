package exporters

import (
	"errors"
	"fmt"
	"html"
	"log"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newHandler routes the port's requests. Every route is contained: what it may cost
// is bounded, and a panic in it is a 500.
func (s *Server) newHandler() (http.Handler, error) {
	routes := map[string]http.Handler{"/health": HealthHandler(nil)}
	for path, handler := range s.cfg.Routes {
		if err := checkRoute(path); err != nil {
			return nil, err
		}
		routes[path] = handler
	}
	var err error
	if routes["/metrics"], err = s.newMetrics(); err != nil {
		return nil, err
	}
	landing, err := s.newLanding(slices.Sorted(maps.Keys(routes)))
	if err != nil {
		return nil, err
	}
	routes["/{$}"] = landing

	mux := http.NewServeMux()
	for path, handler := range routes {
		mux.Handle("GET "+path, s.contain(path, handler))
	}
	return mux, nil
}

func checkRoute(path string) error {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "{} ") || path == "/" || path == "/metrics" {
		return fmt.Errorf("route %q: must be a plain path that is neither / nor /metrics", path)
	}
	return nil
}

// newMetrics answers scrapes. One collector's failure costs that collector's figures.
func (s *Server) newMetrics() (http.Handler, error) {
	registry := prometheus.NewRegistry()
	for _, c := range s.cfg.Collectors {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering a collector: %w", err)
		}
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:      stdLog(s.log, zap.WarnLevel),
		ErrorHandling: promhttp.ContinueOnError,
		Registry:      registry,
	}), nil
}

func (s *Server) newLanding(paths []string) (http.Handler, error) {
	links := make([]web.LandingLinks, len(paths))
	for i, path := range paths {
		links[i] = web.LandingLinks{Address: path, Text: path}
	}
	page, err := web.NewLandingPage(web.LandingConfig{
		Name:        html.EscapeString(s.cfg.Title),
		Description: html.EscapeString(s.cfg.Description),
		Links:       links,
		Profiling:   "false",
	})
	if err != nil {
		return nil, fmt.Errorf("making the landing page: %w", err)
	}
	return page, nil
}

// contain bounds a route in time and in number, and keeps its panics. A handler that
// hangs keeps its place, so that those behind it are turned away and not piled up.
func (s *Server) contain(path string, handler http.Handler) http.Handler {
	places := make(chan struct{}, maxConcurrent)
	bounded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
		default:
			http.Error(w, fmt.Sprintf("%d requests for %s are being answered: try again later", maxConcurrent, path), http.StatusServiceUnavailable)
			return
		}
		defer func() { <-places }()
		defer s.recover(w, path)
		handler.ServeHTTP(w, r)
	})
	return http.TimeoutHandler(bounded, handlerTimeout, fmt.Sprintf("no answer within %v\n", handlerTimeout))
}

// recover answers for a handler that panicked. The timeout's buffer around it sees to
// it that a status of 500 can still be sent.
func (s *Server) recover(w http.ResponseWriter, path string) {
	cause := recover()
	if cause == nil {
		return
	}
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(cause) // asks for the connection to be closed
	}
	s.log.Error("a handler panicked", zap.String("exporter", s.cfg.Name), zap.String("path", path),
		zap.Any("panic", cause), zap.ByteString("stack", debug.Stack()))
	http.Error(w, "internal error", http.StatusInternalServerError)
}

func stdLog(logger *zap.Logger, level zapcore.Level) *log.Logger {
	std, err := zap.NewStdLogAt(logger, level)
	if err != nil {
		panic(err) // no such level
	}
	return std
}
