package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"ffmpeg-agent/internal/journal"
)

// self is this very binary, also after its file was replaced by an upgrade.
const self = "/proc/self/exe"

// journalInspectorCommand is the hidden command line of the child that reads a journal
// which may be damaged.
const journalInspectorCommand = "inspect-journal"

// journalInspector is the command line to start that child with.
var journalInspector = []string{self, journalInspectorCommand, "--"}

func newJournalInspector() *cobra.Command {
	return &cobra.Command{
		Use:    journalInspectorCommand,
		Short:  "Inspect a journal for the agent that started this process",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return journal.Inspect(args, cmd.OutOrStdout())
		},
	}
}

// journalPath returns where an agent keeps its journal.
func journalPath(dataDir string) string { return filepath.Join(dataDir, "journal.db") }
