package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"ffmpeg-agent/hardware"
	"ffmpeg-agent/messages"
)

// checkCPUEnergy reports the source of the processors' joules. RAPL is asked as the user
// that the agent runs as.
func checkCPUEnergy(_ context.Context, e *examination) []finding {
	sampler := e.sampler("rapl")
	if sampler != nil && sampler.Source == "rapl" && sampler.Error == "" {
		return []finding{passing("measured by RAPL, %s", plural(sampler.Zones, "zone"))}
	}
	rapl, err := hardware.OpenRAPL(e.cfg.Hardware.SysfsPath)
	var unreadable *hardware.UnreadableError
	switch {
	case err == nil:
		zones := len(rapl.Zones())
		_ = rapl.Close()
		if sampler == nil {
			return []finding{passing("measured by RAPL, %s", plural(zones, "zone"))}
		}
		return []finding{failed(e.allowRAPL(), "RAPL is there, but the agent, as user %s, does not read it: %s", userName(e.agentUID), samplerState(sampler))}
	case errors.As(err, &unreadable) && errors.Is(unreadable.Err, fs.ErrPermission):
		return []finding{failed(e.allowRAPL(), "user %s may not read %s: %v; energy is estimated", userName(e.agentUID), unreadable.Path, unreadable.Err)}
	case errors.As(err, &unreadable):
		return []finding{failed("sudo cat "+unreadable.Path, "%v", err)}
	}
	power, openErr := openPower(e.cfg.Config)
	if openErr != nil {
		return []finding{warning(e.change("energy.estimate", "auto"), "no energy: %v", openErr)}
	}
	defer power.Close()
	if power.Name() == "estimate" {
		return []finding{warning(e.change("energy.cpu_idle_watts", "watts of the idle processors, and energy.cpu_max_watts those at full load, for a narrower estimate"),
			"estimated, not measured: %v, as in most virtual machines", err)}
	}
	return []finding{passing("measured by %s", power.Name())}
}

// allowRAPL gives the agent's user access to the counters.
func (e *examination) allowRAPL() string {
	files := e.cfg.Hardware.SysfsPath + "/class/powercap/*/energy_uj"
	return fmt.Sprintf("sudo sh -c 'chgrp %[1]s %[2]s; chmod g+r %[2]s'   # until the next boot; the package's udev rule does it for good", userName(e.agentUID), files)
}

// sampler is the running agent's; nil where there is none.
func (e *examination) sampler(name string) *messages.SamplerHealth {
	if e.agent == nil {
		return nil
	}
	for i := range e.agent.Samplers {
		if e.agent.Samplers[i].Name == name {
			return &e.agent.Samplers[i]
		}
	}
	return nil
}

func samplerState(s *messages.SamplerHealth) string {
	if s.Error != "" {
		return s.Error
	}
	return "it uses " + s.Source
}

func (e *examination) hasNVIDIA() bool { return hardware.HasNVIDIACard(e.cfg.Hardware.SysfsPath) }

// checkGPU tries NVML.
func checkGPU(_ context.Context, e *examination) []finding {
	const driver = "sudo apt-get install nvidia-driver libnvidia-ml1   # then reboot; in a container: docker run --gpus all"
	cards, err := e.gpus()
	switch {
	case errors.Is(err, hardware.ErrNoNVML) && e.hasNVIDIA():
		return []finding{failed(driver, "this machine has an NVIDIA card, but %v", err)}
	case errors.Is(err, hardware.ErrNoNVML):
		return []finding{passing("no NVIDIA card")}
	case err != nil:
		return []finding{failed("nvidia-smi   # does the driver work?", "%v", err)}
	case len(cards) == 0:
		return []finding{passing("no NVIDIA card")}
	}
	if s := e.sampler("nvml"); s != nil && s.Error != "" {
		return []finding{failed("nvidia-smi   # then: journalctl -u ffmpeg-agent", "the running agent cannot read the cards: %s", s.Error)}
	}
	return []finding{passing("%s", strings.Join(cards, ", "))}
}

// gpus names the cards.
func (e *examination) gpus() ([]string, error) {
	nvml, err := hardware.OpenNVML(nvmlConfig(e.cfg.Config))
	if err != nil {
		return nil, err
	}
	defer nvml.Close() //nolint:errcheck // the next start of a child would show the same
	var names []string
	for _, c := range nvml.Cards() {
		names = append(names, c.Name)
	}
	return names, nil
}
