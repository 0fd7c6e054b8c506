package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ffmpeg-agent/configs"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Print the effective configuration and where each value comes from",
		Long:    "Print the effective configuration and where each value comes from. Secrets are hidden.",
		Example: "  agent config --config /etc/ffmpeg-agent/agent.yaml",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := load(cmd)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, e := range loaded.Entries() {
				fmt.Fprintf(w, "%s\t%s\t# %s\n", e.Key+":", e.Value, e.Origin)
			}
			for _, warning := range loaded.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "agent: warning:", warning)
			}
			return w.Flush()
		},
	}
	configs.BindFlags(cmd.Flags())
	return cmd
}
