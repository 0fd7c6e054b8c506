package main

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware"
	"ffmpeg-agent/messages"
)

// sensors are the dependencies that read this machine.
func sensors(cfg configs.Config) actors.Dependencies {
	return actors.Dependencies{
		Host:      newHost(cfg),
		OpenPower: func() (actors.PowerSensors, error) { return openPower(cfg) },
		OpenGPUs:  func() (actors.GPUSensors, error) { return openGPUs(cfg) },
		CPUUse: func() (busy, capacity time.Duration, err error) {
			return hardware.CPUUse(cfg.Hardware.ProcfsPath)
		},
	}
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
	return hardware.Roots{SysfsPath: cfg.Hardware.SysfsPath, ProcfsPath: cfg.Hardware.ProcfsPath}
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
		Labels:        map[string]string{"agent_version": version},
	}
	if facts.Type == "auto" {
		facts.Type = found.NodeType
	}
	maps.Copy(facts.Labels, cfg.Node.Labels)
	return facts, err
}

// tryEncoders adds the encoders that passed a trial encode to the facts.
func (w *worker) tryEncoders(ctx context.Context, facts messages.NodeFacts) (messages.NodeFacts, error) {
	trials, err := w.runner.TryEncoders(ctx)
	if err != nil {
		return facts, err
	}
	facts.GPUCapabilities = trials.Capabilities()
	if len(facts.GPUCapabilities) > 0 {
		facts.GPUType, _, _ = strings.Cut(facts.GPUCapabilities[0], "_")
	}
	facts.Labels = maps.Clone(facts.Labels)
	facts.Labels["encoders"] = strings.Join(trials.Works, ",")
	return facts, nil
}
