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

// CheckGPU samples the machine's cards for a length of time as the agent does while a
// job runs, and writes a table of what each one's energy counter and its integrated
// power came to. It fails with OpenNVML's error where there are no cards, and when a card
// could not be measured.
func CheckGPU(ctx context.Context, config NVMLConfig, length time.Duration, out io.Writer) error {
	n, err := OpenNVML(config)
	if err != nil {
		return fmt.Errorf("looking for cards: %w", err)
	}
	check := gpuCheck{zones: map[*energy.Zone]*gpuTotals{}}
	check.sample(ctx, n, length)
	return errors.Join(check.write(n, out), n.Close())
}

// gpuCheck adds up what each card used.
type gpuCheck struct {
	zones map[*energy.Zone]*gpuTotals
}

// gpuTotals is one card's.
type gpuTotals struct {
	energy.Accumulator
	counted, cross  energy.Microjoules // over the same intervals
	length          time.Duration      // of those
	readings, fails int
	last            energy.Reading
	why             string // of the latest failure
}

func (c *gpuCheck) sample(ctx context.Context, n *NVML, length time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	ticker := time.NewTicker(gpuCheckInterval)
	defer ticker.Stop()
	for {
		readings, faults := n.Read()
		for _, r := range readings {
			c.of(r.Zone).add(r)
		}
		for _, f := range faults {
			c.of(f.Zone).fails++
			c.of(f.Zone).why = f.Err
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *gpuCheck) of(z *energy.Zone) *gpuTotals {
	if c.zones[z] == nil {
		c.zones[z] = &gpuTotals{}
	}
	return c.zones[z]
}

func (t *gpuTotals) add(r energy.Reading) {
	t.readings++
	if delta := t.Add(r); delta.Known() {
		t.counted += delta.Energy
		t.length += delta.Elapsed
		if r.CrossCheck != nil && t.last.CrossCheck != nil && *r.CrossCheck >= *t.last.CrossCheck {
			t.cross += *r.CrossCheck - *t.last.CrossCheck
		}
	}
	t.last = r
}

// apart is by how much of the integrated power the counter differs from it; NaN where
// there is no second opinion.
func (t *gpuTotals) apart() float64 {
	if t.cross <= 0 {
		return math.NaN()
	}
	return float64(t.counted)/float64(t.cross) - 1
}

func (c *gpuCheck) write(n *NVML, out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CARD\tMODEL\tBY\tTIME\tENERGY\tMEAN\tPOWER ADDED UP\tAPART\tREADINGS\tFAULTS\tGAPS")
	var errs []error
	notes := ""
	for _, z := range n.Zones() {
		t := c.of(z)
		row := fmt.Sprintf("%s\t%s\t%s", z.Name, modelOf(n, z.ID), z.Method)
		if t.length <= 0 {
			fmt.Fprintf(table, "%s\t-\t-\t-\t-\t-\t%d\t%d\t%d\n", row, t.readings, t.fails, t.Gaps())
			errs = append(errs, fmt.Errorf("%s (%s) was not measured: %s", z.Name, z.ID, t.failure()))
			continue
		}
		cross, apart := "-", "-"
		if a := t.apart(); !math.IsNaN(a) {
			cross, apart = fmt.Sprintf("%.1f J", t.cross.Joules()), fmt.Sprintf("%+.1f %%", 100*a)
			if math.Abs(a) > energy.CrossCheckTolerance {
				notes += fmt.Sprintf("%s: energy counter and power differ by more than %.0f %%; the counter is what is used.\n", z.Name, 100*energy.CrossCheckTolerance)
			}
		}
		fmt.Fprintf(table, "%s\t%.1f s\t%.1f J\t%.1f W\t%s\t%s\t%d\t%d\t%d\n", row, t.length.Seconds(), t.counted.Joules(),
			float64(t.counted.Joules())/t.length.Seconds(), cross, apart, t.readings, t.fails, t.Gaps())
	}
	for _, card := range n.Cards() {
		if _, measured := zoneOf(n, card.UUID); !measured {
			fmt.Fprintf(table, "%d\t%s\tnothing: tells neither energy nor power\n", card.Index, card.Name)
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	if _, err := io.WriteString(out, notes); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	if len(n.Zones()) == 0 {
		errs = append(errs, errors.New("no card tells its energy or power"))
	}
	return errors.Join(errs...)
}

func (t *gpuTotals) failure() string {
	if t.why != "" {
		return t.why
	}
	return fmt.Sprintf("%d readings and %d gaps", t.readings, t.Gaps())
}

func zoneOf(n *NVML, uuid string) (*energy.Zone, bool) {
	for _, z := range n.Zones() {
		if z.ID == uuid {
			return z, true
		}
	}
	return nil, false
}

func modelOf(n *NVML, uuid string) string {
	for _, card := range n.Cards() {
		if card.UUID == uuid {
			return card.Name
		}
	}
	return ""
}
