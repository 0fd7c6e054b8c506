package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ffmpeg-agent/internal/control"
	"ffmpeg-agent/internal/journal"
	"ffmpeg-agent/messages/job"
)

func newJobs() *cobra.Command {
	var asJSON, onlyFailed bool
	var limit int
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "List the recent attempts at jobs",
		Long: `List the attempts at jobs that this machine has made, newest first: outcome, time, energy,
output. A job that was retried here has a line for each attempt. The data comes from the
running agent or, if there is none, from its journal. agent report NUMBER shows one.`,
		Example: "  agent jobs\n  agent jobs --failed -n 100\n  agent jobs --json | jq '.[] | select(.joules > 1000) | .job_id'",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usageError{fmt.Errorf("-n %d: must be at least 1", limit)}
			}
			all, err := recentAttempts(cmd)
			if err != nil {
				return err
			}
			total := len(all)
			if onlyFailed {
				all = slices.DeleteFunc(all, func(s job.Summary) bool { return !s.Failed() })
			}
			shown := all[:min(limit, len(all))]
			if asJSON {
				return printJobsJSON(cmd.OutOrStdout(), shown)
			}
			printJobs(cmd.OutOrStdout(), shown, onlyFailed)
			if len(all) > len(shown) || onlyFailed {
				fmt.Fprintf(cmd.OutOrStdout(), "\n%d of %s in the journal\n", len(shown), plural(total, "attempt"))
			}
			return nil
		},
	}
	bindSocketFlags(cmd)
	cmd.Flags().BoolVar(&onlyFailed, "failed", false, "only attempts that failed, and results that the master rejected")
	cmd.Flags().IntVarP(&limit, "number", "n", 20, "how many to show")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// fromJournal asks the running agent, or reads its journal if no agent runs: only one process
// can have the journal open.
func fromJournal[T any](cmd *cobra.Command, ask func(context.Context, *control.Client) (T, error), read func(*journal.Reader) (T, error)) (T, error) {
	client, err := dialAgent(cmd)
	if err != nil {
		return *new(T), err
	}
	answer, err := ask(cmd.Context(), client)
	if !errors.Is(err, control.ErrNotRunning) {
		return answer, err
	}
	loaded, err := load(cmd)
	if err != nil {
		return *new(T), err
	}
	return readJournal(cmd.Context(), client, journalPath(loaded.Config.DataDir), ask, read)
}

// recentAttempts are all attempts in the journal, newest first.
func recentAttempts(cmd *cobra.Command) ([]job.Summary, error) {
	return fromJournal(cmd, func(ctx context.Context, c *control.Client) ([]job.Summary, error) { return c.Recent(ctx) }, (*journal.Reader).Recent)
}

func printJobsJSON(out io.Writer, jobs []job.Summary) error {
	if jobs == nil {
		jobs = []job.Summary{}
	}
	return printJSON(out, "jobs", jobs)
}

// printJobs prints a line for each attempt; of failed ones, the reason instead of the output.
func printJobs(out io.Writer, jobs []job.Summary, onlyFailed bool) {
	if len(jobs) == 0 {
		fmt.Fprintln(out, map[bool]string{true: "no failed attempts in the journal", false: "no attempts in the journal"}[onlyFailed])
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "number\tjob\tattempt\tscenario\toutcome\tfinished\twall\tjoules\toutput, or why it failed")
	for i := range jobs {
		s := &jobs[i]
		finished, wall, last := unknown, unknown, cmp.Or(plain(s.Output), "not kept")
		if s.FinishedAt != nil {
			finished = s.FinishedAt.Local().Format("2006-01-02 15:04:05")
		}
		if s.WallSeconds != nil {
			wall = span(time.Duration(*s.WallSeconds * float64(time.Second)))
		}
		outcome := plain(s.Status)
		if s.State == job.RecordResult {
			outcome += ", not delivered"
		}
		if s.Status != "completed" || s.State == job.RecordDeadLetter {
			last = cmp.Or(shortened(plain(failureOf(s)), 60), unknown)
		}
		energy := unknown
		if s.Joules != nil {
			energy = figure(s.Joules, 1)
			if s.Source != "measured" {
				energy += " " + string(s.Source)
			}
		}
		fmt.Fprintln(w, strings.Join([]string{nonZero(int(s.SequenceNumber)), shortened(plain(s.JobID), 36), strconv.Itoa(s.Attempt), cmp.Or(shortened(plain(s.Scenario), 24), unknown),
			outcome, finished, wall, energy, last}, "\t"))
	}
	w.Flush() //nolint:errcheck // standard output is gone
}

func failureOf(s *job.Summary) string {
	if s.State == job.RecordDeadLetter {
		return "rejected by the master: " + s.Why
	}
	if s.FailureReason != "" {
		return string(s.FailureReason) + ": " + s.Error
	}
	return s.Error
}

// shortened cuts a text to a number of characters.
func shortened(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// resolveJob finds the job that an argument names: by its whole id, its sequence number, or a
// prefix of its id that no other job has.
func resolveJob(given string, all []job.Summary) (id string, err error) {
	number, numberErr := strconv.ParseInt(given, 10, 64)
	var byPrefix, near []job.Summary
	var byNumber string
	seen := map[string]bool{}
	for _, s := range all {
		switch {
		case s.JobID == given:
			return given, nil
		case seen[s.JobID]:
			continue
		case numberErr == nil && s.SequenceNumber == number && number > 0:
			byNumber = cmp.Or(byNumber, s.JobID)
		case strings.HasPrefix(s.JobID, given):
			byPrefix = append(byPrefix, s)
		case isNear(given, &s):
			near = append(near, s)
		}
		seen[s.JobID] = true
	}
	switch {
	case byNumber != "":
		return byNumber, nil
	case len(byPrefix) == 1:
		return byPrefix[0].JobID, nil
	case len(byPrefix) > 1:
		return "", fmt.Errorf("%q is the beginning of %d jobs: %s", plain(given), len(byPrefix), offered(byPrefix))
	case len(all) == 0:
		return "", fmt.Errorf("no job %s: the journal is empty", plain(given))
	case len(near) > 0:
		return "", fmt.Errorf("no job %s in the journal. Similar: %s", plain(given), offered(near))
	}
	return "", fmt.Errorf("no job %s in the journal: it has not run here, or its record has been removed to make room. The latest: %s (agent jobs lists them)", plain(given), offered(all))
}

// offered names up to five jobs.
func offered(jobs []job.Summary) string {
	var names []string
	for i := range jobs {
		s := &jobs[i]
		name := plain(s.JobID)
		if s.SequenceNumber > 0 {
			name += fmt.Sprintf(" (number %d)", s.SequenceNumber)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if more := len(names) - 5; more > 0 {
		names = append(names[:5], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// isNear reports whether a text may be meant for a job: it occurs in the id, or differs from
// the beginning of it, or from the number, in few characters.
func isNear(given string, s *job.Summary) bool {
	const enough = 3 // shorter texts are near to everything
	given, id := strings.ToLower(given), strings.ToLower(s.JobID)
	if number := strconv.FormatInt(s.SequenceNumber, 10); len(given) > 1 && s.SequenceNumber > 0 && distance(given, number) == 1 {
		return true
	}
	if len(given) < enough {
		return false
	}
	if strings.Contains(id, given) {
		return true
	}
	return distance(given, id[:min(len(id), len(given))]) <= max(1, len(given)/4)
}

// distance is the Levenshtein distance of two texts: how many bytes have to be inserted,
// removed or replaced to make one the other.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
