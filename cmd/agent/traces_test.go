package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"ffmpeg-agent/internal/ffmpegtest"
	"ffmpeg-agent/messages/protocol"
)

// traceCollector receives OTLP over HTTP.
type traceCollector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*otlp.Span
}

func newTraceCollector(t *testing.T) *traceCollector {
	c := &traceCollector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// byName are the spans of a trace.
func (c *traceCollector) byName(trace string) map[string]*otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]*otlp.Span{}
	for _, s := range c.spans {
		if fmt.Sprintf("%x", s.TraceId) == trace {
			found[s.Name] = s
		}
	}
	return found
}

// traces are the ids of all traces.
func (c *traceCollector) traces() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for _, s := range c.spans {
		if id := fmt.Sprintf("%x", s.TraceId); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// A job is seen in the trace of whoever submitted it to the master.
func TestJobIsTraced(t *testing.T) {
	t.Parallel()
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	bed, collector := newTestbed(t), newTraceCollector(t)
	agent := startAgent(t, append(bed.environment(), "FFMPEG_AGENT_TRACES_ENDPOINT="+collector.URL+"/v1/traces"), bed.flags()...)
	done, err := bed.master.Submit(protocol.JobRequest{Scenario: "test-h264", Parameters: ffmpegtest.Quick(), TraceParent: "00-" + trace + "-" + parent + "-01"})
	if err != nil {
		t.Fatal(err)
	}
	bed.awaitResult(done.ID, protocol.StatusCompleted)
	failing := bed.submit(map[string]any{"input": filepath.Join(t.TempDir(), "missing.mp4")})
	bed.awaitResult(failing.ID, protocol.StatusFailed)
	agent.signal(t, syscall.SIGTERM)
	agent.wantExit(t, exitOK) // has sent what was queued

	spans := collector.byName(trace)
	job := spans["job"]
	if job == nil || fmt.Sprintf("%x", job.ParentSpanId) != parent {
		t.Fatalf("got the spans %v, want a job below %s", spans, parent)
	}
	values := map[string]string{}
	for _, a := range job.Attributes {
		values[a.Key] = a.Value.String()
	}
	for key, want := range map[string]string{"job.id": done.ID, "job.status": "completed"} {
		if got := values[key]; got != fmt.Sprintf("string_value:%q", want) {
			t.Errorf("%s: got %s, want %s", key, got, want)
		}
	}
	if values["job.joules"] == "" {
		t.Errorf("got %v, want joules", values)
	}
	wantPhases(t, spans, "prepare", "run", "check", "journal")

	traces := collector.traces()
	if len(traces) < 2 { // the master may have assigned the failed job again
		t.Fatalf("got the traces %v, want one of its own for the job without a traceparent", traces)
	}
	for _, other := range traces {
		if other == trace {
			continue
		}
		failed := collector.byName(other)
		wantPhases(t, failed, "prepare")
		if got := failed["job"].GetStatus(); got.GetCode() != otlp.Status_STATUS_CODE_ERROR || got.GetMessage() != string(protocol.ReasonInputError) {
			t.Errorf("the failed job's status: got %v, want an error with %s", got, protocol.ReasonInputError)
		}
	}
}

// wantPhases checks that a trace has spans for at least these phases, and that all but the job's
// are below it and within its time.
func wantPhases(t *testing.T, spans map[string]*otlp.Span, phases ...string) {
	t.Helper()
	job := spans["job"]
	if job == nil {
		t.Fatalf("got the spans %v, want a job", spans)
	}
	for _, phase := range phases {
		if spans[phase] == nil {
			t.Errorf("got the spans %v, want %s", spans, phase)
		}
	}
	for name, s := range spans {
		if name == "job" {
			continue
		}
		if string(s.ParentSpanId) != string(job.SpanId) {
			t.Errorf("%s: got %v, want a span below the job's", name, s)
		}
		if s.StartTimeUnixNano < job.StartTimeUnixNano || s.EndTimeUnixNano > job.EndTimeUnixNano || s.EndTimeUnixNano < s.StartTimeUnixNano {
			t.Errorf("%s: got %d to %d, want it within the job's %d to %d", name, s.StartTimeUnixNano, s.EndTimeUnixNano, job.StartTimeUnixNano, job.EndTimeUnixNano)
		}
	}
}

// A collector that accepts batches and never answers delays neither jobs nor the exit.
func TestHangingCollectorDelaysNothing(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	received, hung := make(chan struct{}, 10), make(chan struct{})
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		received <- struct{}{}
		<-hung
	}))
	t.Cleanup(collector.Close)
	t.Cleanup(func() { close(hung) })
	agent := startAgent(t, append(bed.environment(), "FFMPEG_AGENT_TRACES_ENDPOINT="+collector.URL), bed.flags()...)
	bed.awaitRegistration()
	begun := time.Now()
	bed.awaitResult(bed.submit(ffmpegtest.Quick()).ID, protocol.StatusCompleted)
	undelayed := time.Since(begun) // nothing is sent before a job's end
	select {
	case <-received:
	case <-time.After(hang):
		t.Fatal("got no request at the collector")
	}
	within := 20*time.Second + 2*undelayed // below the 30 s for which a batch is tried, unless the machine is slow
	begun = time.Now()
	bed.awaitResult(bed.submit(ffmpegtest.Quick()).ID, protocol.StatusCompleted)
	if took := time.Since(begun); took > within {
		t.Errorf("the next job took %s, want less than %s", took, within)
	}
	begun = time.Now()
	agent.signal(t, syscall.SIGTERM)
	agent.wantExit(t, exitOK)
	if took := time.Since(begun); took > within {
		t.Errorf("the exit took %s, want less than %s", took, within)
	}
}

// Variables of OpenTelemetry that cannot be used do not end the agent, and their values are not shown.
func TestUnusableTraceVariables(t *testing.T) {
	t.Parallel()
	const secret = "supersecrettoken"
	for name, test := range map[string]struct {
		env  []string
		warn string
	}{
		"malformed headers": {[]string{"OTEL_EXPORTER_OTLP_HEADERS=X-Other=1," + secret}, "OTEL_EXPORTER_OTLP_HEADERS: entry 2"},
		"ignored":           {[]string{"OTEL_EXPORTER_OTLP_TRACES_HEADERS=" + secret, "OTEL_BSP_MAX_QUEUE_SIZE=-1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bed := newTestbed(t)
			agent := startAgent(t, append(append(bed.environment(), "FFMPEG_AGENT_TRACES_ENDPOINT=http://127.0.0.1:4318/v1/traces"), test.env...), bed.flags()...)
			bed.awaitRegistration()
			agent.signal(t, syscall.SIGTERM)
			agent.wantExit(t, exitOK)
			log := agent.log()
			if strings.Contains(log, secret) {
				t.Error("want a log without the value")
			}
			if !strings.Contains(log, test.warn) || strings.Contains(log, "not exporting traces") != (test.warn != "") {
				t.Errorf("want the warning %q", test.warn)
			}
		})
	}
}
