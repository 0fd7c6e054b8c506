//go:build docs

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// packagingCommands are part of builds with the tag docs only, which "make deb" uses: those
// who run the agent do not need them.
func packagingCommands() []*cobra.Command { return []*cobra.Command{newDocs()} }

func newDocs() *cobra.Command {
	return &cobra.Command{
		Use:    "docs FOLDER",
		Short:  "Write man pages and shell completions",
		Hidden: true,
		Args:   oneArgument("a folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			man, completions := filepath.Join(args[0], "man"), filepath.Join(args[0], "completions")
			for _, dir := range []string{man, completions} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return fmt.Errorf("creating a folder: %w", err)
				}
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			// Their date is SOURCE_DATE_EPOCH.
			if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "ffmpeg-agent " + version, Manual: "ffmpeg-agent"}, man); err != nil {
				return fmt.Errorf("writing man pages: %w", err)
			}
			for name, write := range map[string]func(string) error{
				"agent":      func(file string) error { return root.GenBashCompletionFileV2(file, true) },
				"_agent":     root.GenZshCompletionFile,
				"agent.fish": func(file string) error { return root.GenFishCompletionFile(file, true) },
			} {
				if err := write(filepath.Join(completions, name)); err != nil {
					return fmt.Errorf("writing the completion %s: %w", name, err)
				}
			}
			return nil
		},
	}
}
