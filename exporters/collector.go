package exporters

import (
	"fmt"
	"math"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector turns a snapshot into metrics, all or none, and says how that went. It
// collects for one scraper at a time.
type collector struct {
	name              string
	descs             []*prometheus.Desc
	success, duration *prometheus.Desc
	update            func(*metrics)

	mu sync.Mutex
}

var _ prometheus.Collector = (*collector)(nil)

// newCollector is made of descriptions and of what turns the present state into
// metrics of those.
func newCollector(name string, descs []*prometheus.Desc, update func(*metrics)) *collector {
	label := prometheus.Labels{"collector": name}
	return &collector{
		name: name, descs: descs, update: update,
		success:  prometheus.NewDesc("exporter_collector_success", "Whether this collection succeeded.", nil, label),
		duration: prometheus.NewDesc("exporter_collector_duration_seconds", "How long this collection took.", nil, label),
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
	begun := time.Now()
	all, err := c.collect()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.success, err) // for the scrape's error log
	}
	for _, m := range all {
		ch <- m
	}
	ch <- prometheus.MustNewConstMetric(c.success, prometheus.GaugeValue, oneIf(err == nil))
	ch <- prometheus.MustNewConstMetric(c.duration, prometheus.GaugeValue, time.Since(begun).Seconds())
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

// metrics is what one collection brings.
type metrics struct{ all []prometheus.Metric }

func (m *metrics) gauge(d *prometheus.Desc, value float64, labels ...string) {
	m.add(d, prometheus.GaugeValue, value, labels)
}

func (m *metrics) counter(d *prometheus.Desc, value float64, labels ...string) {
	m.add(d, prometheus.CounterValue, value, labels)
}

// flag is a gauge of 1 or 0.
func (m *metrics) flag(d *prometheus.Desc, on bool, labels ...string) {
	m.gauge(d, oneIf(on), labels...)
}

// add leaves out what is no finite number: an unknown figure has no series.
func (m *metrics) add(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels []string) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return
	}
	for i, l := range labels {
		labels[i] = valid(l)
	}
	m.all = append(m.all, prometheus.MustNewConstMetric(d, kind, value, labels...))
}

// valid is a label's value as Prometheus takes it. Two different texts may become one.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func oneIf(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// describer makes the descriptions of one collector and remembers them.
type describer struct{ all []*prometheus.Desc }

func (d *describer) desc(name, help string, labels ...string) *prometheus.Desc {
	desc := prometheus.NewDesc(name, help, labels, nil)
	d.all = append(d.all, desc)
	return desc
}
