package energy

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// stuckAfter is how long a sensor must read the same to be taken for one that never
// counts, as some virtual machines have them. In less time it may not have been renewed.
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
	stuck   bool   // it counts nothing at any time, and nothing contradicts it
}

// account draws up what a closed window cost.
func (l *Ledger) account(w *window, end time.Time, tails map[string]time.Duration) Account {
	a := Account{Start: w.start, End: end, Domains: map[Domain]Breakdown{}}
	var mine, all []part
	domains := map[Domain][]part{}
	for _, z := range l.zones {
		if t := w.tallies[z.zone.ID]; z.gone && (t == nil || t.covered == 0) {
			continue
		}
		own := z.part(w, tails[z.zone.ID], func(t *tally) Microjoules { return t.share.sum() })
		if own.missing == "" {
			own.bound += own.tally.guessed.Joules()
		}
		machine := z.part(w, tails[z.zone.ID], func(t *tally) Microjoules { return t.machine })
		a.Zones = append(a.Zones, ZoneFigure{
			ID: z.zone.ID, Name: z.zone.Name, Domain: z.zone.Domain, Counted: z.zone.Counted,
			Figure: total([]part{machine}),
		})
		if note := own.contradiction(); note != "" {
			a.Notes = append(a.Notes, note)
		}
		if z.zone.Counted {
			mine, all = append(mine, own), append(all, machine)
			domains[z.zone.Domain] = append(domains[z.zone.Domain], own)
		}
	}
	for domain, parts := range domains {
		a.Domains[domain] = divided(parts)
	}
	a.Breakdown, a.Machine = divided(mine), total(all)
	a.ShareMethod = shareMethodOf(mine)
	a.MeanPower = meanPower(mine)
	a.Baseline = baselineOf(mine, end)
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
	case z.zone.Source == Measured && p.tally.machine == 0:
		p.missing, p.stuck = "the counter does not move", p.tally.covered >= stuckAfter
		if p.tally.cross > 0 {
			p.missing, p.stuck = fmt.Sprintf("the counter does not move, and its power, integrated, is %.4g J", p.tally.cross.Joules()), false
		}
		return p
	}
	p.energy = energy(p.tally)
	p.percent = min(100, 100*float64(p.tally.covered)/float64(w.to-w.from))
	// An end that was told too late has more than its share already.
	p.tally.cutAt.end = p.tally.cutAt.end || z.settledTo > w.to
	p.bound = edgeBound(p.tally, z.zone.UpdateInterval, tail) + p.tally.power.late(z.zone.AveragedOver) + portion(p.energy, time.Duration(p.tally.doubt), time.Duration(p.tally.machine)).Joules()
	if apart, contradict := p.tally.contradiction(); contradict {
		p.bound += Joules(apart) * p.energy.Joules()
	}
	return p
}

const (
	// CrossCheckTolerance is how far apart, as a part of the larger, two opinions of a
	// sensor contradict each other.
	CrossCheckTolerance = 0.1
	// averagedOver is how much of the past a second opinion may be the mean of: NVML's power
	// is the last second's. It must have been heard for twice as long to count.
	averagedOver    = time.Second
	contradictAfter = 2 * averagedOver
)

// contradiction is how far the second opinion lies from the counter, as a part of
// the counter's energy, where that is too far. Short windows in which the power changes much
// are judged loosely.
func (t *tally) contradiction() (apart float64, contradict bool) {
	if t.crossTime < contradictAfter || t.crossed <= 0 {
		return 0, false
	}
	difference := math.Abs(float64(t.cross - t.crossed))
	allowed := CrossCheckTolerance*float64(max(t.cross, t.crossed)) + float64(t.told.late(averagedOver).Microjoules())
	return difference / float64(t.crossed), difference > allowed
}

// contradiction in words; empty without one.
func (p *part) contradiction() string {
	if p.tally == nil || p.missing != "" {
		return ""
	}
	if _, contradict := p.tally.contradiction(); !contradict {
		return ""
	}
	return fmt.Sprintf("%s: its energy counter says %.4g J and its power, integrated, %.4g J; the error bound covers both",
		p.zone.zone.Name, p.tally.crossed.Joules(), p.tally.cross.Joules())
}

// mostVague is the part of a net figure of which it may be unknown who used it,
// before it is not told at all.
const mostVague = 0.1

