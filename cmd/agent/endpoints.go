package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/exporters"
	"ffmpeg-agent/hardware"
	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/messages"
)

// endpoints creates the servers of the metrics ports and of the control socket.
func (w *worker) endpoints(a *actors.Agent) (actors.Endpoints, error) {
	cfg := w.config.current()
	status := func() messages.Status { return w.statusOf(a) }
	servers, err := w.newServers(slices.Concat(w.agentPorts(a, status), w.powerPorts(a), w.containerPorts(a)))
	if err != nil {
		return actors.Endpoints{}, err
	}
	handlers := control.Handlers{
		Status: status,
		Drain:  func(context.Context) error { a.Drain(w.config.current().Shutdown.DrainTimeout); return nil },
		Undo:   func(ctx context.Context) error { return a.UndoDrain(ctx) },
		Reload: func(ctx context.Context) error { return a.ReloadNow(ctx) },
		Find:   w.journal.Find,
		Recent: w.journal.Recent,
	}
	if cfg.Debug.FaultInjection {
		handlers.Crash, handlers.Hang = a.Crash, a.Hang
	}
	socket := control.NewServer(cfg.Control.Socket, handlers, w.log.Named("control"))
	return actors.Endpoints{Exporters: servers, Control: socket}, nil
}

// statusOf is the status of the actors and of what else this process consists of. It never
// blocks.
func (w *worker) statusOf(a *actors.Agent) messages.Status {
	s := a.Status()
	s.Version, s.PID, s.Cgroups = version, os.Getpid(), w.runner.Cgroups()
	s.Master = w.config.current().Master.URL
	s.Sandbox = w.runner.Sandbox()
	s.Certificates = w.master.Certificates()
	s.LogLinesDropped = w.log.writer.droppedLines()
	return s
}

func (w *worker) newServers(ports []exporters.Config) ([]actors.Endpoint, error) {
	var servers []actors.Endpoint
	cfg := w.config.current()
	for _, port := range ports {
		port.Address, port.WebConfig = cfg.Exporters.ListenAddress, cfg.web
		port.Logger = w.log.Named(port.Name)
		server, err := exporters.NewServer(port)
		if err != nil {
			return nil, fmt.Errorf("setting up the metrics port %s: %w", port.Key, err)
		}
		w.config.onReload(func(c effective) error { server.SetWebConfig(c.web); return nil })
		servers = append(servers, server)
	}
	return servers, nil
}

// agentPorts are the enabled ports with metrics of the agent and of its jobs.
func (w *worker) agentPorts(a *actors.Agent, status func() messages.Status) []exporters.Config {
	cfg := w.config.current()
	var ports []exporters.Config
	if cfg.MetricsPort != 0 {
		collectors := append(exporters.NewRuntime(), exporters.NewAgent(status, a.Snapshots().Energy, exporters.BuildInfo{Version: version, Revision: revision}))
		if cfg.Exporters.FieldNames {
			collectors = append(collectors, exporters.NewField(exporters.FieldConfig{
				Status: status, Cards: a.Snapshots().GPUs, Facts: a.Facts, StaleAfter: w.staleAfter,
			}))
		}
		routes := exporters.PageRoutes()
		routes["/health"] = exporters.HealthHandler(a.Live)
		routes["/ready"] = exporters.ReadyHandler(status)
		routes["/status"] = exporters.StatusHandler(status)
		routes["/jobs"] = exporters.JobsHandler(w.journal.Recent)
		routes["/report"] = exporters.RequireFullAccess(http.HandlerFunc(w.serveReport))
		ports = append(ports, exporters.Config{
			Name: "agent-metrics", Key: "metrics_port", Port: cfg.MetricsPort,
			Title: "ffmpeg-agent", Description: "The agent's jobs, heartbeats, actors and journal.",
			Collectors: collectors,
			Routes:     routes,
		})
	}
	if cfg.Exporters.FFmpeg.Enabled {
		ports = append(ports, exporters.Config{
			Name: "ffmpeg-metrics", Key: "exporters.ffmpeg.port", Port: cfg.Exporters.FFmpeg.Port,
			Title: "FFmpeg", Description: "Running encodes.",
			Collectors: []prometheus.Collector{exporters.NewFFmpeg(status, func() exporters.EncodeTotals {
				ended := a.Ended()
				return exporters.EncodeTotals{Frames: uint64(ended.Frames), Dropped: uint64(ended.Dropped), Media: ended.Media}
			})},
		})
	}
	return ports
}

// powerPorts are the enabled ports with metrics of this machine's power.
func (w *worker) powerPorts(a *actors.Agent) []exporters.Config {
	cfg := w.config.current()
	var ports []exporters.Config
	if cfg.Exporters.CPU.Enabled {
		ports = append(ports, exporters.Config{
			Name: "cpu-metrics", Key: "exporters.cpu.port", Port: cfg.Exporters.CPU.Port,
			Title: "CPU power", Description: "CPU power and energy, measured or, under names of their own, estimated.",
			Collectors: []prometheus.Collector{exporters.NewCPU(a.Snapshots().Energy, exporters.CPUConfig{
				Version: version, StaleAfter: w.staleAfter, CountRAPLZones: func() int { return hardware.CountRAPLZones(cfg.Hardware.SysfsPath) },
			})},
		})
	}
	if cfg.Exporters.GPU.Enabled {
		ports = append(ports, exporters.Config{
			Name: "gpu-metrics", Key: "exporters.gpu.port", Port: cfg.Exporters.GPU.Port,
			Title: "GPUs", Description: "NVIDIA GPUs: power, energy, utilization, memory, clocks, temperature.",
			Collectors: []prometheus.Collector{exporters.NewGPU(a.Snapshots().GPUs, a.Snapshots().Energy, exporters.GPUConfig{
				Version: version, StaleAfter: w.staleAfter,
			})},
		})
	}
	return ports
}

// containerPorts are the enabled ports with metrics of containers.
func (w *worker) containerPorts(a *actors.Agent) []exporters.Config {
	cfg := w.config.current()
	if !cfg.Exporters.Docker.Enabled {
		return nil
	}
	return []exporters.Config{{
		Name: "docker-metrics", Key: "exporters.docker.port", Port: cfg.Exporters.Docker.Port,
		Title: "Docker containers", Description: "CPU, memory, network and block I/O of running containers.",
		Collectors: []prometheus.Collector{exporters.NewDocker(a.Snapshots().Containers)},
	}}
}

// staleAfter is the age from which a reading is no longer exported as current.
func (w *worker) staleAfter() time.Duration {
	return max(10*time.Second, 3*w.config.current().Energy.IdleInterval)
}
