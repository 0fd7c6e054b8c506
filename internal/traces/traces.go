// Package traces exports finished attempts as OpenTelemetry traces: a span for the attempt, and
// one below it for each of its phases.
package traces

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"ffmpeg-agent/messages/job"
)

// sendTimeout bounds a request, and what is retried of it.
const sendTimeout = 30 * time.Second

// Config is what New needs.
type Config struct {
	Endpoint string // URL to which OTLP is posted, such as http://collector:4318/v1/traces
	Version  string // of the agent
	Node     string // its address
}

// Exporter sends spans in the background. What the collector does not take is dropped: a queue of
// bounded length holds nothing up.
type Exporter struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// New returns an exporter. It does not connect. OTEL_EXPORTER_OTLP_HEADERS and
// OTEL_EXPORTER_OTLP_CERTIFICATE apply.
func New(ctx context.Context, cfg Config) (*Exporter, error) {
	client, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(cfg.Endpoint), otlptracehttp.WithTimeout(sendTimeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: sendTimeout, MaxElapsedTime: sendTimeout}))
	if err != nil {
		return nil, fmt.Errorf("creating the exporter of traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(client), sdktrace.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "ffmpeg-agent"), attribute.String("service.version", cfg.Version), attribute.String("host.name", cfg.Node))))
	return &Exporter{provider: provider, tracer: provider.Tracer("ffmpeg-agent")}, nil
}

// Ended exports an attempt. Its span is a child of the job's traceparent, where the master sent
// a valid one.
func (e *Exporter) Ended(o *job.Outcome, phases []job.PhaseSpan) {
	if len(phases) == 0 {
		return
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": o.Lease.Job.TraceParent})
	attributes := []attribute.KeyValue{
		attribute.String("job.id", o.Lease.Job.ID), attribute.Int("job.attempt", o.Lease.Key().Attempt), attribute.String("job.scenario", o.Lease.Job.Scenario),
		attribute.String("job.status", string(o.Status())), attribute.String("job.encoder", o.Encode.Encoder),
	}
	if n := o.Lease.Job.SequenceNumber; n > 0 {
		attributes = append(attributes, attribute.Int64("job.sequence_number", n))
	}
	if o.Energy != nil && o.Energy.Total.Energy != nil {
		attributes = append(attributes, attribute.Float64("job.joules", float64(*o.Energy.Total.Energy)), attribute.String("job.joules_source", string(o.Energy.Total.Source)))
	}
	ctx, span := e.tracer.Start(ctx, "job", trace.WithTimestamp(phases[0].From), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attributes...))
	if o.Failure != nil && !o.Canceled {
		span.SetAttributes(attribute.String("job.failure_reason", string(o.Failure.Reason)))
		span.SetStatus(codes.Error, string(o.Failure.Reason))
	}
	for _, p := range phases {
		_, phase := e.tracer.Start(ctx, string(p.Phase), trace.WithTimestamp(p.From))
		phase.End(trace.WithTimestamp(p.To))
	}
	span.End(trace.WithTimestamp(o.At))
}

// Close sends what is queued, until ctx ends.
func (e *Exporter) Close(ctx context.Context) error {
	if err := e.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("sending the last traces: %w", err)
	}
	return nil
}
