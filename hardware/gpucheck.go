package hardware

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"

	"ffmpeg-agent/hardware/energy"
)

const gpuCheckInterval = 100 * time.Millisecond // as while a job runs

// CheckGPU samples the cards for the given time, like the agent while a job runs, and writes a
// table that compares each card's energy counter with its integrated power. It fails with
// OpenNVML's error if there are no cards, and if a card could not be measured.
func CheckGPU(ctx context.Context, config NVMLConfig, length time.Duration, out io.Writer) error {
	n, err := OpenNVML(config)
	if err != nil {
		return fmt.Errorf("listing cards: %w", err)
	}
	check := gpuCheck{}
	check.sample(ctx, n, length)
	return errors.Join(check.write(n, out), n.Close())
}

// gpuCheck holds the totals of each card's zone.
type gpuCheck map[*energy.Zone]*gpuTotals

type gpuTotals struct {
	energy.Accumulator
	counted, integrated energy.Microjoules // over the same intervals
	elapsed             time.Duration      // of those intervals
	readings, faults    int
	last                energy.Reading
	lastFault           string
}

func (c gpuCheck) sample(ctx context.Context, n *NVML, length time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	ticker := time.NewTicker(gpuCheckInterval)
	defer ticker.Stop()
	for {
		readings, faults := n.Read()
		for _, r := range readings {
			c.totals(r.Zone).add(r)
		}
		for _, f := range faults {
			c.totals(f.Zone).faults++
			c.totals(f.Zone).lastFault = f.Err
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c gpuCheck) totals(z *energy.Zone) *gpuTotals {
	if c[z] == nil {
		c[z] = &gpuTotals{}
	}
	return c[z]
}

func (t *gpuTotals) add(r energy.Reading) {
	t.readings++
	if delta := t.Add(r); delta.Known() {
		t.counted += delta.Energy
		t.elapsed += delta.Elapsed
		if r.CrossCheck != nil && t.last.CrossCheck != nil && *r.CrossCheck >= *t.last.CrossCheck {
			t.integrated += *r.CrossCheck - *t.last.CrossCheck
		}
	}
	t.last = r
}

// difference returns the difference of the counter from the integrated power, relative to the
// latter; NaN if only one of them is known.
func (t *gpuTotals) difference() float64 {
	if t.integrated <= 0 {
		return math.NaN()
	}
	return float64(t.counted)/float64(t.integrated) - 1
}

func (c gpuCheck) write(n *NVML, out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CARD\tMODEL\tMETHOD\tTIME\tENERGY\tMEAN\tINTEGRATED\tDIFFERENCE\tREADINGS\tFAULTS\tGAPS")
	var errs []error
	notes := ""
	measured := map[string]bool{} // by UUID
	for _, z := range n.Zones() {
		measured[z.ID] = true
		t := c.totals(z)
		row := fmt.Sprintf("%s\t%s\t%s", z.Name, modelOf(n, z.ID), z.Method)
		if t.elapsed <= 0 {
			fmt.Fprintf(table, "%s\t-\t-\t-\t-\t-\t%d\t%d\t%d\n", row, t.readings, t.faults, t.Gaps())
			errs = append(errs, fmt.Errorf("%s (%s) was not measured: %s", z.Name, z.ID, t.failure()))
			continue
		}
		integrated, difference := "-", "-"
		if d := t.difference(); !math.IsNaN(d) {
			integrated, difference = fmt.Sprintf("%.1f J", t.integrated.Joules()), fmt.Sprintf("%+.1f %%", 100*d)
			if math.Abs(d) > energy.CrossCheckTolerance {
				notes += fmt.Sprintf("%s: energy counter and integrated power differ by more than %.0f %%; the agent uses the counter\n", z.Name, 100*energy.CrossCheckTolerance)
			}
		}
		fmt.Fprintf(table, "%s\t%.1f s\t%.1f J\t%.1f W\t%s\t%s\t%d\t%d\t%d\n", row, t.elapsed.Seconds(), t.counted.Joules(),
			float64(t.counted.Joules())/t.elapsed.Seconds(), integrated, difference, t.readings, t.faults, t.Gaps())
	}
	for _, card := range n.Cards() {
		if !measured[card.UUID] {
			fmt.Fprintf(table, "%d\t%s\treports neither energy nor power\n", card.Index, card.Name)
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	if _, err := io.WriteString(out, notes); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	if len(measured) == 0 {
		errs = append(errs, errors.New("no card reports its energy or power"))
	}
	return errors.Join(errs...)
}

func (t *gpuTotals) failure() string {
	if t.lastFault != "" {
		return t.lastFault
	}
	return fmt.Sprintf("%d readings and %d gaps", t.readings, t.Gaps())
}

func modelOf(n *NVML, uuid string) string {
	for _, card := range n.Cards() {
		if card.UUID == uuid {
			return card.Name
		}
	}
	return ""
}
