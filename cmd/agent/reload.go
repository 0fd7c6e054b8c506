package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func newReload() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make the running agent load its configuration again",
		Long: `Make the agent on this machine load its configuration again. It does so by itself about a
second after a file has changed, and on SIGHUP; this command waits for it and tells the
outcome. Exit status 1 if a file is invalid, so that nothing has changed, if the agent has no
key because its file cannot be used, or if no agent is running.`,
		Example: "  agent reload",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := dialAgent(cmd)
			if err != nil {
				return err
			}
			if err := client.Reload(cmd.Context()); err != nil {
				return err
			}
			status, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "configuration reloaded")
			c := status.Configuration
			if c == nil {
				return nil
			}
			if len(c.Restart) > 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "changed, but needs a restart of the agent:", plain(strings.Join(c.Restart, ", ")))
			}
			for _, w := range c.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "agent: warning:", plain(w))
			}
			if c.NoKey {
				return errors.New("the configuration was reloaded, but the agent has no API key: see the warning")
			}
			return nil
		},
	}
	bindSocketFlags(cmd)
	return cmd
}
