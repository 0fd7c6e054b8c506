// Command chaos drives real agents through faults and prints a verdict: which faults were
// seen to have an effect, and whether what must always hold did.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"ffmpeg-agent/internal/chaos"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// usageError is a mistake in the flags: exit status 2.
type usageError struct{ error }

// errViolated: the verdict, which has been printed, is a bad one.
var errViolated = errors.New("an invariant does not hold")

// run is the program; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := command()
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "chaos:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	return 1
}

// options are what the flags say.
type options struct {
	minutes            float64
	seed               uint64
	agents, faults     int
	only               []string
	replay, judge      string
	agent, master, dir string
	keep, list         bool
	likeField          bool
	minFaults          int
	minKinds           int
}

// Defaults of a schedule.
const (
	pace  = 3.5 // faults a second
	burst = 30 * time.Second
)

func command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Drive real agents through faults, and say what broke",
		Long: `Start agents and a master, let jobs flow, and play faults on all of them by a schedule that
a seed decides. A fault counts when its effect was seen. At the end: how often each kind was
seen, and whether each invariant held. Exit status 1 where one did not.`,
		Example:       "  chaos --minutes 2 --seed 1\n  chaos --only 'net:,ffmpeg: SIGKILL' --faults 50\n  chaos --replay /tmp/chaos-1234/schedule.json --keep",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unexpected argument %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.AddCommand(sabotageCommand())
	f := cmd.Flags()
	f.Float64Var(&o.minutes, "minutes", 2, "how long faults come, in `minutes`; rests between and the end come on top")
	f.Uint64Var(&o.seed, "seed", 1, "decides the schedule")
	f.IntVar(&o.agents, "agents", 2, "how many agents")
	f.IntVar(&o.faults, "faults", 0, fmt.Sprintf("how many faults (default: %g a second)", pace))
	f.StringSliceVar(&o.only, "only", nil, "only kinds that begin so, separated by commas")
	f.BoolVar(&o.list, "list", false, "print the kinds of faults, and do nothing")
	f.StringVar(&o.replay, "replay", "", "`file` with a schedule to play instead of one by seed")
	f.StringVar(&o.judge, "judge", "", "`file` with the history of a run to judge again instead of playing one")
	f.StringVar(&o.agent, "agent", "", "the agent's `program` (default: built from this module)")
	f.StringVar(&o.master, "devmaster", "", "the master's `program` (default: built from this module)")
	f.StringVar(&o.dir, "dir", "", "`folder` for logs, schedule and data (default: one below the system's temporary folder)")
	f.BoolVar(&o.likeField, "like-field", false, "give the master the habits of masters in use (devmaster --like-field)")
	f.BoolVar(&o.keep, "keep", false, "keep the folder of a run in which all held; one named by --dir is always kept")
	f.IntVar(&o.minFaults, "min-faults", 0, "fail when fewer faults were observed")
	f.IntVar(&o.minKinds, "min-kinds", 0, "fail when fewer kinds were observed, or an invariant had nothing to be checked on")
	return cmd
}

// schedule is what the flags ask for.
func (o *options) schedule() (chaos.Schedule, error) {
	if o.replay != "" {
		return chaos.LoadSchedule(o.replay)
	}
	kinds, err := chaos.SelectKinds(chaos.Kinds(), o.only)
	switch {
	case err != nil:
		return chaos.Schedule{}, usageError{fmt.Errorf("--only: %w", err)}
	case o.minutes <= 0 || o.minutes > 24*60:
		return chaos.Schedule{}, usageError{fmt.Errorf("--minutes %g: must be above 0, and a day at most", o.minutes)}
	case o.agents < 1 || o.agents > 16:
		return chaos.Schedule{}, usageError{fmt.Errorf("--agents %d: must be 1 to 16", o.agents)}
	case o.faults < 0:
		return chaos.Schedule{}, usageError{fmt.Errorf("--faults %d: must be 0 or more", o.faults)}
	}
	length := time.Duration(o.minutes * float64(time.Minute))
	n := o.faults
	if n == 0 {
		n = int(pace * length.Seconds())
	}
	return chaos.NewSchedule(o.seed, o.agents, n, length, burst, kinds), nil
}

