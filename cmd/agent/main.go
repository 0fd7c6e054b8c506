// Command agent is the worker of a distributed transcoding platform: it pulls FFmpeg jobs
// from a master, runs them, measures the energy each one used, and reports the results.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"

	"ffmpeg-agent/configs"
	"ffmpeg-agent/internal/control"
)

// version and revision are set by the linker.
var (
	version  = "dev"
	revision string // of the source
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // wrong flags or configuration, or a master on this host
)

func main() {
	becomeFFmpeg()
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command line and returns its exit status.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(withDoubleDashes(root, args))
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errSilent) {
		return exitFailed
	}
	ended := make(chan struct{})
	close(ended)
	text := fmt.Sprintln("agent:", withHint(err))
	if isJournal(stderr) {
		text = withPriority(zapcore.ErrorLevel, text)
	}
	_, _ = io.WriteString(&interruptibleWriter{out: stderr, interrupted: ended}, text)
	if isUsage(err) {
		return exitUsage
	}
	return exitFailed
}

// withHint adds to the error that no agent runs for this user that one may run as a system service.
func withHint(err error) string {
	if _, absent := os.Stat(configs.SystemDataDir); errors.Is(err, control.ErrNotRunning) && os.Geteuid() != 0 && absent == nil {
		return err.Error() + "; if the agent runs as a system service, run this command as root (sudo)"
	}
	return err.Error()
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "agent",
		Short:         "Worker for distributed transcoding that measures the energy used by each job",
		Long:          "Transcoding worker that measures the energy of each job. Without a command it does agent run.",
		Example:       "  agent --register --master https://master:8080 --api-key-file key",
		Version:       version,
		Args:          noArguments,
		RunE:          runCommand,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.InitDefaultVersionFlag()
	root.Flags().Lookup("version").Hidden = true // the version command is listed instead
	root.SetVersionTemplate("ffmpeg-agent {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	root.InitDefaultHelpFlag()
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd.OutOrStdout(), cmd) })
	bindHiddenFlags(root)
	root.AddCommand(
		newRun(), newDemo(), newStatus(), newJobs(), newDrain(), newReload(), newDoctor(), newReport(), newConfig(), newExporters(), newVersion(),
		newDebug(), newGPUCheck(), newNVMLChild(), newJournalInspector(), // hidden
	)
	root.AddCommand(packagingCommands()...)
	return root
}

// bindHiddenFlags defines the flags of agent run for another command, whose help names that
// one instead of listing them.
func bindHiddenFlags(cmd *cobra.Command) {
	configs.BindFlags(cmd.Flags())
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Hidden = true })
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  agent version",
		Args:    noArguments,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), "ffmpeg-agent", version)
		},
	}
}

// usageError is an error in the command line or the environment that the user has to fix:
// exit status 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func isUsage(err error) bool {
	var usage usageError
	var config *configs.Error
	return errors.As(err, &usage) || errors.As(err, &config)
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown command or argument %q; see %s --help", args[0], cmd.CommandPath())}
	}
	return nil
}

// oneArgument requires exactly one argument; what describes it.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0 || args[0] == "":
			return usageError{fmt.Errorf("%s needs %s", cmd.CommandPath(), what)}
		case len(args) > 1:
			return usageError{fmt.Errorf("unexpected argument %q: %s takes one argument, %s", args[1], cmd.CommandPath(), what)}
		}
		return nil
	}
}
