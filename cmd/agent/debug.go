package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newDebug() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "debug", // for chaos runs
		Hidden: true,
		Short:  "Put faults into the running agent, to see it recover",
		Long: `Put faults into the running agent, to see it recover. It has to run with
debug.fault_injection: true; an agent at work in earnest does not.`,
		Example: "  agent debug crash agent/meter\n  agent debug hang agent/jobs --for 30s",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{fmt.Errorf("crash or hang? see %s --help", cmd.CommandPath())}
		},
	}
	cmd.AddCommand(newDebugCrash(), newDebugHang())
	return cmd
}

func newDebugCrash() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "crash ACTOR",
		Short: "Have an actor panic",
		Long: `Have an actor of the running agent panic, by its path in the tree that agent status
draws. A path that there is not gets a list of those there are.`,
		Example: "  agent debug crash agent/meter",
		Args:    oneArgument("an actor's path, such as agent/meter"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := dialAgent(cmd)
			if err != nil {
				return err
			}
			if err := client.Crash(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s was told to crash; agent status shows its restart\n", args[0])
			return nil
		},
	}
	bindSocketFlags(cmd)
	return cmd
}

func newDebugHang() *cobra.Command {
	var d time.Duration
	cmd := &cobra.Command{
		Use:   "hang ACTOR",
		Short: "Have an actor block for a while",
		Long: `Have an actor of the running agent block in the middle of its work, by its path in the
tree that agent status draws. A path that there is not gets a list of those there are.`,
		Example: "  agent debug hang agent/jobs --for 30s",
		Args:    oneArgument("an actor's path, such as agent/jobs"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if d <= 0 {
				return usageError{fmt.Errorf("--for %s: an actor hangs for more than 0s", d)}
			}
			client, err := dialAgent(cmd)
			if err != nil {
				return err
			}
			if err := client.Hang(cmd.Context(), args[0], d); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s was told to hang for %s; agent status shows how it fares\n", args[0], d)
			return nil
		},
	}
	bindSocketFlags(cmd)
	cmd.Flags().DurationVar(&d, "for", 10*time.Second, "how long it hangs")
	return cmd
}

// oneArgument demands exactly one argument, and says which.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0 || args[0] == "":
			return usageError{errors.New(cmd.CommandPath() + " needs " + what)}
		case len(args) > 1:
			return usageError{fmt.Errorf("one argument too many: %q; %s needs %s", args[1], cmd.CommandPath(), what)}
		}
		return nil
	}
}
