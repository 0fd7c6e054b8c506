package energy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Account is the energy cost of one job.
type Account struct {
	Start time.Time `json:"start"` // FFmpeg's start
	End   time.Time `json:"end"`   // FFmpeg's exit
	// Breakdown is the job's energy. Its Total is the energy of the machine in the window, idle
	// included, or the job's share of it if jobs overlapped.
	Breakdown
	// Machine is the energy of the machine in the window, used by all jobs and processes.
	Machine Figure `json:"machine"`
	// Domains is the breakdown by domain (cpu, dram, gpu).
	Domains map[Domain]Breakdown `json:"domains,omitempty"`
	// Zones are the machine's figures by zone, including zones that are not counted (core, psys).
	Zones []ZoneFigure `json:"zones,omitempty"`
	// ShareMethod is how Total was divided between jobs: "alone", a Usage.Method, "equal" if the
	// use was unknown, or several of these with their percentages of the shared time; "none" if
	// Total is unavailable.
	ShareMethod string `json:"share_method"`
	// MeanPower is that of Total in W over the covered part of the window; nil if unknown.
	MeanPower *Watts `json:"mean_power_watts,omitempty"`
	// Baseline is the one that Idle was computed from; nil if there was none.
	Baseline *Baseline `json:"baseline,omitempty"`
	// Notes are remarks on the figures, such as sensors that contradict each other.
	Notes []string `json:"notes,omitempty"`
}

// Breakdown is an amount of energy and its parts. If all parts are known, Total = Idle + Net and
// Net = Job + Rest, to the microjoule.
type Breakdown struct {
	Total Figure `json:"total"`
	// Idle is the energy that the machine would have used in the window without any job, by the
	// baseline. Without a baseline it is unavailable, and its Method is the reason.
	Idle Figure `json:"idle"`
	// Net is Total − Idle.
	Net Figure `json:"net"`
	// Job is the part of Net that the job's own processes used, by their share of all CPU time
	// or of all use of a card.
	Job Figure `json:"job"`
	// Rest is the part of Net that processes of no job used.
	Rest Figure `json:"rest"`
}

// Duration returns the length of the window.
func (a *Account) Duration() time.Duration { return a.End.Sub(a.Start) }

// UnknownAccount returns the account of a window without measurements.
func UnknownAccount(start, end time.Time, reason string) Account {
	return Account{
		Start: start, End: end, Breakdown: unknownBreakdown(reason), Machine: unknownFigure(reason), ShareMethod: "none",
	}
}

func unknownBreakdown(reason string) Breakdown {
	f := unknownFigure(reason)
	return Breakdown{Total: f, Idle: f, Net: f, Job: f, Rest: f}
}

// account returns the account of a closed window. endDistances are the times between its end and
// the closest reading of each zone.
func (l *Ledger) account(w *window, end time.Time, endDistances map[string]time.Duration) Account {
	a := Account{Start: w.start, End: end, Domains: map[Domain]Breakdown{}}
	var shares, all []contribution
	domains := map[Domain][]contribution{}
	for _, z := range l.zones {
		if t := w.tallies[z.zone.ID]; z.removed && (t == nil || t.covered == 0) {
			continue
		}
		share, machine := z.contributions(w, endDistances[z.zone.ID])
		a.Zones = append(a.Zones, ZoneFigure{
			ID: z.zone.ID, Name: z.zone.Name, Domain: z.zone.Domain, Counted: z.zone.Counted,
			Figure: sumFigure([]contribution{machine}),
		})
		if note := machine.contradiction(); note != "" {
			a.Notes = append(a.Notes, note)
		}
		if z.zone.Counted {
			shares, all = append(shares, share), append(all, machine)
			domains[z.zone.Domain] = append(domains[z.zone.Domain], share)
		}
	}
	for domain, shares := range domains {
		a.Domains[domain] = breakdown(shares)
	}
	a.Breakdown, a.Machine = breakdown(shares), sumFigure(all)
	shares = slices.DeleteFunc(shares, func(c contribution) bool { return c.missing != "" })
	a.ShareMethod = shareMethod(shares)
	a.MeanPower = sumMeanPower(shares)
	a.Baseline = windowBaseline(shares, end)
	return a
}

// maxAmbiguous is the ambiguous fraction of Net above which Job and Rest are unknown.
const maxAmbiguous = 0.1

// breakdown sums up the job's shares of zones.
func breakdown(shares []contribution) Breakdown {
	b := Breakdown{Total: sumFigure(shares)}
	if b.Total.Source == Unavailable {
		return unknownBreakdownOf(b.Total, b.Total.Method)
	}
	var sum attribution
	var spread Joules
	var unknown []string
	for _, c := range shares {
		if c.missing != "" {
			continue
		}
		sum = sum.plus(c.tally.share)
		learned := c.zone.learner.learned
		if learned == nil || c.tally.share.undivided > 0 {
			unknown = append(unknown, c.zone.zone.Name)
			continue
		}
		spread += Joules(float64(learned.Spread) * c.tally.covered.Seconds())
	}
	if len(unknown) > 0 {
		return unknownBreakdownOf(b.Total, "no idle baseline of "+strings.Join(unknown, ", ")+": the machine has not been idle for long enough")
	}
	net := sum.job + sum.rest + sum.ambiguous
	bound := *b.Total.ErrorBound + spread
	b.Idle = b.Total.with(sum.idle, spread, "idle baseline × time")
	b.Net = b.Total.with(net, bound, "total − idle")
	if net > 0 && float64(sum.ambiguous) > maxAmbiguous*float64(net) {
		b.Job = unknownFigure("the use by process is unknown")
		b.Rest = b.Job
		return b
	}
	bound += sum.ambiguous.Joules()
	b.Job = b.Total.with(sum.job+sum.ambiguous, bound, "net × the job's part of all use")
	b.Rest = b.Total.with(sum.rest, bound, "net − job")
	return b
}

// unknownBreakdownOf returns the breakdown of a total whose parts are unknown.
func unknownBreakdownOf(total Figure, reason string) Breakdown {
	b := unknownBreakdown(reason)
	b.Total = total
	return b
}

// windowBaseline returns the baseline of the zones together; nil if there was none for a part of
// the window.
func windowBaseline(shares []contribution, now time.Time) *Baseline {
	var zones []*zoneLedger
	for _, c := range shares {
		if c.tally.share.undivided > 0 {
			return nil
		}
		zones = append(zones, c.zone)
	}
	return sumBaselines(zones, now)
}

func shareMethod(shares []contribution) string {
	if len(shares) == 0 {
		return "none"
	}
	lengths := map[string]time.Duration{}
	var total time.Duration
	for _, c := range shares {
		for method, length := range c.tally.methods {
			lengths[method] += length
			total += length
		}
	}
	methods := slices.Sorted(maps.Keys(lengths))
	switch len(methods) {
	case 0:
		return shareAlone
	case 1:
		return methods[0]
	}
	for i, method := range methods {
		methods[i] = fmt.Sprintf("%s %.1f %%", method, 100*lengths[method].Seconds()/total.Seconds())
	}
	return strings.Join(methods, ", ")
}

// sumMeanPower returns the sum of the mean powers of zones, each over its covered time.
func sumMeanPower(shares []contribution) *Watts {
	if len(shares) == 0 {
		return nil
	}
	var sum Watts
	for _, c := range shares {
		sum += meanPower(c.energy, c.tally.covered)
	}
	return &sum
}
