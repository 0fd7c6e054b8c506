package exporters

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/messages"
)

// dockerCollector exports what containers use. A container that has ended has no series, nor
// has any while the engine cannot be read.
type dockerCollector struct {
	containers func() *messages.Containers

	up, total, unread                  *prometheus.Desc
	cpu, cpuSeconds                    *prometheus.Desc
	memory, memoryBytes, memoryLimit   *prometheus.Desc
	received, sent, blockRead, written *prometheus.Desc
}

// containersStaleAfter is the age from which a reading is no longer exported: the engine hangs.
const containersStaleAfter = 45 * time.Second

// NewDocker returns the collector of port 9501. containers returns what was last read; nil:
// nothing so far.
func NewDocker(containers func() *messages.Containers) prometheus.Collector {
	var d describer
	of := func(name, help string) *prometheus.Desc { return d.desc(name, help, "container", "id") }
	c := &dockerCollector{
		containers:  containers,
		up:          d.desc("docker_stats_exporter_up", "Whether the container engine can be read."),
		total:       d.desc("docker_containers_total", "Number of running containers."),
		unread:      d.desc("docker_containers_unread", "Number of running containers whose figures the engine did not give in time; they have no series."),
		cpu:         of("docker_container_cpu_percent", "CPU use over the last 10 seconds, as in docker stats: 100 is one CPU."),
		cpuSeconds:  of("docker_container_cpu_seconds_total", "CPU time used since the container started."),
		memory:      of("docker_container_memory_percent", "Memory use without inactive page cache, in percent of the limit, as in docker stats."),
		memoryBytes: of("docker_container_memory_usage_bytes", "Memory use without inactive page cache, as in docker stats."),
		memoryLimit: of("docker_container_memory_limit_bytes", "Memory limit; the memory of the machine if the container has none."),
		received:    of("docker_container_network_receive_bytes_total", "Bytes received over all interfaces since the container started."),
		sent:        of("docker_container_network_transmit_bytes_total", "Bytes sent over all interfaces since the container started."),
		blockRead:   of("docker_container_block_read_bytes_total", "Bytes read from block devices since the container started."),
		written:     of("docker_container_block_write_bytes_total", "Bytes written to block devices since the container started."),
	}
	return newCollector("docker", d.all, c.update)
}

func (c *dockerCollector) update(m *metrics) {
	now := c.containers()
	up := now != nil && now.Readable() && time.Since(now.At) < containersStaleAfter
	m.flag(c.up, up)
	if !up {
		return
	}
	m.gauge(c.total, float64(len(now.Running)))
	unread := 0
	for i := range now.Running {
		if now.Running[i].Unread {
			unread++
		} else {
			c.container(m, &now.Running[i])
		}
	}
	m.gauge(c.unread, float64(unread))
}

func (c *dockerCollector) container(m *metrics, of *messages.Container) {
	labels := []string{of.Name, shortID(of.ID)}
	if of.CPUPercent != nil {
		m.gauge(c.cpu, *of.CPUPercent, labels...)
	}
	m.counter(c.cpuSeconds, of.CPUTime.Seconds(), labels...)
	m.gauge(c.memoryBytes, float64(of.MemoryBytes), labels...)
	if of.MemoryLimitBytes > 0 {
		m.gauge(c.memory, 100*float64(of.MemoryBytes)/float64(of.MemoryLimitBytes), labels...)
		m.gauge(c.memoryLimit, float64(of.MemoryLimitBytes), labels...)
	}
	if of.NetworkReceived != nil && of.NetworkSent != nil {
		m.counter(c.received, float64(*of.NetworkReceived), labels...)
		m.counter(c.sent, float64(*of.NetworkSent), labels...)
	}
	m.counter(c.blockRead, float64(of.BlockRead), labels...)
	m.counter(c.written, float64(of.BlockWritten), labels...)
}

// shortID is an ID as docker shows it.
func shortID(id string) string { return id[:min(len(id), 12)] }
