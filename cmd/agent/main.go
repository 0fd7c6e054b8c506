// Command agent is the worker of a distributed transcoding platform: it pulls
// FFmpeg jobs from a master, runs them, measures the energy each one cost, and
// reports the results.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"ffmpeg-agent/configs"
)

// version is set when the binary is built.
var version = "dev"

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // wrong flags or configuration, and the master-as-worker refusal
)

// usageError is an error that is the caller's to mend before the agent can start.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command line and returns its exit status.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(append([]string{}, args...)) // nil would mean the process's own
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	ended := make(chan struct{})
	close(ended)
	fmt.Fprintln(&interruptibleWriter{out: stderr, interrupted: ended}, "agent:", err)
	var usage usageError
	var config *configs.Error
	if errors.As(err, &usage) || errors.As(err, &config) {
		return exitUsage
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "agent",
		Short:         "Worker for distributed transcoding that measures what each job costs in energy",
		Example:       "  agent --register --master https://192.168.1.100:8080 --api-key-file /etc/ffmpeg-agent/key",
		Version:       version,
		Args:          noArguments,
		RunE:          runCommand,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.InitDefaultVersionFlag()
	root.Flags().Lookup("version").Hidden = true      // agent version is listed
	root.SetHelpCommand(&cobra.Command{Hidden: true}) // --help does it
	root.SetVersionTemplate("ffmpeg-agent {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	configs.BindFlags(root.Flags())
	root.AddCommand(newRun(), newDemo(), newStatus(), newDrain(), newReport(), newConfig(), newExporters(), newGPUCheck(), newNVMLChild(), newDebug(), newVersion())
	return root
}

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "run",
		Short:   "Run the agent: what bare flags do",
		Example: "  agent run --register --master https://192.168.1.100:8080 --api-key-file /etc/ffmpeg-agent/key",
		Args:    noArguments,
		RunE:    runCommand,
	}
	configs.BindFlags(cmd.Flags())
	return cmd
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

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown command or argument %q; see %s --help", args[0], cmd.CommandPath())}
	}
	return nil
}

// load reads the configuration that a command's flags, the environment and the
// file make.
func load(cmd *cobra.Command) (*configs.Loaded, error) {
	return configs.Load(configs.Source{Environ: os.Environ(), Flags: cmd.Flags()})
}
