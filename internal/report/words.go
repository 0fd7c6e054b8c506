package report

import (
	"fmt"
	"strings"

	"ffmpeg-agent/hardware/energy"
)

// origins say in plain words where the figures come from.
func origins(r *result) []origin {
	a := r.Energy
	all := []origin{
		{Name: "Total", Texts: totalWords(a), Code: plain(a.Total.Method)},
		{Name: "Not added", Texts: notAddedWords(a)},
		windowWords(a),
		{Name: "Coverage", Texts: coverageWords(&a.Total)},
		{Name: "Error bound", Texts: boundWords(&a.Total)},
		{Name: "Share", Texts: shareWords(a)},
		{Name: "Idle baseline", Texts: baselineWords(a)},
	}
	if notes := texts(a.Notes); len(notes) > 0 {
		all = append(all, origin{Name: "Notes", Texts: notes})
	}
	if notes := texts(r.Notes); len(notes) > 0 {
		all = append(all, origin{Name: "Done otherwise than asked", Texts: notes})
	}
	return all
}

func texts(from []string) []string {
	var all []string
	for i, text := range from {
		if i == mostNotes {
			return append(all, fmt.Sprintf("… and %d more", len(from)-i))
		}
		all = append(all, plain(text))
	}
	return all
}

func totalWords(a *energy.Account) []string {
	switch {
	case a.Total.Energy == nil:
		return []string{"Unavailable. The reason:"}
	case a.Total.Source == energy.Estimated:
		return []string{"Estimated by a model: at least one part of it was not measured. The sensors or the model, and what is added:"}
	case a.Total.Source == energy.Measured:
		return []string{"Measured by sensors of this machine. The sensors, and what is added:"}
	}
	return []string{"The result does not say how it was come by."}
}

// whyNotAdded says why a zone is no part of the total.
func whyNotAdded(z *energy.ZoneFigure) string {
	switch {
	case strings.HasPrefix(z.ID, "intel-rapl-mmio"):
		return "the same package read in another way"
	case insidePackage(z.Name):
		return "lies inside its package, which is counted"
	case z.Domain == energy.DomainPlatform:
		return "the whole machine at its supply, packages included"
	}
	return "part of another zone, or beside them"
}

// insidePackage: a package's cores or what is beside them, by a name that has the
// package's before it where there are several.
func insidePackage(name string) bool {
	part := name[strings.LastIndexByte(name, '-')+1:]
	return part == "core" || part == "uncore"
}

func notAddedWords(a *energy.Account) []string {
	var all []string
	for i := range a.Zones {
		if z := &a.Zones[i]; !z.Counted {
			all = append(all, fmt.Sprintf("%s (%s): %s.", nameOf(z.Name, z.ID), joules(&z.Figure), whyNotAdded(z)))
		}
	}
	switch {
	case len(a.Zones) == 0:
		return []string{"Nothing: no zone was read."}
	case len(all) == 0:
		return []string{"Nothing: each zone that was read counts."}
	}
	return all
}

func windowWords(a *energy.Account) origin {
	o := origin{Name: "Energy window"}
	if a.Start.IsZero() || a.End.IsZero() {
		o.Texts = []string{"Unknown: the result does not say."}
		return o
	}
	o.Texts = []string{fmt.Sprintf("From FFmpeg's start at %s to its exit at %s: %s. Preparing and measuring quality are outside of it.",
		precise(a.Start), precise(a.End), length(a.Duration()))}
	return o
}

func coverageWords(f *energy.Figure) []string {
	text := fmt.Sprintf("%s %% of the window was read, that of the least read zone; %s.", percentText(f.CoveragePercent), several(f.Gaps, "gap"))
	if f.Energy == nil {
		return []string{text}
	}
	if f.CoveragePercent < 100 {
		text += " What was used while nothing was read is in no figure: the true total is higher."
	}
	if f.CoveragePercent < energy.MinScoreCoverage {
		text += fmt.Sprintf(" Below %d %% there are no scores.", energy.MinScoreCoverage)
	}
	return []string{text}
}

func boundWords(f *energy.Figure) []string {
	if f.ErrorBound == nil {
		return []string{"Unknown."}
	}
	return []string{fmt.Sprintf("± %s J. It adds up, zone by zone: what may have fallen on the wrong side of the window's two edges "+
		"(the highest power seen × the time between the edge and the nearest reading and between the sensor's own updates), "+
		"the sensor's or model's own uncertainty where one is known, and how far two opinions of one sensor lie apart where they contradict each other. "+
		"What was missed in gaps is not in it.", fixed(float64(*f.ErrorBound), boundDecimals(f)))}
}

func shareWords(a *energy.Account) []string {
	method := plain(a.ShareMethod)
	switch method {
	case "":
		return []string{"Unknown: the result does not say."}
	case "none":
		return []string{"None: there was no energy to share."}
	case "alone":
		return []string{"The job ran alone: the machine's whole energy in the window is charged to it, idle power included."}
	case "equal":
		method = "in equal parts, because it is not known who used what"
	default:
		method = "by " + method
	}
	return []string{fmt.Sprintf("Jobs overlapped. Where they did, the machine's energy is shared %s, so that all jobs' shares add up to it. In this window the machine used %s.",
		method, joules(&a.Machine))}
}

func baselineWords(a *energy.Account) []string {
	b := a.Baseline
	if b == nil {
		return []string{"Unknown: " + or(plain(a.Idle.Method), "no reason is recorded") + "."}
	}
	text := fmt.Sprintf("%s W ± %s W, the median of what the counted zones used while no job ran, and half of the distance between the 10th and the 90th percentile. Learned from %s of idleness",
		fixed(float64(b.Power), 2), fixed(float64(b.Spread), 2), fixed(b.Seconds, 0)+" s")
	if b.LearnedAt.IsZero() {
		return []string{text + ", when is not known."}
	}
	text += ", last at " + clock(b.LearnedAt)
	switch age := a.Start.Sub(b.LearnedAt); {
	case a.Start.IsZero():
	case age >= 0:
		text += ", " + length(age) + " before FFmpeg's start"
	default:
		text += ", after FFmpeg's start"
	}
	return []string{text + "."}
}
