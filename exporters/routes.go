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

// newHandler returns the port's handler: /metrics, /health, a landing page and the
// configured routes, with the limits of withLimits.
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
	if page := routes["/page.html"]; page != nil {
		routes["/{$}"] = page
	} else if routes["/{$}"], err = s.newLanding(slices.Sorted(maps.Keys(routes))); err != nil {
		return nil, err
	}

	mux := http.NewServeMux()
	for path, handler := range routes {
		mux.Handle("GET "+path, s.withLimits(path, handler))
	}
	return s.withAccess(mux), nil
}

func checkRoute(path string) error {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "{} ") || path == "/" || path == "/metrics" {
		return fmt.Errorf("route %q: must be a plain path other than / and /metrics", path)
	}
	return nil
}

// newMetrics returns the handler of scrapes. If one collector fails, the metrics of the
// others are still served.
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
		return nil, fmt.Errorf("creating the landing page: %w", err)
	}
	return page, nil
}

// withLimits limits the duration and the number of concurrent requests of a route, and
// recovers its panics. A hung handler continues to count after its timeout, so that
// further requests are rejected instead of accumulating.
func (s *Server) withLimits(path string, handler http.Handler) http.Handler {
	slots := make(chan struct{}, maxConcurrent)
	limited := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
		default:
			http.Error(w, fmt.Sprintf("too many concurrent requests for %s (limit %d)", path, maxConcurrent), http.StatusServiceUnavailable)
			return
		}
		defer func() { <-slots }()
		defer s.recover(w, path)
		handler.ServeHTTP(w, r)
	})
	return http.TimeoutHandler(limited, handlerTimeout, fmt.Sprintf("no response within %v\n", handlerTimeout))
}

// recover responds with 500 if the handler panicked. It can still set the status,
// because http.TimeoutHandler buffers what the handler wrote.
func (s *Server) recover(w http.ResponseWriter, path string) {
	cause := recover()
	if cause == nil {
		return
	}
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(cause) // net/http closes the connection
	}
	s.log.Error("handler panicked", zap.String("exporter", s.cfg.Name), zap.String("path", path),
		zap.Any("panic", cause), zap.ByteString("stack", debug.Stack()))
	http.Error(w, "internal error", http.StatusInternalServerError)
}

func stdLog(logger *zap.Logger, level zapcore.Level) *log.Logger {
	std, err := zap.NewStdLogAt(logger, level)
	if err != nil {
		panic(err) // invalid level
	}
	return std
}
