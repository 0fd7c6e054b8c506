package exporters

import (
	"fmt"
	"math"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/messages"
)

// collector exports the metrics of an update function, plus whether it succeeded and how
// long it took. If update panics, none of its metrics are exported. Concurrent scrapes
// collect one after the other.
type collector struct {
	name              string
	descs             []*prometheus.Desc
	success, duration *prometheus.Desc
	update            func(*metrics)

	mu sync.Mutex
}

var _ prometheus.Collector = (*collector)(nil)

// newCollector returns a collector for the given descriptions. update adds the current
// metrics.
func newCollector(name string, descs []*prometheus.Desc, update func(*metrics)) *collector {
	label := prometheus.Labels{"collector": name}
	return &collector{
		name: name, descs: descs, update: update,
		success:  prometheus.NewDesc("exporter_collector_success", "Whether the collector succeeded.", nil, label),
		duration: prometheus.NewDesc("exporter_collector_duration_seconds", "Duration of the collection.", nil, label),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
	ch <- c.success
	ch <- c.duration
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	start := time.Now()
	all, err := c.collect()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.success, err) // makes promhttp log the error
	}
	for _, m := range all {
		ch <- m
	}
	ch <- prometheus.MustNewConstMetric(c.success, prometheus.GaugeValue, oneIf(err == nil))
	ch <- prometheus.MustNewConstMetric(c.duration, prometheus.GaugeValue, time.Since(start).Seconds())
}

func (c *collector) collect() (all []prometheus.Metric, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		if cause := recover(); cause != nil {
			all, err = nil, fmt.Errorf("collector %s panicked: %v\n%s", c.name, cause, debug.Stack())
		}
	}()
	var m metrics
	c.update(&m)
	return m.all, nil
}

// metrics gathers the result of one collection.
type metrics struct{ all []prometheus.Metric }

func (m *metrics) gauge(d *prometheus.Desc, value float64, labels ...string) {
	m.add(d, prometheus.GaugeValue, value, labels)
}

func (m *metrics) counter(d *prometheus.Desc, value float64, labels ...string) {
	m.add(d, prometheus.CounterValue, value, labels)
}

// flag adds a gauge with the value 1 or 0.
func (m *metrics) flag(d *prometheus.Desc, on bool, labels ...string) {
	m.gauge(d, oneIf(on), labels...)
}

// age adds a gauge of the time since then, unless then is nil or zero.
func (m *metrics) age(d *prometheus.Desc, now time.Time, then *time.Time, labels ...string) {
	if then != nil && !then.IsZero() {
		m.gauge(d, max(now.Sub(*then), 0).Seconds(), labels...)
	}
}

// timestamp adds a gauge of a time since the Unix epoch, unless then is nil or zero.
func (m *metrics) timestamp(d *prometheus.Desc, then *time.Time, labels ...string) {
	if then != nil && !then.IsZero() {
		m.gauge(d, float64(then.UnixMilli())/1000, labels...)
	}
}

func (m *metrics) histogram(d *prometheus.Desc, h *messages.Histogram, labels ...string) {
	m.all = append(m.all, prometheus.MustNewConstHistogram(d, h.Count, h.Sum, h.Cumulative(), labels...))
}

// add skips values that are not finite, because an unknown value must have no series.
func (m *metrics) add(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels []string) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return
	}
	for i, l := range labels {
		labels[i] = validUTF8(l)
	}
	m.all = append(m.all, prometheus.MustNewConstMetric(d, kind, value, labels...))
}

// validUTF8 replaces invalid bytes, which Prometheus rejects in labels. Different texts
// may become equal.
func validUTF8(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func oneIf(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// describer creates the descriptions of a collector and lists them in all.
type describer struct{ all []*prometheus.Desc }

func (d *describer) desc(name, help string, labels ...string) *prometheus.Desc {
	desc := prometheus.NewDesc(name, help, labels, nil)
	d.all = append(d.all, desc)
	return desc
}
