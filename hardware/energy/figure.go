package energy

import (
	"fmt"
	"strings"
	"time"
)

// Figure is an amount of energy with its provenance.
type Figure struct {
	// Energy is in J; nil if Source is Unavailable.
	Energy *Joules `json:"joules,omitempty"`
	Source Source  `json:"source"`
	// Method names the sensors and, for a total, its formula: "rapl: package-0 + package-1 +
	// dram". It also names missing zones ("without …") and stuck counters. If Source is
	// Unavailable, it is the reason.
	Method string `json:"method,omitempty"`
	// CoveragePercent is the part of the window in which the sensors were read without a gap, 0
	// to 100. For a total it is that of its least covered zone: 0 if a counted zone had no
	// reading. A stuck counter is left out.
	CoveragePercent float64 `json:"coverage_percent"`
	// Gaps is the number of gaps in the window, summed over the zones of a total.
	Gaps int `json:"gaps"`
	// ErrorBound is in J: the true value is within Energy ± ErrorBound, except for energy used
	// during gaps, and provided that power at the window's edges did not exceed the highest mean
	// between two readings in it. For a share it includes all energy that was divided equally
	// because the use was unknown. nil if Source is Unavailable.
	ErrorBound *Joules `json:"error_bound_joules,omitempty"`
}

// ZoneFigure is a figure of one zone.
type ZoneFigure struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Domain  Domain `json:"domain"`
	Counted bool   `json:"counted"` // part of the total
	Figure
}

func unknownFigure(reason string) Figure { return Figure{Source: Unavailable, Method: reason} }

// with returns a figure of the same provenance with another value.
func (f Figure) with(energy Microjoules, bound Joules, method string) Figure {
	joules := energy.Joules()
	f.Energy, f.ErrorBound, f.Method = &joules, &bound, method
	return f
}

// stuckAfter is how long a counter must not have moved to be considered stuck, as in some virtual
// machines. In a shorter time it may not have been updated yet.
const stuckAfter = time.Second

// contribution is the part of one zone in a figure.
type contribution struct {
	zone    *zoneLedger
	tally   *tally
	energy  Microjoules
	bound   Joules
	percent float64 // covered
	gaps    int
	missing string // why the energy is unknown; empty if it is known
	stuck   bool   // missing because the counter is stuck, and the cross-check agrees
}

// contributions returns the job's share of a zone's energy in a window, and the machine's energy.
func (z *zoneLedger) contributions(w *window, endDistance time.Duration) (share, machine contribution) {
	t := w.tallies[z.zone.ID]
	c := contribution{zone: z, tally: t}
	if t != nil {
		c.gaps = t.gaps
	}
	if z.fault != "" && w.from < z.faultAt && z.faultAt <= w.to {
		c.gaps++ // a gap that has not ended yet
	}
	if c.missing, c.stuck = z.missing(t); c.missing != "" {
		return c, c
	}
	c.percent = min(100, 100*float64(t.covered)/float64(w.to-w.from))
	t.cutAtEnd = t.cutAtEnd || z.settledTo > w.to // the end was reported late
	of := func(energy, equalError Microjoules) contribution {
		c := c
		c.energy = energy
		c.bound = t.edgeBound(z.zone.UpdateInterval, endDistance) + t.power.averagingError(z.zone.AveragedOver) +
			portion(energy, t.errorBound, t.machine).Joules()
		if difference, contradict := t.contradiction(); contradict {
			c.bound += Joules(difference) * energy.Joules()
		}
		c.bound += equalError.Joules()
		return c
	}
	return of(t.share.total(), t.equalError), of(t.machine, 0)
}

// missing returns why the energy of a zone in a window is unknown; empty if it is known.
func (z *zoneLedger) missing(t *tally) (reason string, stuck bool) {
	switch {
	case (t == nil || t.covered == 0) && z.fault != "":
		return z.fault, false
	case t == nil || t.covered == 0:
		return "no reading in the window", false
	case z.zone.Source != Measured || t.machine > 0:
		return "", false
	case t.crossCheck > 0:
		return fmt.Sprintf("the counter does not move, but integrated power is %.4g J", t.crossCheck.Joules()), false
	}
	return "the counter does not move", t.covered >= stuckAfter
}

// contradiction returns the note on a counter and a cross-check that contradict each other; empty
// if they agree.
func (c *contribution) contradiction() string {
	if c.missing != "" {
		return ""
	}
	if _, contradict := c.tally.contradiction(); !contradict {
		return ""
	}
	return fmt.Sprintf("%s: energy counter %.4g J, integrated power %.4g J; the error bound covers both",
		c.zone.zone.Name, c.tally.checked.Joules(), c.tally.crossCheck.Joules())
}

// sumFigure sums up contributions. An unknown contribution is left out and named, and makes the
// coverage 0 unless the counter is stuck.
func sumFigure(contributions []contribution) Figure {
	var sum Microjoules
	var bound Joules
	f := Figure{Source: Unavailable, Method: sumMethod(contributions), CoveragePercent: 100}
	for _, c := range contributions {
		f.Gaps += c.gaps
		if c.missing != "" {
			if !c.stuck {
				f.CoveragePercent = 0
			}
			continue
		}
		sum += c.energy
		bound += c.bound
		f.CoveragePercent = min(f.CoveragePercent, c.percent)
		if f.Source != Estimated {
			f.Source = c.zone.zone.Source
		}
	}
	if f.Source == Unavailable {
		f.CoveragePercent = 0
		return f
	}
	return f.with(sum, bound, f.Method)
}

// sumMethod returns the formula of a total: "rapl: package-0 + dram; nvml: card; without
// package-1: input/output error".
func sumMethod(contributions []contribution) string {
	if len(contributions) == 0 {
		return "no sensor that counts towards the total"
	}
	var methods, without []string
	names := map[string][]string{}
	for _, c := range contributions {
		zone := c.zone.zone
		if c.missing != "" {
			without = append(without, fmt.Sprintf("without %s: %s", zone.Name, c.missing))
			continue
		}
		method := zone.Method
		if zone.Model != "" {
			method += " (" + zone.Model + ")"
		}
		if names[method] == nil {
			methods = append(methods, method)
		}
		names[method] = append(names[method], zone.Name)
	}
	for i, method := range methods {
		methods[i] = method + ": " + strings.Join(names[method], " + ")
	}
	return strings.Join(append(methods, without...), "; ")
}
