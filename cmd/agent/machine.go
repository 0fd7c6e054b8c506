package main

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware"
	"ffmpeg-agent/internal/docker"
	"ffmpeg-agent/internal/ffmpeg"
	"ffmpeg-agent/messages"
)

// sensors are the dependencies that read this machine.
func sensors(cfg configs.Config) actors.Dependencies {
	return actors.Dependencies{
		Host:       newHost(cfg),
		OpenPower:  func() (actors.PowerSensors, error) { return openPower(cfg) },
		OpenGPUs:   func() (actors.GPUSensors, error) { return openGPUs(cfg) },
		Containers: containers(cfg),
		CPUUse: func() (busy, capacity time.Duration, err error) {
			return hardware.CPUUse(cfg.Hardware.ProcfsPath)
		},
	}
}

// containers is nil where nobody serves them.
func containers(cfg configs.Config) actors.Containers {
	if !cfg.Exporters.Docker.Enabled {
		return nil
	}
	return engine{docker.New(cfg.Hardware.DockerSocket)}
}

// engine implements actors.Containers.
type engine struct{ *docker.Engine }

func (e engine) Read(ctx context.Context) ([]messages.Container, error) {
	running, err := e.Engine.Read(ctx)
	if errors.Is(err, docker.ErrNoEngine) {
		return nil, &actors.NoSensorsError{Reason: err}
	}
	return running, err
}

func openPower(cfg configs.Config) (actors.PowerSensors, error) {
	return hardware.OpenCPUPower(hardware.CPUPowerConfig{
		SysfsPath:  cfg.Hardware.SysfsPath,
		ProcfsPath: cfg.Hardware.ProcfsPath,
		Estimate:   cfg.Energy.Estimate,
		IdleWatts:  cfg.Energy.CPUIdleWatts,
		MaxWatts:   cfg.Energy.CPUMaxWatts,
	})
}

func openGPUs(cfg configs.Config) (actors.GPUSensors, error) {
	gpus, err := hardware.OpenNVML(nvmlConfig(cfg))
	switch {
	case errors.Is(err, hardware.ErrNoNVML):
		return nil, &actors.NoSensorsError{Reason: err}
	case err != nil:
		return nil, err
	}
	return gpus, nil
}

// host implements actors.Host.
type host struct{ *hardware.Host }

func newHost(cfg configs.Config) actors.Host {
	return host{hardware.NewHost(hardware.HostConfig{Roots: hardwareRoots(cfg), DataDir: cfg.DataDir})}
}

func hardwareRoots(cfg configs.Config) hardware.Roots {
	return hardware.Roots{SysfsPath: cfg.Hardware.SysfsPath, ProcfsPath: cfg.Hardware.ProcfsPath, CgroupPath: "/sys/fs/cgroup"}
}

func (h host) Look(context.Context) (messages.HostStatus, error) {
	s, err := h.Host.Status()
	return messages.HostStatus{
		CPULoadPercent:     s.CPULoadPercent,
		RAMFreeBytes:       s.RAMFree,
		RAMTotalBytes:      s.RAMTotal,
		NetworkLoadPercent: s.NetworkLoadPercent,
		DiskFreeBytes:      s.DiskFree,
		DiskTotalBytes:     s.DiskTotal,
		InodesFree:         s.InodesFree,
		InodesTotal:        s.InodesTotal,
		TemperatureC:       s.TemperatureCelsius,
		Throttled:          s.Throttled != nil && *s.Throttled,
	}, err
}

// nodeFacts describes this machine to the master. Facts that could be determined are valid
// even with an error.
func nodeFacts(cfg configs.Config) (messages.NodeFacts, error) {
	found, err := hardware.Detect(hardwareRoots(cfg))
	facts := messages.NodeFacts{
		Address:       cfg.Node.Address,
		Type:          cfg.Node.Type,
		CPUModel:      found.CPUModel,
		CPUThreads:    found.CPUThreads,
		RAMTotalBytes: found.RAMTotal,
	}
	if facts.Type == "auto" {
		facts.Type = found.NodeType
	}
	facts.Labels = map[string]string{
		messages.LabelAgentVersion: version, "os": runtime.GOOS, "arch": runtime.GOARCH, "node_type": facts.Type,
	}
	maps.Copy(facts.Labels, cfg.Node.Labels)
	return facts, err
}

// prover adds the encoders that passed a trial encode to a node's facts.
type prover struct {
	runner   *ffmpeg.Runner
	facts    messages.NodeFacts
	graphics func() []hardware.Graphics
}

// first adds what is proved before the first registration: what is cached, else the hardware
// encoders that work. Where there is no hardware, none is tried.
func (p prover) first(ctx context.Context) (messages.NodeFacts, error) {
	cached, err := p.runner.CachedTrials()
	if err != nil {
		return p.facts, err
	}
	if len(cached.Capabilities()) > 0 || len(p.graphics()) == 0 {
		return p.proved(cached), nil
	}
	trials, err := p.runner.TryHardware(ctx)
	trials.Works = append(trials.Works, cached.Works...) // encoders that need no hardware
	return p.proved(trials), err
}

// all adds what all trials prove.
func (p prover) all(ctx context.Context) (messages.NodeFacts, error) {
	trials, err := p.runner.TryEncoders(ctx)
	if err != nil {
		return p.facts, err
	}
	return p.proved(trials), nil
}

func (p prover) proved(trials ffmpeg.Trials) messages.NodeFacts {
	facts := p.facts
	if len(trials.Works) == 0 {
		return facts
	}
	facts.Labels = maps.Clone(facts.Labels)
	facts.Labels[messages.LabelEncoders] = strings.Join(slices.Sorted(slices.Values(trials.Works)), ",")
	if facts.GPUCapabilities = trials.Capabilities(); len(facts.GPUCapabilities) > 0 {
		facts.GPUType = cardName(facts.GPUCapabilities, p.graphics())
	}
	return facts
}

// cardName is the name of the card that the proved encoders run on, that of nvenc first. Where
// no device was found, it is the encoders' family.
func cardName(capabilities []string, devices []hardware.Graphics) string {
	nvenc := slices.ContainsFunc(capabilities, func(c string) bool { return strings.HasPrefix(c, "nvenc_") })
	if i := slices.IndexFunc(devices, func(d hardware.Graphics) bool { return d.NVIDIA == nvenc }); i >= 0 {
		return devices[i].Name
	}
	if len(devices) > 0 {
		return devices[0].Name
	}
	family, _, _ := strings.Cut(capabilities[0], "_")
	return family
}
