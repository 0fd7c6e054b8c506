package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ffmpeg-agent/internal/chaos"
)

// trial is how each sabotage is looked for.
const (
	trialLength = 40 * time.Second
	trialFaults = 60
	trialBurst  = 20 * time.Second
)

// sabotageOptions are what the flags of the subcommand say.
type sabotageOptions struct {
	root, dir string
	seed      uint64
	only      []string
	list      bool
}

func sabotageCommand() *cobra.Command {
	var o sabotageOptions
	cmd := &cobra.Command{
		Use:   "sabotage",
		Short: "Break the agent's own code in known ways, and say which a run catches",
		Long: `Build the agent once for each of a list of sabotages of its code, which the files on disk are
spared, and drive each through the faults that should bring it to light. The code as it is goes
first, through faults of all kinds: what is caught there too proves nothing. Exit status 1 where
a sabotage is not caught or could not be played, or the code as it is violates an invariant.`,
		Example: "  chaos sabotage\n  chaos sabotage --only 'a result is sent'",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.root, "root", ".", "the module's `folder`")
	f.StringVar(&o.dir, "dir", "", "`folder` for logs and programs (default: one below the system's temporary folder)")
	f.Uint64Var(&o.seed, "seed", 1, "decides the schedules")
	f.StringSliceVar(&o.only, "only", nil, "only those whose names begin so, separated by commas")
	f.BoolVar(&o.list, "list", false, "print the list, and do nothing")
	return cmd
}

func (o *sabotageOptions) wants(s chaos.Sabotage) bool {
	for _, prefix := range o.only {
		if strings.HasPrefix(s.Name, prefix) {
			return true
		}
	}
	return len(o.only) == 0
}

func (o *sabotageOptions) run(ctx context.Context, out io.Writer) (err error) {
	if o.root, err = filepath.Abs(o.root); err != nil {
		return err
	}
	if o.dir == "" && !o.list {
		if o.dir, err = os.MkdirTemp("", "sabotage-"); err != nil {
			return err
		}
	}
	master := filepath.Join(o.dir, "devmaster")
	if !o.list {
		if err := o.build(ctx, master, "./cmd/devmaster", nil); err != nil {
			return err
		}
	}
	if !o.list {
		by, err := o.try(ctx, "control", master, chaos.Sabotage{})
		if err != nil {
			return fmt.Errorf("the code as it is: %w", err)
		}
		if len(by) > 0 {
			return fmt.Errorf("the code as it is violates %s; logs in %s", strings.Join(by, "; "), o.dir)
		}
		fmt.Fprintln(out, " 0  clean   the code as it is")
	}
	var count tally
	for i, s := range chaos.Sabotages() {
		switch {
		case !o.wants(s):
		case o.list, s.ProvenBy != "":
			fmt.Fprintf(out, "%2d  %s\n", i+1, strings.TrimSuffix(s.Name+" (not played; see "+s.ProvenBy+")", " (not played; see )"))
		default:
			by, err := o.try(ctx, fmt.Sprint(i+1), master, s)
			how, why, err := count.add(by, err)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			fmt.Fprintf(out, "%2d  %s  %s\n", i+1, how, s.Name)
			if why != "" {
				fmt.Fprintf(out, "            %s\n", why)
			}
		}
	}
	if o.list {
		return nil
	}
	fmt.Fprintf(out, "%d caught, %d missed, %d could not be played; logs in %s\n", count.caught, count.missed, count.unplayed, o.dir)
	return count.verdict()
}

// errUnplayed: a run was not completed, which proves nothing.
var errUnplayed = errors.New("could not be played")

// tally counts how sabotages fared.
type tally struct{ caught, missed, unplayed int }

// add counts what try returned, and says how that sabotage fared and why. An error is one
// that ends the program.
func (t *tally) add(by []string, err error) (how, why string, fatal error) {
	switch {
	case errors.Is(err, errUnplayed):
		t.unplayed++
		return "FAILED", err.Error(), nil
	case err != nil:
		return "", "", err
	case len(by) == 0:
		t.missed++
		return "MISSED", "", nil
	}
	t.caught++
	return "caught", "by: " + strings.Join(by, "; "), nil
}

// verdict is an error where not all were caught.
func (t *tally) verdict() error {
	if t.missed+t.unplayed == 0 {
		return nil
	}
	return fmt.Errorf("%d sabotages are not caught, and %d could not be played", t.missed, t.unplayed)
}

// try plays one sabotage and returns the invariants that it violates.
func (o *sabotageOptions) try(ctx context.Context, name, master string, s chaos.Sabotage) (by []string, err error) {
	dir := filepath.Join(o.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	agent := filepath.Join(dir, "agent")
	if err := o.build(ctx, agent, "./cmd/agent", s.Edits); err != nil {
		return nil, err
	}
	kinds, err := chaos.SelectKinds(chaos.Kinds(), s.Faults)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "chaos.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	history, _, err := chaos.Run(ctx, chaos.Config{
		Agent: agent, Master: master, Dir: dir, Output: log,
		Schedule: chaos.NewSchedule(o.seed, 2, trialFaults, trialLength, trialBurst, kinds),
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnplayed, err)
	}
	findings := history.Check()
	history.Print(log, findings)
	for _, f := range findings {
		if len(f.Violations) > 0 {
			by = append(by, fmt.Sprintf("%s (%d)", f.Invariant, len(f.Violations)))
		}
	}
	return by, history.Save(filepath.Join(dir, "history.jsonl"), findings)
}

// build builds a program of the module with edits that the files on disk do not get.
func (o *sabotageOptions) build(ctx context.Context, target, pkg string, edits []chaos.Edit) error {
	args := []string{"build", "-tags", "netgo,osusergo", "-o", target}
	if len(edits) > 0 {
		overlay, err := o.overlay(filepath.Dir(target), edits)
		if err != nil {
			return err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = o.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s", pkg, err, out)
	}
	return nil
}

// overlay writes edited files and the list by which go build reads them in place of those
// on disk (go help build, -overlay).
func (o *sabotageOptions) overlay(dir string, edits []chaos.Edit) (string, error) {
	replace := map[string]string{}
	for i, e := range edits {
		original := filepath.Join(o.root, filepath.FromSlash(e.File))
		from := original
		if edited, again := replace[original]; again {
			from = edited
		}
		raw, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if strings.Count(string(raw), e.Old) != 1 {
			return "", errors.New("the text to replace is not in it exactly once: " + e.File)
		}
		edited := filepath.Join(dir, fmt.Sprintf("edit-%d.go", i))
		if err := os.WriteFile(edited, []byte(strings.Replace(string(raw), e.Old, e.New, 1)), 0o644); err != nil {
			return "", err
		}
		replace[original] = edited
	}
	raw, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, raw, 0o644)
}
