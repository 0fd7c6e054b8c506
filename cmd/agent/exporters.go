package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/actors/supervision"
	"ffmpeg-agent/configs"
)

func newExporters() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exporters",
		Short: "Export this machine's power, without taking work",
		Long: `Measure this machine's power and export it for Prometheus, without a master and without
taking work: the CPU (` + "`exporters.cpu`" + `) and GPU (` + "`exporters.gpu`" + `) ports alone. Its ports are an
agent's: where one runs, they are taken.`,
		Example: "  agent exporters --config /etc/ffmpeg-agent/agent.yaml",
		Args:    noArguments,
		RunE:    exportersCommand,
	}
	cmd.Flags().String("config", "", "YAML `file` (default "+configs.DefaultFile+", if present)")
	cmd.Flags().String("log-level", "", "debug, info, warn or error (default info)")
	cmd.Flags().String("log-format", "", "console, json, or auto: console on a terminal, json otherwise (default auto)")
	return cmd
}

var errNothingToExport = errors.New("neither exporters.cpu.enabled nor exporters.gpu.enabled is on: there is nothing to export")

func exportersCommand(cmd *cobra.Command, _ []string) error {
	loaded, err := load(cmd)
	if err != nil {
		return err
	}
	cfg := loaded.Config
	if !cfg.Exporters.CPU.Enabled && !cfg.Exporters.GPU.Enabled {
		return usageError{errNothingToExport}
	}
	log, closeLog := startDaemonLog(cmd, loaded)
	defer closeLog()
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	w := &worker{log: log, fatal: make(chan string, 1)}
	if err := w.assembleExporters(cfg); err != nil {
		return errors.Join(err, w.close())
	}
	log.Info("exporting power", zap.String("version", version), zap.Int("pid", os.Getpid()))
	select {
	case <-ctx.Done():
		log.Info("exporters stopped")
		return w.close()
	case reason := <-w.fatal:
		return errors.Join(fmt.Errorf("%w: %s", errGaveUp, reason), w.close())
	}
}

// assembleExporters makes the parts that measure and export.
func (w *worker) assembleExporters(cfg configs.Config) (err error) {
	parts := sensorParts(cfg)
	parts.Endpoints = func(a *actors.Agent) (actors.Endpoints, error) {
		servers, err := w.serve(cfg, powerPorts(a, cfg))
		return actors.Endpoints{Exporters: servers}, err
	}
	w.agent, err = actors.StartExporters(actors.Config{
		Parts:    parts,
		Settings: treeSettings(cfg),
		Supervision: supervision.Config{
			HangAfter: cfg.Debug.HangAfter, ProbeInterval: cfg.Debug.HangAfter / 6,
			OnFatal: w.onFatal,
		},
		Logger: w.log.Logger,
	})
	if err != nil {
		return err
	}
	w.onClose(func(ctx context.Context) error { return w.agent.Close(ctx) })
	return nil
}
