package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
		Short: "Show the outcome and the energy account of a job",
		Long: `Show a job that this machine has run: outcome, encode, and where its energy went. The
data comes from the running agent or, if there is none, from its journal. --html prints
a self-contained page with a graph of power over time. Exit status 1 if the journal has
no such job.`,
		Example: "  agent report 7f3a9c\n  agent report 7f3a9c --attempt 1 --html > report.html\n  agent report 7f3a9c --json | jq .energy_joules",
		Args:    oneArgument("a job's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && asHTML {
				return usageError{errors.New("--json and --html exclude each other")}
			}
			if cmd.Flags().Changed("attempt") && attempt < 1 {
				return usageError{fmt.Errorf("--attempt %d: must be at least 1", attempt)}
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
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result exactly as sent to the master")
	cmd.Flags().BoolVar(&asHTML, "html", false, "print one self-contained HTML page")
	cmd.Flags().IntVar(&attempt, "attempt", 0, "show the `N`th attempt, from 1 (default the latest)")
	return cmd
}

// findRecords gets the attempts at a job from the running agent, or from its journal if no
// agent runs: only one process can have the journal open.
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

// readRecords reads the journal. If that is in use, an agent has just started, and
// readRecords asks it once more: it opens the journal before its control socket.
func readRecords(ctx context.Context, client *control.Client, path, id string) (records []job.Record, err error) {
	reader, err := journal.OpenReadOnly(path, journalInspector)
	switch {
	case errors.Is(err, journal.ErrInUse):
		records, err := client.Find(ctx, id)
		if errors.Is(err, control.ErrNotRunning) {
			return nil, fmt.Errorf("the journal %s is in use by an agent that does not answer on the control socket %s; try again, or pass its socket with --socket",
				path, client.Socket())
		}
		return records, err
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no agent answers on %s, and there is no journal %s; pass the agent's configuration with --config", client.Socket(), path)
	case err != nil:
		return nil, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	return reader.Find(id)
}

// chooseAttempt returns the index of an attempt, or of the latest one if attempt is 0.
func chooseAttempt(id string, records []job.Record, attempt int) (int, error) {
	if len(records) == 0 {
		return 0, fmt.Errorf("no job %s in the journal: it has not run here, or its record has been removed to make room", plain(id))
	}
	if attempt == 0 {
		return len(records) - 1, nil
	}
	i := slices.IndexFunc(records, func(r job.Record) bool { return r.Key().Attempt == attempt })
	if i < 0 {
		var known []string
		for _, r := range records {
			known = append(known, fmt.Sprint(r.Key().Attempt))
		}
		return 0, fmt.Errorf("no attempt %d of job %s in the journal, which has: %s", attempt, plain(id), strings.Join(known, ", "))
	}
	return i, nil
}

// printResult prints a result exactly as it is sent, followed by a newline on a terminal.
func printResult(out io.Writer, rec *job.Record) error {
	if err := report.JSON(out, rec); err != nil || !isTerminal(out) {
		return err
	}
	_, err := fmt.Fprintln(out)
	return err
}
