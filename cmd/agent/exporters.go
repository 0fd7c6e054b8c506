package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/configs"
)

func newExporters() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exporters",
		Short: "Export this machine's power and containers without taking jobs",
		Long: `Export this machine's power and containers to Prometheus on the ports of ` + "`exporters.cpu`" + `,
` + "`exporters.gpu` and `exporters.docker`" + `, without a master and without taking jobs. An agent
on this machine serves the same ports: run one of the two.`,
		Example: "  agent exporters --config /etc/ffmpeg-agent/agent.yaml",
		Args:    noArguments,
		RunE:    exportersCommand,
	}
	bindConfigFlag(cmd)
	cmd.Flags().String("log-level", "", "debug, info, warn or error (default info)")
	cmd.Flags().String("log-format", "", "console, json, or auto: console on a terminal (default auto)")
	return cmd
}

var errNothingToExport = errors.New("nothing to export: exporters.cpu.enabled, exporters.gpu.enabled and exporters.docker.enabled are false")

func exportersCommand(cmd *cobra.Command, _ []string) error {
	config, err := loadConfiguration(sourceOf(cmd).ConfigFile(), func() (*configs.Loaded, error) { return load(cmd) })
	if err != nil {
		return err
	}
	cfg := config.current()
	if !cfg.Exporters.CPU.Enabled && !cfg.Exporters.GPU.Enabled && !cfg.Exporters.Docker.Enabled {
		return usageError{errNothingToExport}
	}
	log, hangups, closeLog := startDaemonLog(cmd, config)
	defer closeLog()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	w, err := newExportersWorker(config, log)
	if err != nil {
		return err
	}
	log.Info("exporting power", zap.String("version", version), zap.Int("pid", os.Getpid()))
	for {
		select {
		case <-hangups:
			log.Info("SIGHUP received: reloading the configuration")
			w.agent.Reload()
		case s := <-signals:
			log.Info("signal received: stopping", zap.Stringer("signal", s))
			return w.close()
		case reason := <-w.fatal:
			return errors.Join(fmt.Errorf("%w: %s", errGaveUp, reason), w.close())
		}
	}
}

// newExportersWorker starts the part of the agent that measures and exports.
func newExportersWorker(config *configuration, log *logger) (*worker, error) {
	w := &worker{config: config, log: log, fatal: make(chan string, 1)}
	deps := sensors(config.current().Config)
	deps.Endpoints = func(a *actors.Agent) (actors.Endpoints, error) {
		servers, err := w.newServers(slices.Concat(w.powerPorts(a), w.containerPorts(a)))
		return actors.Endpoints{Exporters: servers}, err
	}
	var err error
	if w.agent, err = actors.StartExporters(w.treeConfig(deps)); err != nil {
		return nil, err
	}
	w.onClose(w.agent.Close)
	return w, nil
}
