package main

import (
	"bytes"
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
	"ffmpeg-agent/internal/safetext"
	"ffmpeg-agent/messages/job"
)

func newReport() *cobra.Command {
	var asJSON, asHTML bool
	var attempt int
	cmd := &cobra.Command{
		Use:   "report JOB",
		Short: "Show the outcome and the energy account of a job",
		Long: `Show a job that this machine has run: outcome, encode, and where its energy went. JOB is
its id, the beginning of it, or its sequence number, as agent jobs lists them. The data
comes from the running agent or, if there is none, from its journal. --html prints a
self-contained page with a graph of power over time. Exit status 1 if there is no such job.`,
		Example: "  agent report 1042\n  agent report 7f3a --attempt 1 --html > report.html\n  agent report 7f3a9c --json | jq .energy_joules",
		Args:    oneArgument("a job's id or number"),
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

// findRecords gets the attempts at the job that is meant: by its id, the beginning of it, or
// its sequence number.
func findRecords(cmd *cobra.Command, given string) ([]job.Record, error) {
	records, err := recordsOf(cmd, given)
	if err != nil || len(records) > 0 {
		return records, err
	}
	all, err := recentAttempts(cmd)
	if err != nil {
		return nil, err
	}
	id, err := resolveJob(given, all)
	if err != nil {
		return nil, err
	}
	return recordsOf(cmd, id)
}

func recordsOf(cmd *cobra.Command, id string) ([]job.Record, error) {
	return fromJournal(cmd, func(ctx context.Context, c *control.Client) ([]job.Record, error) { return c.Find(ctx, id) },
		func(r *journal.Reader) ([]job.Record, error) { return r.Find(id) })
}

// readJournal reads the journal. If that is in use, an agent has just started, and readJournal
// asks it once more: it opens the journal before its control socket.
func readJournal[T any](ctx context.Context, client *control.Client, path string, ask func(context.Context, *control.Client) (T, error), read func(*journal.Reader) (T, error)) (answer T, err error) {
	reader, err := journal.OpenReadOnly(path, journalInspector)
	switch {
	case errors.Is(err, journal.ErrInUse):
		answer, err := ask(ctx, client)
		if errors.Is(err, control.ErrNotRunning) {
			return answer, fmt.Errorf("the journal %s is in use by an agent that does not answer on the control socket %s; try again, or pass its socket with --socket",
				path, client.Socket())
		}
		return answer, err
	case errors.Is(err, fs.ErrNotExist):
		return answer, fmt.Errorf("%w on %s, and there is no journal %s; pass the agent's configuration with --config", control.ErrNotRunning, client.Socket(), path)
	case err != nil:
		return answer, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	return read(reader)
}

// chooseAttempt returns the index of an attempt, or of the latest one if attempt is 0.
func chooseAttempt(id string, records []job.Record, attempt int) (int, error) {
	if len(records) == 0 {
		return 0, fmt.Errorf("no job %s in the journal", plain(id)) // removed meanwhile
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

// printResult prints a result exactly as it is sent. On a terminal a newline follows, and
// characters that terminals obey are escaped.
func printResult(out io.Writer, rec *job.Record) error {
	if !isTerminal(out) {
		return report.JSON(out, rec)
	}
	var result bytes.Buffer
	if err := report.JSON(&result, rec); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s\n", safetext.JSON(result.Bytes()))
	return err
}
