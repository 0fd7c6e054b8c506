package report

import (
	"cmp"
	"fmt"
	"strings"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
)

// headline is the energy of the job.
type headline struct {
	Value, Bound, Exact, OtherUnits string
	Source                          badge
	Text                            string
}

// noEnergy returns the headline of an attempt without an energy account.
func noEnergy(rec *job.Record) headline {
	h := headline{Value: unknown, Source: badge{"neutral", string(energy.Unavailable)}, Text: "No energy was measured."}
	switch {
	case len(rec.Result) == 0 && !rec.State.Settled():
		h.Text = "There is no result yet."
	case rec.StartedAt == nil:
		h.Text = "No energy was measured: FFmpeg was not started."
	}
	return h
}

func headlineOf(a *energy.Account) headline {
	f := &a.Total
	h := headline{Value: unknown, Source: sourceOf(f)}
	if f.Energy == nil {
		h.Text = "The energy of the job is unknown: " + cmp.Or(sanitize(f.Method), "no reason recorded") + "."
		return h
	}
	value := float64(*f.Energy)
	h.Exact, h.Bound = exact(*f.Energy), "error bound "+unknown
	h.Value = joules(f)
	if f.ErrorBound != nil {
		h.Bound = "± " + fixed(float64(*f.ErrorBound), boundDecimals(f)) + hardSpace + "J"
	}
	h.OtherUnits = otherUnits(value)
	switch sanitize(a.ShareMethod) {
	case "alone":
		h.Text = "All energy that the machine used while FFmpeg was running, including idle power."
	case "":
		h.Text = "The energy that the machine used while FFmpeg was running, or this job's share of it, including idle power."
	default:
		h.Text = "This job's share of the energy that the machine used while FFmpeg was running, including idle power."
	}
	if f.CoveragePercent < 100 {
		h.Text += fmt.Sprintf(" The sensors cover %s %% of that time; energy used in the remaining time is not included.", coverageText(f.CoveragePercent))
	}
	if f.Source == energy.Estimated {
		h.Text += " " + estimatedPart(a)
	}
	return h
}

// estimatedPart describes which part of an estimated total was measured.
func estimatedPart(a *energy.Account) string {
	var estimated, measured []string
	for i := range a.Zones {
		switch z := &a.Zones[i]; {
		case !z.Counted || z.Energy == nil:
		case z.Source == energy.Estimated:
			estimated = append(estimated, zoneName(z.Name, z.ID))
		case z.Source == energy.Measured:
			measured = append(measured, zoneName(z.Name, z.ID))
		}
	}
	switch {
	case len(estimated) == 0:
		return "At least one part of it is estimated by a model."
	case len(measured) == 0:
		return "It is estimated by a model; nothing was measured."
	}
	return fmt.Sprintf("Only a part was measured (%s); the rest is estimated by a model (%s).", strings.Join(measured, ", "), strings.Join(estimated, ", "))
}

// otherUnits returns an energy in Wh, and in kJ or MJ if it is large enough.
func otherUnits(joules float64) string {
	wattHours := threeDigits(joules/3600) + " Wh"
	switch {
	case joules >= 1e6:
		return threeDigits(joules/1e6) + " MJ, " + wattHours
	case joules >= 1e3:
		return threeDigits(joules/1e3) + " kJ, " + wattHours
	case joules >= 1:
		return wattHours
	}
	return ""
}

func threeDigits(v float64) string {
	if v >= 100 {
		return fixed(v, 0)
	}
	return fmt.Sprintf("%.3g", v)
}

// coverageText formats a percentage, but never rounds up to 100.
func coverageText(percent float64) string {
	if percent < 100 && percent > 99.95 {
		return "99.9"
	}
	return fixed(percent, 1)
}

func sourceOf(f *energy.Figure) badge {
	switch {
	case f.Energy == nil:
		return badge{"neutral", string(energy.Unavailable)}
	case f.Source == energy.Measured:
		return badge{"good", "measured"}
	case f.Source == energy.Estimated:
		return badge{"warn", "estimated"}
	}
	return badge{"neutral", cmp.Or(sanitize(string(f.Source)), "source "+unknown)}
}

func joules(f *energy.Figure) string {
	if f.Energy == nil {
		return unknown
	}
	return fixed(float64(*f.Energy), boundDecimals(f)) + hardSpace + "J"
}

func boundDecimals(f *energy.Figure) int {
	if f.ErrorBound == nil {
		return 3
	}
	return decimalsFor(float64(*f.ErrorBound))
}

// partDecimals returns the decimals for the parts of a total: one more than for the total, so
// that the parts visibly add up.
func partDecimals(f *energy.Figure) int { return min(3, boundDecimals(f)+1) }

// tiles returns the facts shown beside the headline.
func tiles(r *result) []fact {
	a := r.Energy
	var facts []fact
	if a.Total.Energy != nil {
		facts = []fact{netTile(&a.Net), powerTile(a.MeanPower)}
	}
	facts = append(facts, speedOf(r))
	if s := r.Scores.JoulesPerFrame; s != nil {
		facts = append(facts, fact{Name: "per frame", Value: significant(*s) + hardSpace + "J", Exact: exact(*s)})
	}
	if q := r.Quality.VMAF; q != nil {
		facts = append(facts, fact{Name: "VMAF", Value: fixed(*q, 2), Exact: exact(*q), Note: "0 to 100"})
	}
	return facts
}

func netTile(f *energy.Figure) fact {
	if f.Energy == nil {
		return fact{Name: "net of idle", Value: unknown, Note: sanitize(f.Method)}
	}
	return fact{Name: "net of idle", Value: joules(f), Exact: exact(*f.Energy), Note: "without the idle baseline"}
}

func powerTile(w *energy.Watts) fact {
	if w == nil {
		return fact{Name: "average power", Value: unknown}
	}
	return fact{Name: "average power", Value: fixed(float64(*w), 1) + hardSpace + "W", Exact: exact(*w), Note: "of the job"}
}