// divided adds parts up and tells what the energy was used for, as far as that is
// known of every zone.
func divided(parts []part) Breakdown {
	s := Breakdown{Total: total(parts)}
	if s.Total.Source == Unavailable {
		none := Figure{Source: Unavailable, Method: s.Total.Method}
		s.Idle, s.Net, s.Job, s.Rest = none, none, none, none
		return s
	}
	var sum sharedParts
	var unknown []string
	for _, p := range parts {
		if p.missing != "" {
			continue
		}
		sum.add(p.tally.share)
		b := p.zone.calm.learned
		if b == nil || p.tally.share.undivided > 0 {
			unknown = append(unknown, p.zone.zone.Name)
			continue
		}
		sum.spread += Joules(float64(b.Spread) * p.tally.covered.Seconds())
	}
	if len(unknown) > 0 {
		none := Figure{Source: Unavailable, Method: "no idle baseline of " + strings.Join(unknown, ", ") +
			": the machine was not idle for long enough while the agent watched"}
		s.Idle, s.Net, s.Job, s.Rest = none, none, none, none
		return s
	}
	bound := *s.Total.ErrorBound + sum.spread
	s.Idle = s.Total.with(sum.idle, sum.spread, "idle baseline × time")
	s.Net = s.Total.with(sum.own+sum.rest+sum.vague, bound, "total − idle")
	net := sum.own + sum.rest + sum.vague
	if net > 0 && float64(sum.vague) > mostVague*float64(net) {
		none := Figure{Source: Unavailable, Method: "who used the machine is not known"}
		s.Job, s.Rest = none, none
		return s
	}
	bound += sum.vague.Joules()
	s.Job = s.Total.with(sum.own+sum.vague, bound, "net by the job's part of all use")
	s.Rest = s.Total.with(sum.rest, bound, "net − job")
	return s
}

// sharedParts add up the parts of zones.
type sharedParts struct {
	parts
	spread Joules
}

// with is a figure of the same provenance with another value.
func (f Figure) with(energy Microjoules, bound Joules, method string) Figure {
	joules := energy.Joules()
	f.Energy, f.ErrorBound, f.Method = &joules, &bound, method
	return f
}

// baselineOf adds up the baselines of zones; nil where one is not known.
func baselineOf(parts []part, now time.Time) *Baseline {
	var zones []*zoneBook
	for _, p := range parts {
		if p.missing == "" {
			if p.tally.share.undivided > 0 {
				return nil
			}
			zones = append(zones, p.zone)
		}
	}
	return sumBaselines(zones, now)
}

func sumBaselines(zones []*zoneBook, now time.Time) *Baseline {
	var sum Baseline
	for i, z := range zones {
		b := z.calm.baseline(now)
		if b == nil {
			return nil
		}
		sum.Power += b.Power
		sum.Spread += b.Spread
		if i == 0 || b.LearnedAt.Before(sum.LearnedAt) {
			sum.LearnedAt = b.LearnedAt
		}
		if i == 0 || b.Seconds < sum.Seconds {
			sum.Seconds = b.Seconds
		}
	}
	if len(zones) == 0 {
		return nil
	}
	return &sum
}

// edgeBound is how much energy may have been put on the wrong side of a window's
// two edges: power × (update + distance to the nearest reading) at each, with the
// highest power seen in the window. At an edge that lies in a gap nothing was put anywhere.
func edgeBound(t *tally, update, tail time.Duration) Joules {
	late := 2 * update
	if t.cutAt.start {
		late += max(t.head, 0)
	}
	if t.cutAt.end {
		late += tail
	}
	return Joules(float64(t.power.most) * late.Seconds())
}

// total adds parts up. One that is not known is left out and named, and makes the
// coverage 0 unless it is a sensor that never counts.
func total(parts []part) Figure {
	var sum Microjoules
	var bound Joules
	figure := Figure{Source: Unavailable, CoveragePercent: 100}
	for _, p := range parts {
		figure.Gaps += p.gaps
		if p.missing != "" {
			if !p.stuck {
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
	shared := map[string]time.Duration{}
	var all time.Duration
	known := false
	for _, p := range parts {
		if p.missing != "" {
			continue
		}
		known = true
		for method, length := range p.tally.shared {
			shared[method] += length
			all += length
		}
	}
	methods := slices.Sorted(maps.Keys(shared))
	switch {
	case !known:
		return "none"
	case len(methods) == 0:
		return shareAlone
	case len(methods) == 1:
		return methods[0]
	}
	for i, method := range methods {
		methods[i] = fmt.Sprintf("%s %.1f %%", method, 100*shared[method].Seconds()/all.Seconds())
	}
	return strings.Join(methods, ", ")
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
