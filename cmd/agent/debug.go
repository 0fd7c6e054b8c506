package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newDebug() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "debug",
		Hidden: true, // for chaos runs
		Short:  "Inject faults into the running agent",
		Long: `Inject faults into the running agent to test its recovery. The agent must run with
debug.fault_injection: true, which is not for production.`,
		Example: "  agent debug crash agent/meter\n  agent debug hang agent/jobs --for 30s",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{fmt.Errorf("%s needs a subcommand, crash or hang; see %s --help", cmd.CommandPath(), cmd.CommandPath())}
		},
	}
	cmd.AddCommand(newDebugCrash(), newDebugHang())
	return cmd
}

func newDebugCrash() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "crash ACTOR",
		Short: "Make an actor panic",
		Long: `Make an actor of the running agent panic. ACTOR is its path in the tree that agent
status prints; for an unknown path the error lists the known ones.`,
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
			fmt.Fprintf(cmd.OutOrStdout(), "crashing %s; agent status shows its restart\n", args[0])
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
		Short: "Make an actor block for a while",
		Long: `Make an actor of the running agent block while it handles a message. ACTOR is its path
in the tree that agent status prints; for an unknown path the error lists the known ones.`,
		Example: "  agent debug hang agent/jobs --for 30s",
		Args:    oneArgument("an actor's path, such as agent/jobs"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if d <= 0 {
				return usageError{fmt.Errorf("--for %s: must be more than 0s", d)}
			}
			client, err := dialAgent(cmd)
			if err != nil {
				return err
			}
			if err := client.Hang(cmd.Context(), args[0], d); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "blocking %s for %s; agent status shows its state\n", args[0], d)
			return nil
		},
	}
	bindSocketFlags(cmd)
	cmd.Flags().DurationVar(&d, "for", 10*time.Second, "how long the actor blocks")
	return cmd
}
