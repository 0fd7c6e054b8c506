package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"ffmpeg-agent/hardware/fakehw"
	"ffmpeg-agent/messages/protocol"
)

var (
	errNoCards = fmt.Errorf("%w: this run has no fake cards", errUnavailable)
	errNoDisk  = fmt.Errorf("%w: no file system of its own could be mounted", errUnavailable)
)

// hostKinds are faults of the agent's machine.
func hostKinds() []Kind {
	rapl := func(name string, weight float64, play func(*injector) (undo func() error, err error)) Kind {
		return Kind{Name: name, Weight: weight, inject: func(ctx context.Context, s *injector) (effect, error) { return s.injectRAPL(ctx, play) }}
	}
	nvml := func(name string, weight float64, change func(*fakehw.NVMLScenario)) Kind {
		return Kind{Name: name, Weight: weight, inject: func(ctx context.Context, s *injector) (effect, error) { return s.injectNVML(ctx, change) }}
	}
	return []Kind{
		{Name: "disk: data full", Weight: 0.8, Exclusive: true, inject: fillDataDisk},
		{Name: "disk: outputs full", Weight: 0.8, inject: fillOutputDisk},
		rapl("rapl: zone vanishes", 2, func(s *injector) (func() error, error) { z := pick(s, s.zones); return z.Restore, z.Remove() }),
		rapl("rapl: counter cannot be read", 2, func(s *injector) (func() error, error) { z := pick(s, s.zones); return z.Repair, z.Break() }),
		rapl("rapl: counter starts over", 2, func(s *injector) (func() error, error) {
			return func() error { return nil }, s.zones[0].Reset()
		}),
		rapl("rapl: driver unloaded", 1, func(s *injector) (func() error, error) { return s.tree.LoadPowercap, s.tree.UnloadPowercap() }),
		nvml("nvml: call hangs", 1, func(c *fakehw.NVMLScenario) { c.Hang = "nvmlDeviceGetPowerUsage" }),
		nvml("nvml: call crashes", 1, func(c *fakehw.NVMLScenario) { c.Crash = "nvmlDeviceGetPowerUsage" }),
		nvml("nvml: card lost", 1, func(c *fakehw.NVMLScenario) { c.Cards[0].Fail = map[string]int{"*": fakehw.NVMLGPUIsLost} }),
		nvml("nvml: driver gone", 1, func(c *fakehw.NVMLScenario) {
			c.Fail = map[string]int{"nvmlInit_v2": fakehw.NVMLDriverNotLoaded, "nvmlDeviceGetPowerUsage": fakehw.NVMLDriverNotLoaded}
			c.Cards = nil
		}),
	}
}

// injectRAPL changes the fake counters, waits until the agent's metrics show it, and undoes
// it.
func (s *injector) injectRAPL(ctx context.Context, play func(*injector) (func() error, error)) (effect, error) {
	s.raplMu.Lock()
	defer s.raplMu.Unlock()
	process := s.processNumber()
	before, err := scrape(ctx, s.http, s.metricsAddress())
	if err != nil {
		return effect{}, err
	}
	undo, err := play(s)
	if err != nil {
		if undo != nil {
			err = errors.Join(err, undo())
		}
		return effect{}, err
	}
	seen := ""
	for seen == "" && ctx.Err() == nil {
		if now, err := scrape(ctx, s.http, s.metricsAddress()); err == nil && s.processNumber() == process {
			for _, name := range []string{"ffmpeg_agent_energy_gaps_total", "ffmpeg_agent_energy_faults_total", "ffmpeg_agent_sampler_faults_total"} {
				if now[name] > before[name] {
					seen = fmt.Sprintf("%s %v → %v", name, before[name], now[name])
				}
			}
			if now["ffmpeg_agent_sampler_zones"] < before["ffmpeg_agent_sampler_zones"] {
				seen = fmt.Sprintf("zones %v → %v", before["ffmpeg_agent_sampler_zones"], now["ffmpeg_agent_sampler_zones"])
			}
		}
		if s.processNumber() != process {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(statusInterval):
		}
	}
	if err := undo(); err != nil {
		s.abort(fmt.Errorf("mending the fake counters: %w", err))
	}
	if seen == "" {
		return effect{}, errors.New("the agent's metrics do not show it")
	}
	return observed("%s", seen), nil
}

