package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware"
	"ffmpeg-agent/internal/ffmpeg"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/internal/master"
	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/messages/job"
)

// worker is a running agent with its dependencies.
type worker struct {
	agent   *actors.Agent
	runner  *ffmpeg.Runner
	journal *journal.Journal
	log     *logger
	fatal   chan string // why supervision gave up
	closers []func(context.Context) error
}

// newWorker creates the dependencies and starts the actors. After an error everything that
// was opened is closed again.
func newWorker(cfg configs.Config, log *logger) (*worker, error) {
	w := &worker{log: log, fatal: make(chan string, 1)}
	if err := w.start(cfg); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *worker) start(cfg configs.Config) error {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("creating data_dir: %w", err)
	}
	if err := w.openJournal(cfg); err != nil {
		return err
	}
	client, err := w.newClient(cfg)
	if err != nil {
		return err
	}
	graphics := sync.OnceValue(func() []hardware.Graphics { return hardware.FindGraphics(hardwareRoots(cfg), nvmlConfig(cfg)) })
	if err := w.newRunner(cfg, graphics); err != nil {
		return err
	}
	facts, err := nodeFacts(cfg)
	if err != nil {
		w.log.Warn("could not detect all of the hardware", zap.Error(err))
	}
	deps := sensors(cfg)
	deps.Master, deps.Journal, deps.Facts = client, w.journal, facts
	deps.Runner, deps.Janitor = runner{w.runner}, w.runner.Janitor()
	proof := prover{w.runner, facts, graphics}
	deps.FirstProof, deps.Prove = proof.first, proof.all
	deps.Endpoints = func(a *actors.Agent) (actors.Endpoints, error) { return w.endpoints(a, cfg) }
	if w.agent, err = actors.Start(w.treeConfig(cfg, deps)); err != nil {
		return err
	}
	w.onClose(w.agent.Close)
	return nil
}

// closeTimeout bounds close.
const closeTimeout = 15 * time.Second

// onClose registers a function for close to call. The last one registered is called first.
func (w *worker) onClose(f func(context.Context) error) { w.closers = append(w.closers, f) }

func (w *worker) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	closed := make(chan error, 1)
	go func() {
		var errs []error
		for _, closer := range slices.Backward(w.closers) {
			errs = append(errs, closer(ctx))
		}
		closed <- errors.Join(errs...)
	}()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: the clean-up did not end within %s", errStopped, closeTimeout)
	}
}

// onFatal passes on why supervision gave up, the first reason only. It never blocks.
func (w *worker) onFatal(reason string) {
	select {
	case w.fatal <- reason:
	default:
	}
}

var errNeverRegistered = errors.New("no saved session: this node has not been registered with this data_dir; start it once with --register")

func (w *worker) openJournal(cfg configs.Config) (err error) {
	w.journal, err = journal.Open(journal.Settings{
		Path:      journalPath(cfg.DataDir),
		Inspector: journalInspector,
		Reserve:   max(journal.DefaultReserve, int64(cfg.Jobs.MaxConcurrent)<<20),
		Logger:    w.log.Named("journal"),
	})
	if err != nil {
		return err
	}
	w.onClose(func(context.Context) error { return w.journal.Close() })
	if cfg.Register {
		return nil
	}
	_, found, err := w.journal.Session()
	if err == nil && !found {
		err = errNeverRegistered
	}
	return err
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

// ffmpegNice keeps FFmpeg from delaying the agent's heartbeats.
const ffmpegNice = 10

func (w *worker) newRunner(cfg configs.Config, graphics func() []hardware.Graphics) error {
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
		AcceptDamaged:  cfg.Jobs.DamagedInput == "accept",
		EngineFallback: cfg.Jobs.EngineFallback,
		PreferHardware: cfg.Jobs.PreferHardware,
		DefaultPresets: cfg.Jobs.DefaultPresets,
		KeepInputs:     cfg.Jobs.KeepInputs,
		KeepOutputs:    cfg.Jobs.KeepOutputs,
		OutputRoots:    cfg.Jobs.OutputRoots,
		Inputs:         inputPolicy(cfg),
		InputFormats:   cfg.Jobs.InputFormats,
		StreamInputs:   !cfg.Jobs.FetchInputs,
		MinFreeDisk:    cfg.Jobs.MinFreeDisk.Of,
		Ceilings:       ceilings(cfg),
		Hardware: func() string {
			facts, _ := hardware.Detect(hardwareRoots(cfg)) // an unknown kernel is one as well
			return hardware.GraphicsIdentity(facts.Kernel, graphics())
		},
		Nice:   ffmpegNice,
		Logger: w.log.Named("ffmpeg"),
	})
	if err != nil {
		return err
	}
	w.onClose(w.runner.Close)
	return nil
}

// ceilings are the limits of every job. Without an own value memory is limited to 90 % of
// what there is, and disk by jobs.min_free_disk alone.
func ceilings(cfg configs.Config) ffmpeg.Ceilings {
	limits := cfg.Jobs.Limits
	memory := hardware.MemoryLimit(hardwareRoots(cfg))
	return ffmpeg.Ceilings{
		Memory:      int64(limits.Memory.Or(memory/10*9, memory)),
		Disk:        int64(limits.Disk.Or(0, 0)),
		OutputBytes: int64(limits.OutputBytes.Or(0, 0)),
		Pixels:      limits.Pixels.Or(0),
		Outputs:     int(limits.Outputs.Or(0)),
		Duration:    limits.Duration.Or(0),
		Timeout:     limits.Timeout.Or(0),
	}
}

// inputPolicy is what inputs of jobs may reach.
func inputPolicy(cfg configs.Config) *reach.Policy {
	p := &reach.Policy{Protocols: cfg.Jobs.InputProtocols, Roots: cfg.Jobs.InputRoots, Loopback: cfg.AllowMasterAsWorker}
	for _, network := range cfg.Jobs.InputNetworks {
		p.Networks = append(p.Networks, netip.MustParsePrefix(network)) // checked by configs
	}
	return p
}

// treeConfig is the configuration of the actors.
func (w *worker) treeConfig(cfg configs.Config, deps actors.Dependencies) actors.Config {
	return actors.Config{
		Dependencies: deps,
		Settings: actors.Settings{
			Register:            cfg.Register,
			FirstProofWithin:    30 * time.Second,
			PollInterval:        cfg.PollInterval,
			HeartbeatInterval:   cfg.HeartbeatInterval,
			ReconcileInterval:   time.Minute,
			UnavailableAfter:    cfg.Master.UnavailableAfter,
			Slots:               cfg.Jobs.MaxConcurrent,
			CancelCheckInterval: cfg.Jobs.CancelCheckInterval,
			SampleInterval:      cfg.Energy.SampleInterval,
			IdleSampleInterval:  cfg.Energy.IdleInterval,
			MinFreeDisk:         cfg.Jobs.MinFreeDisk.Of,
		},
		Supervision: supervision.Config{
			HangAfter:      cfg.Debug.HangAfter,
			ProbeInterval:  cfg.Debug.HangAfter / 6,
			FaultInjection: cfg.Debug.FaultInjection,
			OnFatal:        w.onFatal,
		},
		Logger: w.log.Logger,
	}
}

// runner implements actors.Runner.
type runner struct{ *ffmpeg.Runner }

var _ actors.Runner = runner{}

func (r runner) Begin(lease job.Lease) actors.Run { return r.Runner.Begin(lease) }
