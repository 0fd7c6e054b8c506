package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/internal/report"
	"ffmpeg-agent/messages/job"
)

func newReport() *cobra.Command {
	var asJSON, asHTML bool
	var attempt int
	cmd := &cobra.Command{
		Use:   "report JOB",
		Short: "Show where a job's joules went",
		Long: `Show what a job came to on this machine: outcome, encode, and where the joules went.
The running agent is asked, else its journal is read. Of several attempts at the job
the newest is shown. --html makes one page of it that needs nothing else, with the power
over time. Exit status 1 when the journal has no such job.`,
		Example: "  agent report 7f3a9c\n  agent report 7f3a9c --attempt 1 --html > report.html\n  agent report 7f3a9c --json | jq .energy_joules",
		Args:    oneArgument("a job's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && asHTML {
				return usageError{errors.New("--json and --html: one of them at a time")}
			}
			if cmd.Flags().Changed("attempt") && attempt < 1 {
				return usageError{fmt.Errorf("--attempt %d: attempts count from 1", attempt)}
			}
			records, err := findRecords(cmd, args[0])
			if err != nil {
				return err
			}
			chosen, err := chooseAttempt(args[0], records, attempt)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				return printResult(out, &records[chosen])
			case asHTML:
				return report.HTML(out, records, chosen)
			}
			return report.Text(out, records, chosen)
		},
	}
	bindSocketFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result to the byte as it is sent to the master")
	cmd.Flags().BoolVar(&asHTML, "html", false, "print one self-contained HTML page")
	cmd.Flags().IntVar(&attempt, "attempt", 0, "show this attempt, from 1 (default the newest)")
	return cmd
}

// findRecords asks the running agent, and reads its journal where none runs: no two
// processes can have the journal open.
func findRecords(cmd *cobra.Command, id string) ([]job.Record, error) {
	client, err := dialAgent(cmd)
	if err != nil {
		return nil, err
	}
	records, err := client.Find(cmd.Context(), id)
	if !errors.Is(err, control.ErrNotRunning) {
		return records, err
	}
	loaded, err := load(cmd)
	if err != nil {
		return nil, err
	}
	return readRecords(cmd.Context(), client, journalPath(loaded.Config.DataDir), id)
}

// journalPath is where an agent keeps its journal.
func journalPath(dataDir string) string { return filepath.Join(dataDir, "journal.db") }

// readRecords reads the journal of an agent that does not run. One that is just
// starting has the journal before it answers, so it is asked once more.
func readRecords(ctx context.Context, client *control.Client, path, id string) (records []job.Record, err error) {
	reader, err := journal.OpenReadOnly(path)
	switch {
	case errors.Is(err, journal.ErrInUse):
		records, again := client.Find(ctx, id)
		if errors.Is(again, control.ErrNotRunning) {
			return nil, fmt.Errorf("an agent has the journal %s in use, but does not answer on the control socket %s; try again, or name its socket with --socket",
				path, client.Socket())
		}
		return records, again
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no agent answers on %s, and there is no journal %s; name the agent's configuration with --config", client.Socket(), path)
	case err != nil:
		return nil, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	return reader.Find(id)
}

// chooseAttempt finds the attempt, or the newest for 0.
func chooseAttempt(id string, records []job.Record, attempt int) (int, error) {
	if len(records) == 0 {
		return 0, fmt.Errorf("the journal has no job %s: it never ran here, or was so long ago that its record has made room", plain(id))
	}
	if attempt == 0 {
		return len(records) - 1, nil
	}
	i := slices.IndexFunc(records, func(r job.Record) bool { return r.Key().Attempt == attempt })
	if i < 0 {
		return 0, fmt.Errorf("the journal has no attempt %d at job %s; there are: %s", attempt, plain(id), strings.Join(attempts(records), ", "))
	}
	return i, nil
}

func attempts(records []job.Record) []string {
	var all []string
	for i := range records {
		all = append(all, fmt.Sprint(records[i].Key().Attempt))
	}
	return all
}

// printResult prints a result exactly as it is sent, followed by a newline on a terminal.
func printResult(out io.Writer, rec *job.Record) error {
	if err := report.JSON(out, rec); err != nil || !isTerminal(out) {
		return err
	}
	_, err := fmt.Fprintln(out)
	return err
}
