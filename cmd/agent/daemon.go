package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"ffmpeg-agent/configs"
)

// startDaemonLog starts the log of a command that runs for years, on its standard output,
// and makes the process independent of those who read that output, of standard error and
// of its terminal. Call closeLog last.
func startDaemonLog(cmd *cobra.Command, loaded *configs.Loaded) (log *logger, closeLog func()) {
	log = newLogger(loaded.Config.Log, cmd.OutOrStdout())
	surviveBrokenPipes()
	if cmd.ErrOrStderr() == os.Stderr {
		unblockStandardError()
	}
	stopHangups := ignoreHangups(log.Logger)
	restoreStandardLog := log.redirectStandardLog()
	for _, warning := range loaded.Warnings {
		log.Warn(warning)
	}
	return log, func() {
		restoreStandardLog()
		stopHangups()
		log.close()
	}
}

// surviveBrokenPipes makes a write to a pipe that nobody reads fail with EPIPE instead of
// ending the process, for the rest of its life. The signal is caught rather than ignored,
// because children would inherit an ignored one.
func surviveBrokenPipes() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// ignoreHangups logs each SIGHUP, whose default action is to end the process, until stop is
// called. Where it is ignored already, by nohup for instance, it stays so.
func ignoreHangups(log *zap.Logger) (stop func()) {
	if signal.Ignored(syscall.SIGHUP) {
		return func() {}
	}
	hangups, stopped := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		defer close(stopped)
		for range hangups {
			log.Info("SIGHUP received; nothing to do")
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-stopped
	}
}

// unblockStandardError makes writes to standard error fail rather than wait where it is a
// pipe or a terminal that is not read: the Go runtime writes a stack trace there before it
// ends the process, and would never end it. The file is opened anew because the flag
// belongs to the open file, which other processes may share. A socket, which journald
// reads, cannot be opened anew and is left as it is; so is a regular file.
func unblockStandardError() {
	info, err := os.Stderr.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeCharDevice) == 0 {
		return
	}
	fd, err := unix.Open("/dev/stderr", unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = unix.Dup2(fd, syscall.Stderr)
}
