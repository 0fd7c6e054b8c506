package exporters_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/exporters"
	"ffmpeg-agent/messages"
)

func container(id, name string) messages.Container {
	return messages.Container{
		ID: id + "0123456789abcdef", Name: name, CPUPercent: pointer(151.5), CPUTime: 90 * time.Second, MemoryBytes: 256 << 20, MemoryLimitBytes: 1 << 30,
		NetworkReceived: pointer(uint64(1000)), NetworkSent: pointer(uint64(2000)), BlockRead: 3000, BlockWritten: 4000,
	}
}

func scrapeDocker(t *testing.T, c *messages.Containers) string {
	t.Helper()
	return scrapeOf(t, exporters.NewDocker(func() *messages.Containers { return c }))
}

func TestDocker(t *testing.T) {
	first := container("abcd", "db") // of the network of another, and just started
	first.CPUPercent, first.NetworkReceived, first.NetworkSent = nil, nil, nil
	scrape := scrapeDocker(t, &messages.Containers{At: time.Now(), Running: []messages.Container{container("1234", "web"), first}})
	golden(t, "docker", scrape)
	lint(t, scrape, "docker_containers_total")
}

func TestDockerSeriesOfDeadContainersGoAway(t *testing.T) {
	now := &messages.Containers{At: time.Now(), Running: []messages.Container{container("1234", "web")}}
	server := serve(t, exporters.Config{Name: "docker", Collectors: []prometheus.Collector{exporters.NewDocker(func() *messages.Containers { return now })}})
	wantValue(t, server.scrape(), `docker_container_cpu_percent{container="web",id="123401234567"}`, "151.5")
	now = &messages.Containers{At: time.Now()}
	scrape := server.scrape()
	wantValue(t, scrape, "docker_containers_total", "0")
	wantAbsent(t, scrape, "docker_container_")
}

func TestDockerEngineThatCannotBeRead(t *testing.T) {
	running := []messages.Container{container("1234", "web")}
	for name, now := range map[string]*messages.Containers{
		"not read so far": nil,
		"no engine":       {At: time.Now(), Absent: "no engine", Running: running},
		"forbidden":       {At: time.Now(), Error: "permission denied", Running: running},
		"hangs":           {At: time.Now().Add(-time.Minute), Running: running},
	} {
		t.Run(name, func(t *testing.T) {
			scrape := scrapeDocker(t, now)
			wantValue(t, scrape, "docker_stats_exporter_up", "0")
			wantAbsent(t, scrape, "docker_container")
		})
	}
}