func (o *options) run(ctx context.Context, out io.Writer) error {
	if o.list {
		fmt.Fprintln(out, chaos.KindNames(chaos.Kinds()))
		return nil
	}
	if o.judge != "" {
		history, err := chaos.LoadHistory(o.judge)
		if err != nil {
			return err
		}
		return o.verdict(out, history, history.Check())
	}
	schedule, err := o.schedule()
	if err != nil {
		return err
	}
	ours := o.dir == ""
	if ours {
		if o.dir, err = os.MkdirTemp("", "chaos-"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if err := o.build(ctx); err != nil {
		return err
	}
	saved := filepath.Join(o.dir, "schedule.json")
	if err := schedule.Save(saved); err != nil {
		return err
	}
	fmt.Fprintf(out, "seed %d: %d faults on %d agents within %s; logs in %s\n", schedule.Seed, len(schedule.Faults), schedule.Agents, schedule.Length, o.dir)
	history, notes, err := chaos.Run(ctx, chaos.Config{Agent: o.agent, Master: o.master, Dir: o.dir, Schedule: schedule, LikeField: o.likeField, Output: out})
	for _, n := range notes {
		fmt.Fprintln(out, "note:", n)
	}
	if err != nil {
		return fmt.Errorf("the run was not completed: %w; seed %d, logs in %s; play it again with --replay %s", err, schedule.Seed, o.dir, saved)
	}
	return o.conclude(out, history, schedule.Seed, saved, ours)
}

// conclude prints the verdict and how to play the same again, and removes the folder where
// all held and the folder is ours.
func (o *options) conclude(out io.Writer, h *chaos.History, seed uint64, saved string, ours bool) error {
	findings := h.Check()
	err := errors.Join(o.verdict(out, h, findings), h.Save(filepath.Join(o.dir, "history.jsonl"), findings))
	if err == nil && ours && !o.keep {
		fmt.Fprintf(out, "seed %d; play it again with %s\n", seed, o.again())
		return os.RemoveAll(o.dir)
	}
	fmt.Fprintf(out, "seed %d; logs, history.jsonl and the schedule are in %s; play it again with --replay %s\n", seed, o.dir, saved)
	return err
}

// again are the flags that play the same schedule.
func (o *options) again() string {
	if o.replay != "" {
		return "--replay " + o.replay
	}
	flags := fmt.Sprintf("--seed %d --minutes %g --agents %d", o.seed, o.minutes, o.agents)
	if o.faults != 0 {
		flags += fmt.Sprintf(" --faults %d", o.faults)
	}
	if o.likeField {
		flags += " --like-field"
	}
	if len(o.only) > 0 {
		flags += fmt.Sprintf(" --only '%s'", strings.Join(o.only, ","))
	}
	return flags
}

// verdict prints what came of it; an error says what does not hold.
func (o *options) verdict(out io.Writer, h *chaos.History, findings []chaos.Finding) error {
	h.Print(out, findings)
	faults, kinds := h.Observed()
	switch unchecked := chaos.Unchecked(findings); {
	case chaos.CountViolations(findings) > 0:
		return fmt.Errorf("%w: %d violations", errViolated, chaos.CountViolations(findings))
	case faults < o.minFaults || kinds < o.minKinds:
		return fmt.Errorf("observed %d faults of %d kinds, want at least %d of %d", faults, kinds, o.minFaults, o.minKinds)
	case o.minKinds > 0 && len(unchecked) > 0:
		return fmt.Errorf("never checked, because no case came up: %s", strings.Join(unchecked, "; "))
	}
	return nil
}

// build builds the programs that were not named.
func (o *options) build(ctx context.Context) error {
	for _, p := range []struct {
		path *string
		pkg  string
	}{{&o.agent, "ffmpeg-agent/cmd/agent"}, {&o.master, "ffmpeg-agent/cmd/devmaster"}} {
		if *p.path != "" {
			path, err := filepath.Abs(*p.path)
			if err != nil {
				return err
			}
			*p.path = path
			continue
		}
		*p.path = filepath.Join(o.dir, filepath.Base(p.pkg))
		if built, err := exec.CommandContext(ctx, "go", "build", "-tags", "netgo,osusergo", "-o", *p.path, p.pkg).CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w: %s", p.pkg, err, built)
		}
	}
	return nil
}
