package energy

import (
	"fmt"
	"strings"
	"time"
)

// stuckAfter is how long a sensor may read the same before it is taken for one
// that does not count, as some virtual machines have them.
const stuckAfter = time.Second

// part is what one zone brings to a figure.
type part struct {
	zone    *zoneBook
	tally   *tally
	energy  Microjoules
	bound   Joules
	percent float64 // covered
	gaps    int
	missing string // why there is no energy; empty when there is
}

// account draws up what a closed window cost.
func (l *Ledger) account(w *window, end time.Time, tails map[string]time.Duration) Account {
	a := Account{Start: w.start, End: end, Domains: map[Domain]Figure{}}
	var mine, all []part
	domains := map[Domain][]part{}
	for _, z := range l.zones {
		own := z.part(w, tails[z.zone.ID], func(t *tally) Microjoules { return t.share })
		machine := z.part(w, tails[z.zone.ID], func(t *tally) Microjoules { return t.machine })
		a.Zones = append(a.Zones, ZoneFigure{
			ID: z.zone.ID, Name: z.zone.Name, Domain: z.zone.Domain, Counted: z.zone.Counted,
			Figure: total([]part{machine}),
		})
		if z.zone.Counted {
			mine, all = append(mine, own), append(all, machine)
			domains[z.zone.Domain] = append(domains[z.zone.Domain], own)
		}
	}
	for domain, parts := range domains {
		a.Domains[domain] = total(parts)
	}
	a.Total, a.Machine = total(mine), total(all)
	a.ShareMethod = shareMethodOf(mine)
	a.MeanPower = meanPower(mine)
	return a
}

// part is what a zone brings to a window's figure, energy being what is taken
// from its tally.
func (z *zoneBook) part(w *window, tail time.Duration, energy func(*tally) Microjoules) part {
	p := part{zone: z, tally: w.tallies[z.zone.ID]}
	if p.tally != nil {
		p.gaps = p.tally.gaps
	}
	if z.fault != "" && w.from < z.faultAt && z.faultAt <= w.to {
		p.gaps++ // it broke off and has not come back
	}
	switch {
	case p.tally == nil || p.tally.covered <= 0:
		p.missing = "no reading in the window"
		if z.fault != "" {
			p.missing = z.fault
		}
		return p
	case z.zone.Source == Measured && p.tally.machine == 0 && p.tally.covered >= stuckAfter:
		p.missing = "the counter does not move"
		return p
	}
	p.energy = energy(p.tally)
	p.percent = min(100, 100*float64(p.tally.covered)/float64(w.to-w.from))
	p.bound = edgeBound(p.tally, z.zone.Update, tail) + Joules(z.zone.Uncertainty)*p.energy.Joules()
	return p
}

// edgeBound is how much energy may have been put on the wrong side of a window's
// two edges: power × (update + distance to the nearest reading) at each, with the
// highest power seen in the window.
func edgeBound(t *tally, update, tail time.Duration) Joules {
	late := 2*update + max(t.head, 0) + tail
	return Joules(float64(t.peak) * late.Seconds())
}

// total adds parts up. One part that was never known is left out and named; one
// that is usually known and was not in this window makes the coverage 0.
func total(parts []part) Figure {
	var sum Microjoules
	var bound Joules
	figure := Figure{Source: Unavailable, CoveragePercent: 100}
	for _, p := range parts {
		figure.Gaps += p.gaps
		if p.missing != "" {
			if p.zone.seen && p.tally != nil && p.tally.covered > 0 {
				continue // it counts nothing at any time
			}
			if p.zone.seen {
				figure.CoveragePercent = 0
			}
			continue
		}
		sum += p.energy
		bound += p.bound
		figure.CoveragePercent = min(figure.CoveragePercent, p.percent)
		if figure.Source != Estimated {
			figure.Source = p.zone.zone.Source
		}
	}
	figure.Method = methodOf(parts)
	if figure.Source == Unavailable {
		figure.CoveragePercent = 0
		return figure
	}
	joules := sum.Joules()
	figure.Energy, figure.ErrorBound = &joules, &bound
	return figure
}

// methodOf is the formula of a total, such as "rapl: package-0 + dram; nvml:
// card; without package-1: input/output error".
func methodOf(parts []part) string {
	if len(parts) == 0 {
		return "no sensor that counts towards the total"
	}
	var order []string
	names := map[string][]string{}
	var without []string
	for _, p := range parts {
		zone := p.zone.zone
		if p.missing != "" {
			without = append(without, fmt.Sprintf("without %s: %s", zone.Name, p.missing))
			continue
		}
		method := zone.Method
		if zone.Model != "" {
			method += " (" + zone.Model + ")"
		}
		if names[method] == nil {
			order = append(order, method)
		}
		names[method] = append(names[method], zone.Name)
	}
	var terms []string
	for _, method := range order {
		terms = append(terms, method+": "+strings.Join(names[method], " + "))
	}
	return strings.Join(append(terms, without...), "; ")
}

// shareMethodOf says how a job came by its total.
func shareMethodOf(parts []part) string {
	var byCPU, equally time.Duration
	known := false
	for _, p := range parts {
		if p.missing == "" {
			known = true
			byCPU += p.tally.byCPU
			equally += p.tally.equally
		}
	}
	switch {
	case !known:
		return "none"
	case byCPU == 0 && equally == 0:
		return "alone"
	case equally == 0:
		return "cpu time"
	case byCPU == 0:
		return "equal"
	}
	percent := 100 * byCPU.Seconds() / (byCPU + equally).Seconds()
	return fmt.Sprintf("cpu time %.1f %%, equal %.1f %%", percent, 100-percent)
}

// meanPower is the sum of the zones' mean powers, each over what was covered.
func meanPower(parts []part) *Watts {
	var sum Watts
	known := false
	for _, p := range parts {
		if p.missing == "" {
			known = true
			sum += Watts(float64(p.energy.Joules()) / p.tally.covered.Seconds())
		}
	}
	if !known {
		return nil
	}
	return &sum
}
