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

// errStopped ends the agent at a third signal, or when a drain was not complete in time.
var errStopped = errors.New("ended before the drain was complete")

// errGaveUp ends the agent for a fresh start.
var errGaveUp = errors.New("the agent's supervision gave up")

func runCommand(cmd *cobra.Command, _ []string) error {
	loaded, err := load(cmd)
	if err != nil {
		return err
	}
	if err := checkFiles(loaded); err != nil {
		return err
	}
	cfg := loaded.Config
	log, closeLog := startDaemonLog(cmd, loaded)
	defer closeLog()
	if err := checkMasterHost(cmd.Context(), &cfg, log.Logger); err != nil {
		return err
	}
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	w, err := newWorker(cfg, log)
	if err != nil {
		return err
	}
	log.Info("agent started", zap.String("version", version), zap.String("master", cfg.Master.URL),
		zap.String("address", cfg.Node.Address), zap.String("data_dir", cfg.DataDir), zap.Int("pid", os.Getpid()))
	if err := w.steer(signals, cfg.Shutdown.DrainTimeout); err != nil {
		// Now means now: nothing is waited for. FFmpeg ends with the agent, and what is
		// to be kept is on disk.
		return err
	}
	return w.close()
}

// steer waits for the end: the first signal drains, the second stops the running
// jobs, the third ends at once.
func (w *worker) steer(signals <-chan os.Signal, drain time.Duration) error {
	for received := 0; ; {
		select {
		case <-w.agent.Done():
			if late := w.agent.Late(); len(late) > 0 {
				return fmt.Errorf("%w: %s did not stop in time", errStopped, late[0].Name)
			}
			w.log.Info("agent stopped")
			return nil
		case reason := <-w.fatal:
			w.log.Error("the agent's supervision gave up; ending for a fresh start", zap.String("reason", reason))
			return fmt.Errorf("%w: %s", errGaveUp, reason)
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

// close releases what the worker holds, the last first, and waits no longer than
// closeDeadline for all of it.
func (w *worker) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeDeadline)
	defer cancel()
	closed := make(chan error, 1)
	go func() {
		var errs []error
		for i := len(w.closers) - 1; i >= 0; i-- {
			errs = append(errs, w.closers[i](ctx))
		}
		closed <- errors.Join(errs...)
	}()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: the clean-up hangs", errStopped)
	}
}
