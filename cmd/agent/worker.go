package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware"
	"ffmpeg-agent/internal/ffmpeg"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/internal/master"
	"ffmpeg-agent/messages"
	"ffmpeg-agent/messages/job"
)

// worker is a running agent with all its parts.
type worker struct {
	agent   *actors.Agent
	runner  *ffmpeg.Runner
	journal *journal.Journal
	log     *logger
	fatal   chan string // supervision gave up
	closers []func(context.Context) error
}

// newWorker makes the parts, in order, and sets the tree going. On an error nothing
// is left open.
func newWorker(cfg configs.Config, log *logger) (*worker, error) {
	w := &worker{log: log, fatal: make(chan string, 1)}
	if err := w.assemble(cfg); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *worker) assemble(cfg configs.Config) error {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("making data_dir: %w", err)
	}
	book, err := w.openJournal(cfg)
	if err != nil {
		return err
	}
	client, err := w.newClient(cfg)
	if err != nil {
		return err
	}
	if err := w.newRunner(cfg); err != nil {
		return err
	}
	facts, err := nodeFacts(cfg)
	if err != nil {
		w.log.Warn("the machine could not be looked at in full", zap.Error(err))
	}
	parts := sensorParts(cfg)
	parts.Master, parts.Journal, parts.Facts = client, book, facts
	parts.Runner, parts.Janitor = runner{w.runner}, w.runner.Janitor()
	parts.Prove = func(ctx context.Context) (messages.NodeFacts, error) { return w.prove(ctx, facts) }
	parts.Endpoints = func(a *actors.Agent) (actors.Endpoints, error) { return w.endpoints(a, cfg, book) }
	w.agent, err = actors.Start(actors.Config{
		Parts:    parts,
		Settings: treeSettings(cfg),
		Supervision: supervision.Config{
			HangAfter:      cfg.Debug.HangAfter,
			ProbeInterval:  cfg.Debug.HangAfter / 6,
			FaultInjection: cfg.Debug.FaultInjection,
			OnFatal:        w.onFatal,
		},
		Logger: w.log.Logger,
	})
	if err != nil {
		return err
	}
	w.onClose(w.agent.Close)
	return nil
}

// onFatal hands over the first reason why supervision gave up. It never blocks its caller.
func (w *worker) onFatal(reason string) {
	select {
	case w.fatal <- reason:
	default:
	}
}

// ffmpegNice keeps FFmpeg from delaying the agent's own heartbeats.
const ffmpegNice = 10

// onClose registers what is to be closed, the last first.
func (w *worker) onClose(f func(context.Context) error) { w.closers = append(w.closers, f) }

// errNeverRegistered tells what to do when there is no session to resume.
var errNeverRegistered = errors.New("this node was never registered from here, so there is no node id to resume: start once with --register")

func (w *worker) openJournal(cfg configs.Config) (*journal.Journal, error) {
	book, err := journal.Open(journal.Settings{
		Path:   journalPath(cfg.DataDir),
		Logger: w.log.Named("journal"),
	})
	if err != nil {
		return nil, err
	}
	w.journal = book
	w.onClose(func(context.Context) error { return book.Close() })
	if !cfg.Register {
		_, found, err := book.Session()
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, errNeverRegistered
		}
	}
	return book, nil
}

func (w *worker) newClient(cfg configs.Config) (*master.Client, error) {
	key, err := newAPIKey(cfg.Master, w.log.Logger)
	if err != nil {
		return nil, err
	}
	client, err := master.New(master.Config{
		URL:                cfg.Master.URL,
		APIKey:             key.current,
		CAFile:             cfg.Master.CA,
		CertFile:           cfg.Master.Cert,
		KeyFile:            cfg.Master.Key,
		InsecureSkipVerify: cfg.Master.InsecureSkipVerify,
		HeartbeatTimeout:   min(5*time.Second, cfg.HeartbeatInterval/2),
		Version:            version,
		Logger:             w.log.Named("master"),
	})
	if err != nil {
		return nil, err
	}
	w.onClose(func(context.Context) error { client.Close(); return nil })
	return client, nil
}

