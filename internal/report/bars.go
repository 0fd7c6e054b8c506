package report

import (
	"fmt"

	"ffmpeg-agent/hardware/energy"
)

// bar shows what an energy is made of.
type bar struct {
	Title, Label string // Label is the bar in words
	Segments     []segment
	Unknown      string // why there is nothing to show; empty when there is
}

// segment is a part of a bar.
type segment struct {
	X, Wide           string // in percent
	Class, Name       string
	Value, Part, Room string
}

// share is a named part of an energy.
type share struct {
	class, name string
	joules      float64
}

// bars show what the job is charged by use and by domain, and, where it was not alone,
// what part of the machine's energy that is.
func bars(a *energy.Account) []bar {
	if a.Total.Energy == nil {
		return nil
	}
	all := []bar{useBar(a), domainBar(a)}
	if a.Machine.Energy != nil && *a.Machine.Energy > *a.Total.Energy {
		mine, machine := float64(*a.Total.Energy), float64(*a.Machine.Energy)
		all = append(all, newBar("The machine's energy meanwhile", partDecimals(&a.Machine), []share{
			{"u-job", "charged to this job", mine}, {"u-whole", "charged to other jobs", machine - mine},
		}))
	}
	return all
}

func useBar(a *energy.Account) bar {
	const title = "By use"
	for _, f := range []*energy.Figure{&a.Idle, &a.Job, &a.Rest} {
		if f.Energy == nil {
			return bar{Title: title, Unknown: or(plain(f.Method), "no reason is recorded")}
		}
	}
	return newBar(title, partDecimals(&a.Total), []share{
		{"u-idle", "idle baseline", float64(*a.Idle.Energy)},
		{"u-job", "this job's own work", float64(*a.Job.Energy)},
		{"u-rest", "rest: processes of no job", float64(*a.Rest.Energy)},
	})
}

func domainBar(a *energy.Account) bar {
	var shares []share
	for _, d := range domainsOf(a) {
		if e := a.Domains[d].Total.Energy; e != nil {
			shares = append(shares, share{domainClass(d), domainName(d), float64(*e)})
		}
	}
	if len(shares) == 0 {
		return bar{Title: "By part of the machine", Unknown: "the result does not say"}
	}
	return newBar("By part of the machine", partDecimals(&a.Total), shares)
}

func newBar(title string, decimals int, shares []share) bar {
	b := bar{Title: title, Label: title + ":"}
	var whole, at float64
	for _, s := range shares {
		whole += max(0, s.joules)
	}
	for _, s := range shares {
		wide := max(0, s.joules)
		seg := segment{
			X: percentOf(at, whole), Wide: percentOf(wide, whole), Class: s.class, Name: s.name,
			Value: amountOf(s.joules, decimals) + hard + "J", Part: part(s.joules, whole), Room: "none",
		}
		if wide > 0 {
			seg.Room = roomFor(seg.Part, int64(wide/whole*across), across)
		}
		at += wide
		b.Segments = append(b.Segments, seg)
		b.Label += fmt.Sprintf(" %s %s (%s).", s.name, seg.Value, seg.Part)
	}
	return b
}
