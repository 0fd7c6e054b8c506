package main

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// startDaemonLog starts the log of a command that runs for years, on its standard output,
// and makes the process independent of those who read that output, of standard error and
// of its terminal. hangups gets each SIGHUP. Call closeLog last.
func startDaemonLog(cmd *cobra.Command, config *configuration) (log *logger, hangups <-chan os.Signal, closeLog func()) {
	log = newLogger(config.current().Log, cmd.OutOrStdout())
	surviveBrokenPipes()
	if cmd.ErrOrStderr() == os.Stderr {
		unblockStandardError()
	}
	hangups, stopHangups := catchHangups()
	restoreStandardLog := log.redirectStandardLog()
	for _, warning := range slices.Concat(config.loaded.Warnings, config.logged) {
		log.Warn(warning)
	}
	config.log = log.Named("configuration")
	return log, hangups, func() {
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

// catchHangups returns a channel that gets SIGHUP, whose default action is to end the process,
// until stop is called. Where it is ignored already, by nohup for instance, it stays so.
func catchHangups() (hangups <-chan os.Signal, stop func()) {
	if signal.Ignored(syscall.SIGHUP) {
		return nil, func() {}
	}
	caught := make(chan os.Signal, 1) // several that come close together count as one
	signal.Notify(caught, syscall.SIGHUP)
	return caught, func() { signal.Stop(caught) }
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
