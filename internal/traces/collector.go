package traces

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"

	"ffmpeg-agent/internal/safetext"
)

const (
	headersVariable     = "OTEL_EXPORTER_OTLP_HEADERS"
	certificateVariable = "OTEL_EXPORTER_OTLP_CERTIFICATE"
)

// headersFromEnvironment returns the headers of requests to the collector. Its error does not
// contain their values.
func headersFromEnvironment() (map[string]string, error) {
	headers := map[string]string{}
	for i, entry := range strings.Split(os.Getenv(headersVariable), ",") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		name, encoded, _ := strings.Cut(entry, "=")
		name = strings.TrimSpace(name)
		value, err := url.PathUnescape(strings.TrimSpace(encoded))
		if err != nil || encoded == "" || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("environment variable %s: entry %d is not a header as NAME=VALUE; allowed are such entries separated by commas, with percent-encoded values",
				headersVariable, i+1)
		}
		headers[name] = value
	}
	return headers, nil
}

// secretsOf returns what a collector may repeat of the headers.
func secretsOf(headers map[string]string) safetext.Secrets {
	var secrets safetext.Secrets
	for _, value := range headers {
		secrets.AddParameters("authorization", value)
	}
	return secrets
}

func newHTTPClient(endpoint string) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := os.Getenv(certificateVariable); file != "" && strings.HasPrefix(endpoint, "https:") {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("environment variable %s: reading the collector's CA: %w", certificateVariable, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("environment variable %s: no PEM certificate in %s", certificateVariable, file)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	return &http.Client{
		// Following a redirect would send the headers to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     transport,
		Timeout:       sendTimeout,
	}, nil
}

// reporter logs the first of consecutive failures, and that they are over. The SDK calls
// ExportSpans from one goroutine at a time.
type reporter struct {
	sdktrace.SpanExporter
	secrets safetext.Secrets
	log     *zap.Logger
	failing time.Time // since when; zero: the last batch was taken
}

func (r *reporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && r.failing.IsZero():
		r.failing = time.Now()
		r.log.Warn("could not export traces; those that the collector does not take within "+sendTimeout.String()+" are dropped",
			zap.String("error", safetext.Shorten(safetext.Line(r.secrets.Redact(err.Error())), maxAttribute)))
	case err == nil && !r.failing.IsZero():
		r.log.Info("traces are exported again", zap.Duration("after", time.Since(r.failing)))
		r.failing = time.Time{}
	}
	return nil // the SDK would log each failure
}
