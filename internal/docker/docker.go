// Package docker reads what the running containers of a Docker engine use, through the
// engine's API on its unix socket. It has no metrics and keeps nothing but the previous
// reading, from which it derives the use of CPU.
package docker

import (
	"cmp"
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

// How long the engine may take for the list of the containers, and for the figures of one. A
// reading takes no longer than both, and a second for each maxCalls containers.
const (
	listTimeout  = 4 * time.Second
	statsTimeout = 4 * time.Second
)

// ErrNoEngine means that this machine has no engine at the socket.
var ErrNoEngine = errors.New("no container engine")

// Engine is a container engine. One goroutine at a time may use it.
type Engine struct {
	socket   string
	client   *client.Client // nil: to be made
	previous map[string]container.CPUStats

	statsTimeout time.Duration
}

// New returns the engine at a unix socket. It makes no connection.
func New(socket string) *Engine { return &Engine{socket: socket, statsTimeout: statsTimeout} }

// Read reads all running containers. The error wraps ErrNoEngine where there is no socket, and
// fs.ErrPermission where this process may not use it. A container that ends meanwhile is left
// out, one whose figures do not come in time is Unread.
func (e *Engine) Read(ctx context.Context) ([]messages.Container, error) {
	if err := e.connect(); err != nil {
		return nil, err
	}
	containers, err := e.read(ctx)
	if err != nil {
		e.Close() // the engine may be another one when it comes back
		return nil, e.explain(err)
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

func (e *Engine) explain(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("container engine at %s (hardware.docker_socket): no answer within %s", e.socket, listTimeout)
	case errors.Is(err, fs.ErrPermission), strings.Contains(err.Error(), "permission denied"):
		return fmt.Errorf("%w: this process may not use %s (hardware.docker_socket); allow its user, who could then do "+
			"anything on this machine, or set exporters.docker.enabled to false", fs.ErrPermission, e.socket)
	}
	return fmt.Errorf("container engine at %s (hardware.docker_socket): %w", e.socket, err)
}

func (e *Engine) read(ctx context.Context) ([]messages.Container, error) {
	list, err := e.list(ctx)
	if err != nil {
		return nil, err
	}
	samples, late := e.sample(ctx, list.Items)
	if n := len(list.Items); ctx.Err() != nil || n > 0 && late == n {
		return nil, cmp.Or(ctx.Err(), context.DeadlineExceeded)
	}
	all := make([]messages.Container, 0, len(list.Items))
	current := map[string]container.CPUStats{}
	for i, item := range list.Items {
		before, known := e.previous[item.ID]
		switch stats := samples[i]; {
		case stats == nil:
			c := identify(item)
			c.Unread = true
			all = append(all, c)
			if known {
				current[item.ID] = before
			}
		case !stats.Read.IsZero(): // else it has ended
			c := convert(item, stats)
			if known {
				c.CPUPercent = cpuPercent(before, stats.CPUStats)
			}
			current[item.ID] = stats.CPUStats
			all = append(all, c)
		}
	}
	e.previous = current
	return all, nil
}

func (e *Engine) list(ctx context.Context) (client.ContainerListResult, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	return e.client.ContainerList(ctx, client.ContainerListOptions{})
}

// maxCalls bounds the calls to the engine at a time.
const maxCalls = 32

// sample takes a sample of each container, an empty one where it has ended, and nil where that
// takes too long; late is how many those are. The calls overlap, because engines answer one only
// when they read the container next, up to a second later.
func (e *Engine) sample(ctx context.Context, items []container.Summary) (samples []*container.StatsResponse, late int) {
	ctx, cancel := context.WithTimeout(ctx, e.statsTimeout+time.Duration(len(items)/maxCalls)*time.Second)
	defer cancel()
	samples = make([]*container.StatsResponse, len(items))
	slots := make(chan struct{}, maxCalls)
	var calls sync.WaitGroup
	for i, item := range items {
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			stats, err := e.stats(ctx, item.ID)
			if !errors.Is(err, context.DeadlineExceeded) {
				samples[i] = &stats
			}
		})
	}
	calls.Wait()
	for _, s := range samples {
		if s == nil {
			late++
		}
	}
	return samples, late
}

// stats takes one sample. The engine would need a second or two for another one to compare with.
func (e *Engine) stats(ctx context.Context, id string) (stats container.StatsResponse, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.statsTimeout)
	defer cancel()
	result, err := e.client.ContainerStats(ctx, id, client.ContainerStatsOptions{})
	if err != nil {
		return stats, err
	}
	defer result.Body.Close()
	if err := json.NewDecoder(result.Body).Decode(&stats); err != nil {
		return container.StatsResponse{}, errors.Join(err, ctx.Err())
	}
	return stats, nil
}

func identify(item container.Summary) messages.Container {
	c := messages.Container{ID: item.ID, Name: item.ID}
	if len(item.Names) > 0 {
		c.Name = strings.TrimPrefix(item.Names[0], "/")
	}
	return c
}

func convert(item container.Summary, s *container.StatsResponse) messages.Container {
	c := identify(item)
	c.CPUTime = time.Duration(s.CPUStats.CPUUsage.TotalUsage)
	c.MemoryBytes, c.MemoryLimitBytes = memoryUse(s.MemoryStats), s.MemoryStats.Limit
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
