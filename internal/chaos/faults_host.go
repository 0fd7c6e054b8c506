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
	errNoCards = fmt.Errorf("%w: this run has no fake cards", errNothing)
	errNoDisk  = fmt.Errorf("%w: no file system of its own could be mounted", errNothing)
)

// hostKinds are what befalls the agent's machine.
func hostKinds() []Kind {
	rapl := func(name string, weight float64, play func(*scene) (undo func() error, err error)) Kind {
		return Kind{Name: name, Weight: weight, play: func(ctx context.Context, s *scene) (effect, error) { return s.disturb(ctx, play) }}
	}
	nvml := func(name string, weight float64, change func(*fakehw.NVMLScenario)) Kind {
		return Kind{Name: name, Weight: weight, play: func(ctx context.Context, s *scene) (effect, error) { return s.cardTrouble(ctx, change) }}
	}
	return []Kind{
		{Name: "disk: data full", Weight: 0.8, Alone: true, play: dataFull},
		{Name: "disk: outputs full", Weight: 0.8, play: outputsFull},
		rapl("rapl: zone vanishes", 2, func(s *scene) (func() error, error) { z := one(s, s.zones); return z.Restore, z.Remove() }),
		rapl("rapl: counter cannot be read", 2, func(s *scene) (func() error, error) { z := one(s, s.zones); return z.Repair, z.Break() }),
		rapl("rapl: counter starts over", 2, func(s *scene) (func() error, error) {
			return func() error { return nil }, s.zones[0].Reset()
		}),
		rapl("rapl: driver unloaded", 1, func(s *scene) (func() error, error) { return s.tree.LoadPowercap, s.tree.UnloadPowercap() }),
		nvml("nvml: call hangs", 1, func(c *fakehw.NVMLScenario) { c.Hang = "nvmlDeviceGetPowerUsage" }),
		nvml("nvml: call crashes", 1, func(c *fakehw.NVMLScenario) { c.Crash = "nvmlDeviceGetPowerUsage" }),
		nvml("nvml: card lost", 1, func(c *fakehw.NVMLScenario) { c.Cards[0].Fail = map[string]int{"*": fakehw.NVMLGPUIsLost} }),
		nvml("nvml: driver gone", 1, func(c *fakehw.NVMLScenario) {
			c.Fail = map[string]int{"nvmlInit_v2": fakehw.NVMLDriverNotLoaded, "nvmlDeviceGetPowerUsage": fakehw.NVMLDriverNotLoaded}
			c.Cards = nil
		}),
	}
}

// disturb does something to the fake counters, waits until the agent's metrics tell of
// it, and undoes it.
func (s *scene) disturb(ctx context.Context, play func(*scene) (func() error, error)) (effect, error) {
	s.raplGate.Lock()
	defer s.raplGate.Unlock()
	life := s.life()
	before, err := scrape(ctx, s.http, s.metrics())
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
		if now, err := scrape(ctx, s.http, s.metrics()); err == nil && s.life() == life {
			for _, name := range []string{"ffmpeg_agent_energy_gaps_total", "ffmpeg_agent_energy_faults_total", "ffmpeg_agent_sampler_faults_total"} {
				if now[name] > before[name] {
					seen = fmt.Sprintf("%s %v → %v", name, before[name], now[name])
				}
			}
			if now["ffmpeg_agent_sampler_zones"] < before["ffmpeg_agent_sampler_zones"] {
				seen = fmt.Sprintf("zones %v → %v", before["ffmpeg_agent_sampler_zones"], now["ffmpeg_agent_sampler_zones"])
			}
		}
		if s.life() != life {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookInterval):
		}
	}
	if err := undo(); err != nil {
		s.breakdown(fmt.Errorf("mending the fake counters: %w", err))
	}
	if seen == "" {
		return effect{}, errors.New("the agent's metrics do not tell of it")
	}
	return saw("%s", seen), nil
}

// cardTrouble changes what the fake library does, waits until the agent says so or
// replaces its child, and changes it back.
func (s *scene) cardTrouble(ctx context.Context, change func(*fakehw.NVMLScenario)) (effect, error) {
	if s.cards == nil {
		return effect{}, errNoCards
	}
	s.cardGate.Lock()
	defer s.cardGate.Unlock()
	child, err := s.samplerChild(ctx, 0)
	if err != nil {
		return effect{}, err
	}
	_, zones := s.status().sampler("nvml")
	if err := s.cards.Change(change); err != nil {
		return effect{}, err
	}
	defer func() {
		if err := s.cards.Set(healthyCards()); err != nil {
			s.breakdown(fmt.Errorf("mending the fake cards: %w", err))
		}
	}()
	seen := s.until(ctx, func(st *status) string {
		if trouble, now := st.sampler("nvml"); st.PID != 0 && (trouble != "" || now < zones) {
			return fmt.Sprintf("zones %d → %d, %s", zones, now, trouble)
		}
		if _, lives := child.same(); !lives {
			return fmt.Sprintf("child %d is gone", child.PID)
		}
		return ""
	})
	if seen == "" {
		return effect{}, errors.New("the agent does not tell of it")
	}
	return saw("%s", seen), nil
}

// healthyCards is what the fake cards do without a fault.
func healthyCards() fakehw.NVMLScenario {
	return fakehw.NVMLScenario{Update: 20 * time.Millisecond, Cards: fakehw.NVMLCards(70)}
}

// dataFull fills the disk of the agent's data folder.
func dataFull(ctx context.Context, s *scene) (effect, error) {
	if !s.data.mounted {
		return effect{}, errNoDisk
	}
	s.broken.Add(1)
	defer s.broken.Add(-1)
	least := time.After(s.between(time.Second, 3*time.Second))
	undo := s.fill(s.data)
	defer undo()
	seen := s.until(ctx, func(st *status) string {
		for _, c := range st.Checks {
			if (c.Name == "disk" || c.Name == "journal") && c.Reason != "" {
				return c.Reason
			}
		}
		return st.Journal.Error
	})
	<-least
	if seen == "" {
		return effect{}, errors.New("the agent does not tell of it")
	}
	return saw("%s", seen), nil
}

// outputsFull fills the disk of the final outputs, which all agents write to, until a
// job fails for it.
func outputsFull(ctx context.Context, s *scene) (effect, error) {
	if !s.outputDisk.mounted {
		return effect{}, errNoDisk
	}
	if !s.outputGate.TryLock() {
		return effect{}, fmt.Errorf("%w: it is full already", errNothing)
	}
	defer s.outputGate.Unlock()
	undo := s.fill(s.outputDisk)
	defer undo()
	x, ok := s.facts.await(ctx, s.begun, func(x *Exchange) bool {
		return x.Result != nil && x.Result.Status == protocol.StatusFailed && x.Result.FailureReason == protocol.ReasonResourceError
	})
	if !ok {
		return effect{}, errors.New("no job failed for it")
	}
	return saw("%s: %s", x.Result.JobID, x.Result.Error), nil
}

// fill fills a disk until the undo.
func (s *scene) fill(d *disk) (undo func()) {
	stop, filled := make(chan struct{}), make(chan error, 1)
	go func() { filled <- d.fill(stop) }()
	return func() {
		close(stop)
		if err := <-filled; err != nil {
			s.breakdown(fmt.Errorf("filling a disk: %w", err))
		}
		if err := d.free(); err != nil && !os.IsNotExist(err) {
			s.breakdown(fmt.Errorf("freeing a disk: %w", err))
		}
	}
}
