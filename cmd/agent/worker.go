package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware"
	"ffmpeg-agent/internal/datadir"
	"ffmpeg-agent/internal/ffmpeg"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/internal/master"
	"ffmpeg-agent/internal/reach"
	"ffmpeg-agent/internal/traces"
	"ffmpeg-agent/messages/job"
)

// worker is a running agent with its dependencies.
type worker struct {
	config  *configuration
	agent   *actors.Agent
	runner  *ffmpeg.Runner
	master  *master.Client
	journal *journal.Journal
	log     *logger
	fatal   chan string // why supervision gave up
	closers []func(context.Context) error
}

// newWorker creates the dependencies and starts the actors. After an error everything that
// was opened is closed again.
func newWorker(config *configuration, log *logger) (*worker, error) {
	w := &worker{config: config, log: log, fatal: make(chan string, 1)}
	if err := w.start(config.current()); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *worker) start(e effective) error {
	cfg := e.Config
	warnings, err := datadir.Prepare(cfg.DataDir)
	for _, warning := range warnings {
		w.log.Warn(warning)
	}
	if err != nil {
		return err
	}
	if err := w.openJournal(cfg); err != nil {
		return err
	}
	if cfg.Node.Address == "auto" {
		var err error
		if cfg.Node.Address, err = generatedAddress(cfg.DataDir, w.log.Logger); err != nil {
			return err
		}
	}
	client, err := w.newClient(e)
	if err != nil {
		return err
	}
	graphics := sync.OnceValue(func() []hardware.Graphics { return hardware.FindGraphics(hardwareRoots(cfg), nvmlConfig(cfg)) })
	if err := w.newRunner(e, graphics); err != nil {
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
	if cfg.Traces.Endpoint != "" {
		deps.Traces = w.newTraces(cfg)
	}
	deps.Endpoints = func(a *actors.Agent) (actors.Endpoints, error) { return w.endpoints(a) }
	if w.agent, err = actors.Start(w.treeConfig(deps)); err != nil {
		return err
	}
	w.onClose(w.agent.Close)
	return nil
}

// tracesTimeout bounds the sending of the last traces.
const tracesTimeout = 3 * time.Second

// newTraces returns nil where traces cannot be exported: jobs do not need them.
func (w *worker) newTraces(cfg configs.Config) actors.Traces {
	exporter, err := traces.New(context.Background(), traces.Config{
		Endpoint: cfg.Traces.Endpoint, Version: version, Node: cfg.Node.Address, Log: w.log.Named("traces"),
	})
	if err != nil {
		w.log.Warn("not exporting traces", zap.Error(err))
		return nil
	}
	w.onClose(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, tracesTimeout)
		defer cancel()
		if err := exporter.Close(ctx); err != nil {
			w.log.Warn("could not send all traces", zap.Error(err))
		}
		return nil
	})
	return exporter
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
		Reserve:   journalReserve(cfg),
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

// journalReserve has room for the results of all slots.
func journalReserve(cfg configs.Config) int64 {
	return max(journal.DefaultReserve, int64(cfg.Jobs.MaxConcurrent)<<20)
}

func (w *worker) newClient(e effective) (*master.Client, error) {
	cfg := clientConfig(e)
	cfg.Logger = w.log.Named("master")
	client, err := master.New(cfg)
	if err != nil {
		return nil, err
	}
	w.onClose(func(context.Context) error { client.Close(); return nil })
	w.config.onReload(func(e effective) error { return client.Reconfigure(clientConfig(e)) })
	w.master = client
	return client, nil
}

func clientConfig(e effective) master.Config {
	return master.Config{
		URL:                e.Master.URL,
		APIKey:             e.apiKey.Reveal(),
		CAFile:             e.Master.CA,
		CertFile:           e.Master.Cert,
		KeyFile:            e.Master.Key,
		InsecureSkipVerify: e.Master.InsecureSkipVerify,
		HeartbeatTimeout:   min(5*time.Second, e.HeartbeatInterval/2),
		Version:            version,
	}
}

// ffmpegNice keeps FFmpeg from delaying the agent's heartbeats.
const ffmpegNice = 10

func (w *worker) newRunner(e effective, graphics func() []hardware.Graphics) (err error) {
	sandbox, err := sandboxSettings(e.Config) // a change needs a restart
	if err != nil {
		return err
	}
	settings := func(e effective) ffmpeg.Settings {
		s := runnerSettings(e.Config)
		s.Sandbox = sandbox
		s.Private = slices.Concat([]string{w.config.file, e.Master.APIKeyFile, e.Master.Key, e.Control.Socket}, e.web.Files)
		s.Hardware = func() string {
			facts, _ := hardware.Detect(hardwareRoots(e.Config)) // an unknown kernel is one as well
			return hardware.GraphicsIdentity(facts.Kernel, graphics())
		}
		s.Logger = w.log.Named("ffmpeg")
		return s
	}
	if w.runner, err = ffmpeg.New(settings(e)); err != nil {
		return err
	}
	w.onClose(w.runner.Close)
	w.config.onReload(func(e effective) error { return w.runner.Reconfigure(settings(e)) })
	w.config.onReload(func(e effective) error { w.journal.SetReserve(journalReserve(e.Config)); return nil })
	return nil
}

func runnerSettings(cfg configs.Config) ffmpeg.Settings {
	return ffmpeg.Settings{
		FFmpeg:         cfg.Hardware.FFmpeg,
		FFprobe:        cfg.Hardware.FFprobe,
		DataDir:        cfg.DataDir,
		MasterHost:     hostOf(cfg.Master.URL),
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
		Nice:           ffmpegNice,
	}
}

// hostOf is the host of a URL that configs has checked.
func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Hostname()
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
func (w *worker) treeConfig(deps actors.Dependencies) actors.Config {
	if w.config.reloads() {
		deps.Configuration = w.config
	}
	w.config.onReload(func(e effective) error { w.log.setLevel(e.Log); return nil })
	cfg := w.config.current()
	return actors.Config{
		Dependencies: deps,
		Settings:     actorSettings(cfg),
		Supervision: supervision.Config{
			HangAfter:      cfg.Debug.HangAfter,
			ProbeInterval:  cfg.Debug.HangAfter / 6,
			FaultInjection: cfg.Debug.FaultInjection,
			OnFatal:        w.onFatal,
		},
		Logger: w.log.Logger,
	}
}

func actorSettings(e effective) actors.Settings {
	keyProblem := ""
	if e.keyProblem != nil {
		keyProblem = "no API key: " + e.keyProblem.String()
	}
	return actors.Settings{
		Register:            e.Register,
		FirstProofWithin:    30 * time.Second,
		PollInterval:        e.PollInterval,
		HeartbeatInterval:   e.HeartbeatInterval,
		ReconcileInterval:   time.Minute,
		UnavailableAfter:    e.Master.UnavailableAfter,
		Slots:               e.Jobs.MaxConcurrent,
		CancelCheckInterval: e.Jobs.CancelCheckInterval,
		SampleInterval:      e.Energy.SampleInterval,
		IdleSampleInterval:  e.Energy.IdleInterval,
		MinFreeDisk:         e.Jobs.MinFreeDisk.Of,
		KeyProblem:          keyProblem,
		WebConfig:           e.web.ID(),
	}
}

// runner implements actors.Runner.
type runner struct{ *ffmpeg.Runner }

var _ actors.Runner = runner{}

func (r runner) Begin(lease job.Lease) actors.Run { return r.Runner.Begin(lease) }
