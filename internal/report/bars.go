package report

import (
	"cmp"
	"fmt"

	"ffmpeg-agent/hardware/energy"
)

// bar shows the parts of an energy.
type bar struct {
	Title, Label string // Label is a description for screen readers
	Segments     []segment
	Unknown      string // reason if the parts are unknown
}

// segment is a part of a bar.
type segment struct {
	X, Width       string // in percent
	Class, Name    string
	Value, Percent string
	TextClass      string // of the percentage, see textClass
}

// share is a part of an energy.
type share struct {
	class, name string
	joules      float64
}

// bars returns the job's energy by use and by domain, and its share of the machine's energy
// if other jobs were running.
func bars(a *energy.Account) []bar {
	if a.Total.Energy == nil {
		return nil
	}
	all := []bar{useBar(a), domainBar(a)}
	if a.Machine.Energy != nil && *a.Machine.Energy > *a.Total.Energy {
		job, machine := float64(*a.Total.Energy), float64(*a.Machine.Energy)
		all = append(all, newBar("Energy of the machine", partDecimals(&a.Machine), []share{
			{"u-job", "this job", job}, {"u-whole", "other jobs", machine - job},
		}))
	}
	return all
}

func useBar(a *energy.Account) bar {
	const title = "By use"
	for _, f := range []*energy.Figure{&a.Idle, &a.Job, &a.Rest} {
		if f.Energy == nil {
			return bar{Title: title, Unknown: cmp.Or(sanitize(f.Method), "no reason recorded")}
		}
	}
	return newBar(title, partDecimals(&a.Total), []share{
		{"u-idle", "idle baseline", float64(*a.Idle.Energy)},
		{"u-job", "own work", float64(*a.Job.Energy)},
		{"u-rest", "rest (processes outside of jobs)", float64(*a.Rest.Energy)},
	})
}

func domainBar(a *energy.Account) bar {
	const title = "By domain"
	var shares []share
	for _, d := range domainsOf(a) {
		if e := a.Domains[d].Total.Energy; e != nil {
			shares = append(shares, share{domainClass(d), domainName(d), float64(*e)})
		}
	}
	if len(shares) == 0 {
		return bar{Title: title, Unknown: "not in the result"}
	}
	return newBar(title, partDecimals(&a.Total), shares)
}

func newBar(title string, decimals int, shares []share) bar {
	b := bar{Title: title, Label: title + ":"}
	var total, start float64
	for _, s := range shares {
		total += max(0, s.joules)
	}
	for _, s := range shares {
		width := max(0, s.joules)
		seg := segment{
			X: percentOf(start, total), Width: percentOf(width, total), Class: s.class, Name: s.name,
			Value: fixedNonZero(s.joules, decimals) + hardSpace + "J", Percent: percentage(s.joules, total),
		}
		if width > 0 {
			seg.TextClass = textClass(seg.Percent, int64(width/total*drawingWidth), drawingWidth)
		}
		start += width
		b.Segments = append(b.Segments, seg)
		b.Label += fmt.Sprintf(" %s %s (%s).", s.name, seg.Value, seg.Percent)
	}
	return b
}
