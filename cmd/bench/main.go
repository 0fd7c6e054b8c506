// Command bench measures the meter: how far its joules are from those of power curves that
// it does not know, what it says of its own error, and what it costs to run. It ends with
// status 1 when a figure is outside its bound.
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
	sectionTotals = "Totals, virtual time: the worst window of each scenario"
	sectionShares = "Shares and parts by known CPU time, virtual time: the worst run of each"
	sectionBinary = "The real agent with real FFmpeg jobs, on a live machine (edge J: how late that was)"
	sectionCost   = "What the agent costs"
)

type options struct {
	agent, only string
	seed        uint64
	windows     int
	json        bool
}

func main() {
	var o options
	flag.StringVar(&o.agent, "agent", "bin/agent", "the agent's `binary`; empty leaves out what needs it")
	flag.StringVar(&o.only, "only", "", "the `sections` wanted, of totals, shares, real, cost; by comma; empty: all")
	flag.Uint64Var(&o.seed, "seed", 1, "of the windows' places and the readings' jitter")
	flag.IntVar(&o.windows, "windows", 40, "how often a scenario is played, each time with other edges")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of tables")
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
	{"real", sectionBinary, realJobs, true},
	{"cost", sectionCost, costs, true},
}

// bench measures what is wanted and gives the exit status.
func bench(ctx context.Context, o options, out io.Writer) (int, error) {
	text := out
	if o.json {
		text = io.Discard
	}
	wanted := strings.Split(o.only, ",")
	var r report
	for _, s := range sections {
		switch {
		case o.only != "" && !slices.Contains(wanted, s.name):
			r.LeftOut = append(r.LeftOut, s.name+": not asked for")
			continue
		case s.real && o.agent == "":
			r.LeftOut = append(r.LeftOut, s.name+": no -agent was named")
			continue
		}
		fmt.Fprintf(text, "%s\n", s.title)
		if err := s.measure(ctx, &o, &r, text); err != nil {
			return 1, err
		}
		fmt.Fprintln(text)
	}
	for _, left := range r.LeftOut {
		fmt.Fprintf(text, "left out: %s\n", left)
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
	printHead(text)
	for _, s := range append(shapes(), mishaps()...) {
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
	printHead(text)
	for _, s := range overlaps() {
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
	printHead(text)
	rows, err := measureBinary(ctx, o.agent)
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

// add takes rows in and prints them.
func (r *report) add(text io.Writer, rows ...row) {
	for _, row := range rows {
		row.print(text)
	}
	r.Rows = append(r.Rows, rows...)
}
