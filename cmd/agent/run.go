package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/hardware/proc"
	"ffmpeg-agent/internal/fetch"
	"ffmpeg-agent/messages"
)

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "run",
		Short:   "Run the agent; the same as no command",
		Example: "  agent run --register --master https://master:8080 --api-key-file key",
		Args:    noArguments,
		RunE:    runCommand,
	}
	configs.BindFlags(cmd.Flags())
	return cmd
}

var (
	// errStopped is returned after a third signal and after a drain that missed its deadline.
	errStopped = errors.New("stopped before the drain was complete")
	// errGaveUp is returned when supervision gave up, so that a service manager restarts the agent.
	errGaveUp = errors.New("the agent's supervision gave up")
)

func runCommand(cmd *cobra.Command, _ []string) error {
	err := run(cmd)
	if err != nil {
		notifyFailure(err)
	}
	return err
}

func run(cmd *cobra.Command) error {
	config, err := loadConfiguration(sourceOf(cmd).ConfigFile(), func() (*configs.Loaded, error) { return load(cmd) })
	if err != nil {
		return err
	}
	if _, err := fetch.ProxyFromEnvironment(); err != nil { // which Go's clients would ignore in silence
		return usageError{err}
	}
	if err := proc.Harden(); err != nil {
		return err
	}
	log, hangups, closeLog := startDaemonLog(cmd, config)
	defer closeLog()
	if err := checkMasterHost(cmd.Context(), &config.inForce.Config, log.Logger); err != nil {
		return err
	}
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	w, err := newWorker(config, log)
	if err != nil {
		return err
	}
	manager := newNotifier(w.agent.Live, func() messages.Status { return w.statusOf(w.agent) }, log.Logger)
	defer manager.close()
	config.aroundReload(func() func() { manager.reloading(); return manager.ready })
	manager.started()
	cfg := config.current()
	log.Info("agent started", zap.String("version", version), zap.String("master", cfg.Master.URL),
		zap.String("address", w.agent.Status().Address), zap.String("data_dir", cfg.DataDir), zap.Int("pid", os.Getpid()))
	if err := w.wait(signals, hangups, manager); err != nil {
		// Exit at once, without close: FFmpeg is killed with the agent, and all that has to
		// survive is in the journal.
		return err
	}
	return w.close()
}

// stopAllowance is the time that a stop may take beside that of the running jobs: see the
// deadlines in actors and closeTimeout. The unit's TimeoutStopSec has it as well.
const stopAllowance = 90 * time.Second

// wait returns when the agent has stopped. The first signal starts a drain, the second one
// stops the running jobs, the third one makes wait return at once with errStopped. SIGHUP
// reloads the configuration.
func (w *worker) wait(signals, hangups <-chan os.Signal, manager *notifier) error {
	for received := 0; ; {
		select {
		case <-w.agent.Done():
			if late := w.agent.Late(); len(late) > 0 {
				return fmt.Errorf("%w: %s did not stop in time", errStopped, late[0].Name)
			}
			w.log.Info("agent stopped")
			return nil
		case reason := <-w.fatal:
			w.log.Error("supervision gave up; exiting to be restarted", zap.String("reason", reason))
			return fmt.Errorf("%w: %s", errGaveUp, reason)
		case <-hangups:
			w.log.Info("SIGHUP received: reloading the configuration")
			w.agent.Reload()
		case s := <-signals:
			if !w.agent.Snapshots().Draining() {
				received = 0 // the first drain was undone
			}
			received++
			switch received {
			case 1:
				w.log.Info("signal received: draining", zap.Stringer("signal", s))
				drainTimeout := w.config.current().Shutdown.DrainTimeout
				manager.stopping(drainTimeout + stopAllowance)
				w.agent.Drain(drainTimeout)
			case 2:
				w.log.Warn("second signal received: stopping the running jobs and reporting them as failed", zap.Stringer("signal", s))
				w.agent.StopJobs()
			default:
				w.log.Error("third signal received: exiting now", zap.Stringer("signal", s))
				return errStopped
			}
		}
	}
}
