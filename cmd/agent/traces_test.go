package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"

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
	plain := bed.submit(ffmpegtest.Quick())
	bed.awaitResult(plain.ID, protocol.StatusCompleted)
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
	for _, phase := range []string{"prepare", "run", "check"} {
		s := spans[phase]
		if s == nil || string(s.ParentSpanId) != string(job.SpanId) {
			t.Errorf("%s: got %v, want a span below the job's", phase, s)
		} else if s.StartTimeUnixNano < job.StartTimeUnixNano || s.EndTimeUnixNano > job.EndTimeUnixNano || s.EndTimeUnixNano < s.StartTimeUnixNano {
			t.Errorf("%s: got %d to %d, want it within the job's %d to %d", phase, s.StartTimeUnixNano, s.EndTimeUnixNano, job.StartTimeUnixNano, job.EndTimeUnixNano)
		}
	}
	collector.mu.Lock()
	defer collector.mu.Unlock()
	traces := map[string]bool{}
	for _, s := range collector.spans {
		traces[fmt.Sprintf("%x", s.TraceId)] = true
	}
	if len(traces) != 2 {
		t.Errorf("got the traces %v, want one of its own for the job without a traceparent", traces)
	}
}

// A collector that does not answer costs no job anything.
func TestCollectorThatIsDown(t *testing.T) {
	t.Parallel()
	bed := newTestbed(t)
	agent := startAgent(t, append(bed.environment(), fmt.Sprintf("FFMPEG_AGENT_TRACES_ENDPOINT=http://127.0.0.1:%d/v1/traces", freePort(t))), bed.flags()...)
	bed.awaitResult(bed.submit(ffmpegtest.Quick()).ID, protocol.StatusCompleted)
	agent.signal(t, syscall.SIGTERM)
	agent.wantExit(t, exitOK)
}
