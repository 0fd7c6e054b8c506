package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
)

// errStopped ends the agent at a third signal, or when its supervision gave up.
var errStopped = errors.New("ended before the drain was complete")

func runCommand(cmd *cobra.Command, _ []string) error {
	loaded, err := load(cmd)
	if err != nil {
		return err
	}
	cfg := loaded.Config
	log := newLogger(cfg.Log, cmd.OutOrStdout())
	for _, warning := range loaded.Warnings {
		log.Warn(warning)
	}
	if err := checkMasterHost(cmd.Context(), &cfg, log); err != nil {
		return err
	}
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	w, err := newWorker(cmd.Context(), cfg, log)
	if err != nil {
		return err
	}
	log.Info("agent started", zap.String("version", version), zap.String("master", cfg.Master.URL),
		zap.String("address", cfg.Node.Address), zap.String("data_dir", cfg.DataDir), zap.Int("pid", os.Getpid()))
	err = w.steer(signals, cfg.Shutdown.DrainTimeout)
	return errors.Join(err, w.close())
}

// steer waits for the end: the first signal drains, the second stops the running
// jobs, the third ends at once.
func (w *worker) steer(signals <-chan os.Signal, drain time.Duration) error {
	for received := 0; ; {
		select {
		case <-w.agent.Done():
			w.log.Info("agent stopped")
			return nil
		case reason := <-w.fatal:
			w.log.Error("the agent's supervision gave up; ending for a fresh start", zap.String("reason", reason))
			return fmt.Errorf("%w: %s", errStopped, reason)
		case s := <-signals:
			received++
			switch received {
			case 1:
				w.log.Info("signal received: draining", zap.Stringer("signal", s))
				w.agent.Drain(drain)
			case 2:
				w.log.Warn("second signal: stopping the running jobs; they are reported as failed and re-queued", zap.Stringer("signal", s))
				w.agent.StopJobs()
			default:
				w.log.Error("third signal: ending now", zap.Stringer("signal", s))
				return errStopped
			}
		}
	}
}

// closeDeadline bounds the clean-up at the very end.
const closeDeadline = 15 * time.Second

// close releases what the worker holds. It is right at any time.
func (w *worker) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeDeadline)
	defer cancel()
	var errs []error
	for i := len(w.closers) - 1; i >= 0; i-- {
		if err := w.closers[i](ctx); err != nil {
			errs = append(errs, err)
		}
	}
	w.closers = nil
	return errors.Join(errs...)
}