// injectNVML changes what the fake library does, waits until the agent says so or
// replaces its child, and changes it back.
func (s *injector) injectNVML(ctx context.Context, change func(*fakehw.NVMLScenario)) (effect, error) {
	if s.cards == nil {
		return effect{}, errNoCards
	}
	s.nvmlMu.Lock()
	defer s.nvmlMu.Unlock()
	child, err := s.awaitSamplerChild(ctx, 0)
	if err != nil {
		return effect{}, err
	}
	_, zones := s.status().sampler("nvml")
	if err := s.cards.Change(change); err != nil {
		return effect{}, err
	}
	defer func() {
		if err := s.cards.Set(healthyCards()); err != nil {
			s.abort(fmt.Errorf("mending the fake cards: %w", err))
		}
	}()
	seen := s.awaitStatus(ctx, func(st *agentStatus) string {
		if trouble, now := st.sampler("nvml"); st.PID != 0 && (trouble != "" || now < zones) {
			return fmt.Sprintf("zones %d → %d, %s", zones, now, trouble)
		}
		if _, alive := child.refresh(); !alive {
			return fmt.Sprintf("child %d is gone", child.PID)
		}
		return ""
	})
	if seen == "" {
		return effect{}, errors.New("the agent does not show it")
	}
	return observed("%s", seen), nil
}

// healthyCards are the fake cards without a fault.
func healthyCards() fakehw.NVMLScenario {
	return fakehw.NVMLScenario{Update: 20 * time.Millisecond, Cards: fakehw.NVMLCards(70)}
}

// fillDataDisk fills the disk of the agent's data folder.
func fillDataDisk(ctx context.Context, s *injector) (effect, error) {
	if !s.data.mounted {
		return effect{}, errNoDisk
	}
	s.blocked.Add(1)
	defer s.blocked.Add(-1)
	least := time.After(s.between(time.Second, 3*time.Second))
	undo := s.fillDisk(s.data)
	defer undo()
	seen := s.awaitStatus(ctx, func(st *agentStatus) string {
		for _, c := range st.Checks {
			if (c.Name == "disk" || c.Name == "journal") && c.Reason != "" {
				return c.Reason
			}
		}
		return st.Journal.Error
	})
	<-least
	if seen == "" {
		return effect{}, errors.New("the agent does not show it")
	}
	return observed("%s", seen), nil
}

// fillOutputDisk fills the disk of the final outputs, which all agents write to, until a
// job fails for it.
func fillOutputDisk(ctx context.Context, s *injector) (effect, error) {
	if !s.outputDisk.mounted {
		return effect{}, errNoDisk
	}
	if !s.outputMu.TryLock() {
		return effect{}, fmt.Errorf("%w: it is full already", errNoTarget)
	}
	defer s.outputMu.Unlock()
	undo := s.fillDisk(s.outputDisk)
	defer undo()
	x, ok := s.recorder.awaitExchange(ctx, s.started, func(x *Exchange) bool {
		return x.Result != nil && x.Result.Status == protocol.StatusFailed && x.Result.FailureReason == protocol.ReasonResourceError
	})
	if !ok {
		return effect{}, errors.New("no job failed for it")
	}
	return observed("%s: %s", x.Result.JobID, x.Result.Error), nil
}

// fillDisk fills a disk until the undo.
func (s *injector) fillDisk(d *disk) (undo func()) {
	stop, filled := make(chan struct{}), make(chan error, 1)
	go func() { filled <- d.fill(stop) }()
	return func() {
		close(stop)
		if err := <-filled; err != nil {
			s.abort(fmt.Errorf("filling a disk: %w", err))
		}
		if err := d.free(); err != nil && !os.IsNotExist(err) {
			s.abort(fmt.Errorf("freeing a disk: %w", err))
		}
	}
}
