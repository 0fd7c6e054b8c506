package traces

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/protobuf/proto"

	"ffmpeg-agent/messages/job"
	"ffmpeg-agent/messages/protocol"
)

// spans are what a collector received, by name.
type spans struct {
	sync.Mutex
	byName map[string]*otlp.Span
	header http.Header
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.Lock()
	defer s.Unlock()
	body, err := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.byName, s.header = map[string]*otlp.Span{}, r.Header
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				s.byName[span.Name] = span
			}
		}
	}
}

// attempt is one that ended after its outcome was composed, as all do.
func attempt() (*job.Outcome, []job.PhaseSpan) {
	at := time.Now()
	return &job.Outcome{Lease: job.Lease{Job: protocol.Job{ID: "a", Scenario: "test"}}, At: at}, []job.PhaseSpan{
		{Phase: job.PhasePrepare, From: at.Add(-2 * time.Second), To: at.Add(-time.Second)},
		{Phase: job.PhaseJournal, From: at.Add(-time.Second), To: at.Add(time.Second)},
	}
}

func newExporter(t *testing.T, endpoint string) (*Exporter, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	e, err := New(t.Context(), Config{Endpoint: endpoint, Version: "1", Node: "n", Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(t.Context()) })
	return e, logs
}

func flush(t *testing.T, e *Exporter) {
	t.Helper()
	if err := e.provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestVariablesOfTheSDKChangeNothing(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_BSP_MAX_QUEUE_SIZE": "-1", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "-1", "OTEL_TRACES_SAMPLER": "always_off",
		"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0", "OTEL_EXPORTER_OTLP_CERTIFICATE": certificateFile(t, httptest.NewTLSServer(nil)),
		"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "X-Token=b", "OTEL_EXPORTER_OTLP_HEADERS": " X-Token = a%20b , X-Other=c=d,",
	} {
		t.Setenv(name, value)
	}
	var received spans
	server := httptest.NewServer(&received)
	t.Cleanup(server.Close)
	e, _ := newExporter(t, server.URL)
	e.Ended(attempt())
	flush(t, e)
	if span := received.byName["job"]; span == nil || len(span.Attributes) == 0 {
		t.Errorf("got %v, want a span with attributes", span)
	}
	if token, other := received.header.Get("X-Token"), received.header.Get("X-Other"); token != "a b" || other != "c=d" {
		t.Errorf("got the headers %q and %q, want %q and %q", token, other, "a b", "c=d")
	}
}

func certificateFile(t *testing.T, server *httptest.Server) string {
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCollectorsCertificateIsVerified(t *testing.T) {
	var received spans
	server := httptest.NewTLSServer(&received)
	ca := certificateFile(t, server)
	e, logs := newExporter(t, server.URL)
	e.Ended(attempt())
	flush(t, e)
	if received.byName != nil || logs.Len() != 1 {
		t.Errorf("without the CA: got the spans %v and %d log lines, want none and 1", received.byName, logs.Len())
	}
	t.Setenv(certificateVariable, ca)
	e, _ = newExporter(t, server.URL)
	e.Ended(attempt())
	flush(t, e)
	if received.byName["job"] == nil {
		t.Error("with the CA: got no span")
	}
	t.Setenv(certificateVariable, ca+".missing")
	if _, err := New(t.Context(), Config{Endpoint: server.URL, Log: zap.NewNop()}); err == nil || !strings.Contains(err.Error(), certificateVariable) {
		t.Errorf("missing file: got %v, want an error that names the variable", err)
	}
}

func TestMalformedHeaders(t *testing.T) {
	for _, value := range []string{"supersecret", "X-A=1,supersecret", "X A=supersecret", "X-A=supersecret%zz", "X-A=supersecret%0a"} {
		t.Setenv(headersVariable, value)
		_, err := New(t.Context(), Config{Endpoint: "http://127.0.0.1:1", Log: zap.NewNop()})
		if err == nil || !strings.Contains(err.Error(), headersVariable) || strings.Contains(err.Error(), "supersecret") {
			t.Errorf("%q: got %v, want an error that names the variable and not its value", value, err)
		}
	}
}

func TestRedirectGetsNoHeaders(t *testing.T) {
	t.Setenv(headersVariable, "X-Token=secret")
	var redirected atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { redirected.Add(1) }))
	t.Cleanup(other.Close)
	server := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	t.Cleanup(server.Close)
	e, logs := newExporter(t, server.URL)
	e.Ended(attempt())
	flush(t, e)
	if n := redirected.Load(); n != 0 {
		t.Errorf("got %d requests at the redirect's target, want none", n)
	}
	if logs.Len() != 1 || !strings.Contains(logs.All()[0].ContextMap()["error"].(string), "307") {
		t.Errorf("got the log %v, want the status 307", logs.All())
	}
}

func TestUnsampledParentIsNotExported(t *testing.T) {
	var received spans
	server := httptest.NewServer(&received)
	t.Cleanup(server.Close)
	e, _ := newExporter(t, server.URL)
	outcome, phases := attempt()
	outcome.Lease.Job.TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
	e.Ended(outcome, phases)
	flush(t, e)
	if received.byName != nil {
		t.Errorf("got %v, want no spans", received.byName)
	}
}

func TestSpanOfFailedAttempt(t *testing.T) {
	var received spans
	server := httptest.NewServer(&received)
	t.Cleanup(server.Close)
	e, _ := newExporter(t, server.URL)
	outcome, phases := attempt()
	outcome.Failure = &job.Failure{Reason: protocol.ReasonInputError}
	outcome.Lease.Job.Scenario = strings.Repeat("é", 900_000)
	e.Ended(outcome, phases)
	flush(t, e)
	span := received.byName["job"]
	if span.GetStatus().GetCode() != otlp.Status_STATUS_CODE_ERROR || span.GetStatus().GetMessage() != "input_error" {
		t.Errorf("got the status %v, want an error with input_error", span.GetStatus())
	}
	for _, p := range phases {
		child := received.byName[string(p.Phase)]
		if child == nil || child.StartTimeUnixNano < span.StartTimeUnixNano || child.EndTimeUnixNano > span.EndTimeUnixNano {
			t.Errorf("%s: got %v, want a span within the job's %v", p.Phase, child, span)
		}
	}
	for _, a := range span.Attributes {
		if n := len([]rune(a.Value.GetStringValue())); n > maxAttribute {
			t.Errorf("%s: got %d characters, want at most %d", a.Key, n, maxAttribute)
		}
	}
}

func TestFailuresAreLoggedOnce(t *testing.T) {
	t.Setenv(headersVariable, "Authorization=Bearer%20supersecret")
	var up atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !up.Load() {
			http.Error(w, "not allowed: supersecret\n"+strings.Repeat("x", 10_000), http.StatusForbidden)
		}
	}))
	t.Cleanup(server.Close)
	e, logs := newExporter(t, server.URL)
	for range 3 {
		e.Ended(attempt())
		flush(t, e)
	}
	up.Store(true)
	for range 2 {
		e.Ended(attempt())
		flush(t, e)
	}
	entries := logs.All()
	if len(entries) != 2 || entries[0].Level != zapcore.WarnLevel || entries[1].Message != "traces are exported again" {
		t.Fatalf("got the log %v, want one failure and its end", entries)
	}
	if text := fmt.Sprint(entries[0].ContextMap()["error"]); len([]rune(text)) > maxAttribute || strings.Contains(text, "supersecret") || !strings.Contains(text, "403") {
		t.Errorf("got %q, want the status, and the body without the secret, shortened", text)
	}
}
