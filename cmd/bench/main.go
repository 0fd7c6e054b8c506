// Command bench measures the accuracy and the overhead of the energy meter. It compares
// measured energy with the energy of simulated power curves, checks the error bounds that
// the meter reports, and measures the agent's own CPU use. The exit status is 1 if any
// figure is outside its bound.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// The sections of the output.
const (
	sectionTotals = "Totals, simulated time: the worst window of each scenario"
	sectionShares = "Shares and parts by known CPU time, simulated time: the worst run of each scenario"
	sectionReal   = "Real agent and FFmpeg jobs on a fake machine (edge J: lateness of its counters)"
	sectionCost   = "CPU use of the agent"
)

type options struct {
	agent, only string
	seed        uint64
	windows     int
	json        bool
}

func main() {
	var o options
	flag.StringVar(&o.agent, "agent", "bin/agent", "`path` of the agent's binary; empty skips the sections that need it")
	flag.StringVar(&o.only, "only", "", "comma-separated `sections` to run: totals, shares, real, cost; empty runs all")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the windows' positions and of the read jitter")
	flag.IntVar(&o.windows, "windows", 40, "runs of each scenario, each with different window edges")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of tables")
	if slices.Equal(os.Args[1:], []string{wakeCommand}) {
		wake()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := bench(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		status = 1
	}
	stop()
	os.Exit(status)
}

// sections in the order of the output; the last two need the agent's binary.
var sections = []struct {
	name, title string
	measure     func(context.Context, *options, *report, io.Writer) error
	real        bool
}{
	{"totals", sectionTotals, totals, false},
	{"shares", sectionShares, shares, false},
	{"real", sectionReal, realJobs, true},
	{"cost", sectionCost, costs, true},
}

// bench runs the selected sections and returns the exit status.
func bench(ctx context.Context, o options, out io.Writer) (int, error) {
	text := out
	if o.json {
		text = io.Discard
	}
	selected := strings.Split(o.only, ",")
	var r report
	for _, s := range sections {
		switch {
		case o.only != "" && !slices.Contains(selected, s.name):
			r.Skipped = append(r.Skipped, s.name+": not selected")
			continue
		case s.real && o.agent == "":
			r.Skipped = append(r.Skipped, s.name+": -agent is empty")
			continue
		}
		fmt.Fprintf(text, "%s\n", s.title)
		if err := s.measure(ctx, &o, &r, text); err != nil {
			return 1, err
		}
		fmt.Fprintln(text)
	}
	for _, skipped := range r.Skipped {
		fmt.Fprintf(text, "skipped: %s\n", skipped)
	}
	if outside := r.outside(); outside > 0 {
		fmt.Fprintf(text, "%d of %d lines are OUTSIDE their bounds\n", outside, len(r.Rows)+len(r.Figures))
	} else {
		fmt.Fprintf(text, "all %d lines are within their bounds\n", len(r.Rows)+len(r.Figures))
	}
	if o.json {
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return 1, fmt.Errorf("writing JSON: %w", err)
		}
	}
	return min(1, r.outside()), nil
}

func totals(ctx context.Context, o *options, r *report, text io.Writer) error {
	printHeader(text)
	for _, s := range append(curveScenarios(), faultScenarios()...) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		row, err := measureTotal(s, o)
		if err != nil {
			return err
		}
		r.add(text, row)
	}
	return nil
}

func shares(ctx context.Context, o *options, r *report, text io.Writer) error {
	printHeader(text)
	for _, s := range shareScenarios() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rows, err := measureShares(s, o)
		if err != nil {
			return err
		}
		r.add(text, rows...)
	}
	return nil
}

func realJobs(ctx context.Context, o *options, r *report, text io.Writer) error {
	printHeader(text)
	rows, err := measureRealJobs(ctx, o.agent)
	if err != nil {
		return fmt.Errorf("running %s: %w", o.agent, err)
	}
	r.add(text, rows...)
	return nil
}

func costs(ctx context.Context, o *options, r *report, text io.Writer) (err error) {
	if r.Figures, err = measureCost(ctx, o.agent); err != nil {
		return fmt.Errorf("running %s: %w", o.agent, err)
	}
	for _, f := range r.Figures {
		f.print(text)
	}
	return nil
}

// add prints rows and adds them to the report.
func (r *report) add(text io.Writer, rows ...row) {
	for _, row := range rows {
		row.print(text)
	}
	r.Rows = append(r.Rows, rows...)
}
