// Package traces exports finished attempts as OpenTelemetry traces: a span for the attempt, and
// one below it for each of its phases.
package traces

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/job"
)

const (
	sendTimeout  = 30 * time.Second // of a batch, with its retries
	batchDelay   = 5 * time.Second  // after which a batch is sent although it is not full
	maxAttribute = 256              // characters of an attribute's value
)

// Config is what New needs.
type Config struct {
	Endpoint string // URL to which OTLP is posted, such as http://collector:4318/v1/traces
	Version  string // of the agent
	Node     string // its address
	Log      *zap.Logger
}

// Exporter sends spans in the background. What the collector does not take is dropped: a queue of
// bounded length holds nothing up.
type Exporter struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// New returns an exporter. It does not connect. OTEL_EXPORTER_OTLP_HEADERS and, with https,
// OTEL_EXPORTER_OTLP_CERTIFICATE apply; New fails where one of them cannot be used. It sets the
// logger and the error handler of OpenTelemetry, which are global.
func New(ctx context.Context, cfg Config) (*Exporter, error) {
	otel.SetLogger(logr.Discard()) // shows the values of malformed variables
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		cfg.Log.Warn("error in the export of traces", zap.String("error", safetext.Shorten(safetext.Line(err.Error()), maxAttribute)))
	}))
	headers, err := headersFromEnvironment()
	if err != nil {
		return nil, err
	}
	client, err := newHTTPClient(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	// These options are given even where they are the defaults: the SDK would take what is left out
	// from OTEL_ variables, and some of their values panic or export nothing.
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(cfg.Endpoint), otlptracehttp.WithHTTPClient(client), otlptracehttp.WithTLSClientConfig(nil),
		otlptracehttp.WithHeaders(headers),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: sendTimeout, MaxElapsedTime: sendTimeout}))
	if err != nil {
		return nil, fmt.Errorf("creating the exporter of traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&reporter{SpanExporter: exporter, secrets: secretsOf(headers), log: cfg.Log},
			sdktrace.WithMaxQueueSize(sdktrace.DefaultMaxQueueSize), sdktrace.WithMaxExportBatchSize(sdktrace.DefaultMaxExportBatchSize),
			sdktrace.WithBatchTimeout(batchDelay), sdktrace.WithExportTimeout(sendTimeout)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{AttributeValueLengthLimit: maxAttribute, AttributeCountLimit: sdktrace.DefaultAttributeCountLimit}),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "ffmpeg-agent"), attribute.String("service.version", cfg.Version), attribute.String("host.name", cfg.Node))))
	return &Exporter{provider: provider, tracer: provider.Tracer("ffmpeg-agent")}, nil
}

// Ended exports an attempt. Its span is a child of the job's traceparent, where the master sent
// a valid one, and is not exported where that is marked as not sampled.
func (e *Exporter) Ended(o *job.Outcome, phases []job.PhaseSpan) {
	if len(phases) == 0 {
		return
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": o.Lease.Job.TraceParent})
	attributes := []attribute.KeyValue{
		text("job.id", o.Lease.Job.ID), attribute.Int("job.attempt", o.Lease.Key().Attempt), text("job.scenario", o.Lease.Job.Scenario),
		attribute.String("job.status", string(o.Status())), text("job.encoder", o.Encode.Encoder),
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
	span.End(trace.WithTimestamp(phases[len(phases)-1].To))
}

// text is an attribute of bounded length. The SDK's limit would keep the whole value in memory.
func text(name, value string) attribute.KeyValue {
	return attribute.String(name, safetext.Shorten(value, maxAttribute))
}

// Close sends what is queued, until ctx ends.
func (e *Exporter) Close(ctx context.Context) error {
	if err := e.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("sending the last traces: %w", err)
	}
	return nil
}