func (w *worker) newRunner(cfg configs.Config) error {
	masterURL, err := url.Parse(cfg.Master.URL)
	if err != nil {
		return fmt.Errorf("parsing master.url: %w", err)
	}
	w.runner, err = ffmpeg.New(ffmpeg.Settings{
		FFmpeg:         cfg.Hardware.FFmpeg,
		FFprobe:        cfg.Hardware.FFprobe,
		DataDir:        cfg.DataDir,
		MasterHost:     masterURL.Hostname(),
		GenerateInput:  cfg.Jobs.GenerateInput,
		Timeout:        cfg.Jobs.Timeout,
		StallTimeout:   cfg.Jobs.StallTimeout,
		KeepInputs:     cfg.Jobs.KeepInputs,
		KeepOutputs:    cfg.Jobs.KeepOutputs,
		OutputRoots:    cfg.Jobs.OutputRoots,
		InputRoots:     cfg.Jobs.InputRoots,
		InputProtocols: cfg.Jobs.InputProtocols,
		Nice:           ffmpegNice,
		Logger:         w.log.Named("ffmpeg"),
	})
	if err != nil {
		return err
	}
	w.onClose(w.runner.Close)
	return nil
}

// treeSettings is what the configuration means to the actors.
func treeSettings(cfg configs.Config) actors.Settings {
	return actors.Settings{
		Register:            cfg.Register,
		PollInterval:        cfg.PollInterval,
		HeartbeatInterval:   cfg.HeartbeatInterval,
		ReconcileInterval:   time.Minute,
		UnavailableAfter:    cfg.Master.UnavailableAfter,
		Slots:               cfg.Jobs.MaxConcurrent,
		CancelCheckInterval: cfg.Jobs.CancelCheckInterval,
		SampleInterval:      cfg.Energy.SampleInterval,
		IdleSampleInterval:  cfg.Energy.IdleInterval,
		MinFreeDisk:         cfg.Jobs.MinFreeDisk.Of,
	}
}

// nodeFacts is what the machine is, as the master is told. What could be found out
// comes back even with an error.
func nodeFacts(cfg configs.Config) (messages.NodeFacts, error) {
	found, err := hardware.Detect(hardware.Roots{
		SysfsPath:  cfg.Hardware.SysfsPath,
		ProcfsPath: cfg.Hardware.ProcfsPath,
	})
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

// prove adds to the facts which encoders came out of a trial well.
func (w *worker) prove(ctx context.Context, facts messages.NodeFacts) (messages.NodeFacts, error) {
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

// sensorParts are what looks at the machine.
func sensorParts(cfg configs.Config) actors.Parts {
	return actors.Parts{
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

// host tells the actors what the hardware package sees.
type host struct{ *hardware.Host }

func newHost(cfg configs.Config) actors.Host {
	return host{hardware.NewHost(hardware.HostConfig{
		Roots:   hardware.Roots{SysfsPath: cfg.Hardware.SysfsPath, ProcfsPath: cfg.Hardware.ProcfsPath},
		DataDir: cfg.DataDir,
	})}
}

func (h host) Look(context.Context) (messages.HostStatus, error) {
	s, err := h.Host.Status()
	return messages.HostStatus{
		CPULoadPercent: s.CPULoadPercent,
		RAMFreeBytes:   s.RAMFree,
		DiskFreeBytes:  s.DiskFree,
		DiskTotalBytes: s.DiskTotal,
		TemperatureC:   s.TemperatureCelsius,
		Throttled:      s.Throttled != nil && *s.Throttled,
	}, err
}

// runner gives the actors the ffmpeg package's runner as the port they know.
type runner struct{ *ffmpeg.Runner }

var _ actors.Runner = runner{}

func (r runner) Begin(lease job.Lease) actors.Run { return r.Runner.Begin(lease) }
