package report

import (
	"cmp"
	"fmt"

	"ffmpeg-agent/hardware/energy"
)

// provenance explains how a figure was obtained.
type provenance struct {
	Name  string
	Texts []string
	Code  string
}

func provenanceOf(r *result) []provenance {
	a := r.Energy
	all := []provenance{
		{Name: "Total", Texts: []string{totalText(a)}, Code: sanitize(a.Total.Method)},
		{Name: "Not counted", Texts: notCountedTexts(a)},
		{Name: "Energy window", Texts: []string{windowText(a)}},
		{Name: "Coverage", Texts: []string{coverageSentences(&a.Total)}},
		{Name: "Error bound", Texts: []string{boundText(&a.Total)}},
		{Name: "Share", Texts: []string{shareText(a)}},
		{Name: "Idle baseline", Texts: []string{baselineText(a)}},
	}
	if notes := notes(a.Notes); len(notes) > 0 {
		all = append(all, provenance{Name: "Energy notes", Texts: notes})
	}
	if notes := notes(r.Notes); len(notes) > 0 {
		all = append(all, provenance{Name: "Encode notes", Texts: notes})
	}
	return all
}

func notes(from []string) []string {
	var all []string
	for i, text := range from {
		if i == maxNotes {
			return append(all, fmt.Sprintf("… and %d more", len(from)-i))
		}
		all = append(all, sanitize(text))
	}
	return all
}

func totalText(a *energy.Account) string {
	switch {
	case a.Total.Energy == nil:
		return "Unavailable, because of:"
	case a.Total.Source == energy.Estimated:
		return "Estimated by a model, at least in part. Sensors, models and the zones that are added up:"
	case a.Total.Source == energy.Measured:
		return "Measured by sensors. Sensors and the zones that are added up:"
	}
	return "Unknown source."
}

func notCountedTexts(a *energy.Account) []string {
	var all []string
	for i := range a.Zones {
		if z := &a.Zones[i]; !z.Counted {
			all = append(all, fmt.Sprintf("%s (%s): %s.", zoneName(z.Name, z.ID), joules(&z.Figure), whyNotCounted(z)))
		}
	}
	switch {
	case len(a.Zones) == 0:
		return []string{"No zone was read."}
	case len(all) == 0:
		return []string{"None: all zones that were read are counted."}
	}
	return all
}

func windowText(a *energy.Account) string {
	if a.Start.IsZero() || a.End.IsZero() {
		return "Unknown."
	}
	return fmt.Sprintf("From FFmpeg's start at %s to its exit at %s: %s. Preparation and quality measurement are excluded.",
		formatTimeMillis(a.Start), formatTimeMillis(a.End), formatDuration(a.Duration()))
}

func coverageSentences(f *energy.Figure) string {
	text := fmt.Sprintf("%s %% of the window is covered by readings of the least covered zone; %s.", coverageText(f.CoveragePercent), plural(f.Gaps, "gap"))
	if f.Energy == nil {
		return text
	}
	if f.CoveragePercent < 100 {
		text += " Energy used during gaps is not included, so the true total is higher."
	}
	if f.CoveragePercent < energy.MinScoreCoverage {
		text += fmt.Sprintf(" There are no scores below %d %%.", energy.MinScoreCoverage)
	}
	return text
}

func boundText(f *energy.Figure) string {
	if f.ErrorBound == nil {
		return "Unknown."
	}
	return fmt.Sprintf("± %s J, the sum over all zones of: the possible error at the edges of the window "+
		"(the highest power × the time between the edge and the nearest reading and between updates of the sensor), "+
		"the uncertainty of the sensor or model if known, and the difference between sensors that contradict each other. "+
		"Energy used during gaps is not included.", fixed(float64(*f.ErrorBound), boundDecimals(f)))
}

func shareText(a *energy.Account) string {
	method := sanitize(a.ShareMethod)
	switch method {
	case "":
		return "Unknown."
	case "none":
		return "None: the energy is unavailable."
	case "alone":
		return "The job ran alone, so it is charged all energy of the machine in the window, including idle power."
	case "equal":
		method = "equally, because it is unknown which job used what"
	default:
		method = "by " + method
	}
	return fmt.Sprintf("Jobs overlapped. During the overlap, the machine's energy is divided %s, so that the shares of all jobs add up to it. In this window the machine used %s.",
		method, joules(&a.Machine))
}

func baselineText(a *energy.Account) string {
	b := a.Baseline
	if b == nil {
		return "Unknown: " + cmp.Or(sanitize(a.Idle.Method), "no reason recorded") + "."
	}
	text := fmt.Sprintf("%s W ± %s W: the median power of the counted zones without jobs, and half the distance between the 10th and 90th percentile. Learned from %s of idle time",
		fixed(float64(b.Power), 2), fixed(float64(b.Spread), 2), fixed(b.Seconds, 0)+" s")
	if b.LearnedAt.IsZero() {
		return text + ", at an unknown time."
	}
	text += ", last at " + formatTime(b.LearnedAt)
	switch age := a.Start.Sub(b.LearnedAt); {
	case a.Start.IsZero():
	case age >= 0:
		text += ", " + formatDuration(age) + " before FFmpeg's start"
	default:
		text += ", after FFmpeg's start"
	}
	return text + "."
}
