// Package docker reads what the running containers of a Docker engine use, through the
// engine's API on its unix socket. It knows no metrics and keeps nothing but the previous
// reading, from which it derives the use of CPU.
package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"ffmpeg-agent/messages"
)

// readTimeout bounds one reading of all containers.
const readTimeout = 8 * time.Second

// ErrNoEngine means that this machine has no engine at the socket.
var ErrNoEngine = errors.New("no container engine")

// Engine is a container engine. One goroutine at a time may use it.
type Engine struct {
	socket   string
	client   *client.Client // nil: to be made
	previous map[string]container.CPUStats
}

// New returns the engine at a unix socket. It makes no connection.
func New(socket string) *Engine { return &Engine{socket: socket} }

// Read reads all running containers. The error wraps ErrNoEngine where there is no socket, and
// fs.ErrPermission where this process may not use it. A container that ends meanwhile is left out.
func (e *Engine) Read(ctx context.Context) ([]messages.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if err := e.connect(); err != nil {
		return nil, err
	}
	containers, err := e.read(ctx)
	if err != nil {
		e.Close() // the engine may be another one when it comes back
		return nil, e.explain(ctx, err)
	}
	return containers, nil
}

// Close closes the connection to the engine. A later Read opens a new one.
func (e *Engine) Close() {
	if e.client != nil {
		_ = e.client.Close()
		e.client = nil
	}
}

func (e *Engine) connect() error {
	if _, err := os.Stat(e.socket); errors.Is(err, fs.ErrNotExist) {
		e.Close()
		return fmt.Errorf("%w: %s does not exist (hardware.docker_socket)", ErrNoEngine, e.socket)
	}
	if e.client != nil {
		return nil
	}
	c, err := client.New(client.WithHost("unix://" + e.socket))
	if err != nil {
		return fmt.Errorf("container engine at %s (hardware.docker_socket): %w", e.socket, err)
	}
	e.client = c
	return nil
}

func (e *Engine) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		return fmt.Errorf("container engine at %s (hardware.docker_socket): no answer within %s", e.socket, readTimeout)
	case errors.Is(err, fs.ErrPermission), strings.Contains(err.Error(), "permission denied"):
		return fmt.Errorf("%w: this process may not use %s (hardware.docker_socket); allow its user, who could then do "+
			"anything on this machine, or set exporters.docker.enabled to false", fs.ErrPermission, e.socket)
	}
	return fmt.Errorf("container engine at %s (hardware.docker_socket): %w", e.socket, err)
}

func (e *Engine) read(ctx context.Context) ([]messages.Container, error) {
	list, err := e.client.ContainerList(ctx, client.ContainerListOptions{})
	if err != nil {
		return nil, err
	}
	samples := e.sample(ctx, list.Items)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	all := make([]messages.Container, 0, len(list.Items))
	current := map[string]container.CPUStats{}
	for i, item := range list.Items {
		stats := samples[i]
		if stats == nil || stats.Read.IsZero() { // it has ended
			continue
		}
		c := convert(item, stats)
		if before, known := e.previous[item.ID]; known {
			c.CPUPercent = cpuPercent(before, stats.CPUStats)
		}
		current[item.ID] = stats.CPUStats
		all = append(all, c)
	}
	e.previous = current
	return all, nil
}

// maxCalls bounds the calls to the engine at a time.
const maxCalls = 32

// sample takes a sample of each container, nil where that failed. The calls overlap, because
// engines answer one only when they read the container next, up to a second later.
func (e *Engine) sample(ctx context.Context, items []container.Summary) []*container.StatsResponse {
	samples := make([]*container.StatsResponse, len(items))
	slots := make(chan struct{}, maxCalls)
	var calls sync.WaitGroup
	for i, item := range items {
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			if stats, err := e.stats(ctx, item.ID); err == nil {
				samples[i] = &stats
			}
		})
	}
	calls.Wait()
	return samples
}

// stats takes one sample. The engine would need a second or two for another one to compare with.
func (e *Engine) stats(ctx context.Context, id string) (stats container.StatsResponse, err error) {
	result, err := e.client.ContainerStats(ctx, id, client.ContainerStatsOptions{})
	if err != nil {
		return stats, err
	}
	defer result.Body.Close()
	return stats, json.NewDecoder(result.Body).Decode(&stats)
}

func convert(item container.Summary, s *container.StatsResponse) messages.Container {
	c := messages.Container{
		ID: item.ID, Name: item.ID, CPUTime: time.Duration(s.CPUStats.CPUUsage.TotalUsage),
		MemoryBytes: memoryUse(s.MemoryStats), MemoryLimitBytes: s.MemoryStats.Limit,
	}
	if len(item.Names) > 0 {
		c.Name = strings.TrimPrefix(item.Names[0], "/")
	}
	if len(s.Networks) > 0 {
		var received, sent uint64
		for _, n := range s.Networks {
			received += n.RxBytes
			sent += n.TxBytes
		}
		c.NetworkReceived, c.NetworkSent = &received, &sent
	}
	for _, entry := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(entry.Op) { // Read on cgroup v1, read on v2
		case "read":
			c.BlockRead += entry.Value
		case "write":
			c.BlockWritten += entry.Value
		}
	}
	return c
}

// cpuPercent is the engine's own formula (calculateCPUPercentUnix of docker/cli): the
// container's share of the machine's CPU time, times the number of CPUs. nil where no time
// passed or a counter went backwards: the container was restarted.
func cpuPercent(before, now container.CPUStats) *float64 {
	used, passed := float64(now.CPUUsage.TotalUsage)-float64(before.CPUUsage.TotalUsage), float64(now.SystemUsage)-float64(before.SystemUsage)
	cpus := float64(now.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(now.CPUUsage.PercpuUsage))
	}
	if used < 0 || passed <= 0 || cpus == 0 {
		return nil
	}
	percent := used / passed * cpus * 100
	return &percent
}

// memoryUse is the memory in use without inactive page cache (calculateMemUsageUnixNoCache of
// docker/cli): total_inactive_file on cgroup v1, inactive_file on v2.
func memoryUse(m container.MemoryStats) uint64 {
	cache, v1 := m.Stats["total_inactive_file"]
	if !v1 {
		cache = m.Stats["inactive_file"]
	}
	if cache < m.Usage {
		return m.Usage - cache
	}
	return m.Usage
}
