package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"ffmpeg-agent/hardware/energy"
)

// table makes rows of figures with so many decimals, parts of one whole.
type table struct {
	whole    *energy.Joules // nil: not known
	decimals int
}

func tableOf(whole *energy.Figure) table { return table{whole.Energy, partDecimals(whole)} }

// row of a figure, and what part of the whole it is.
func (t table) row(name, class, note string, f *energy.Figure) row {
	r := row{Name: name, Class: class, Note: note, Energy: unknown, Bound: unknown, Part: "–"}
	if f.Energy == nil {
		r.Origin = or(plain(f.Method), string(energy.Unavailable))
		return r
	}
	r.Energy, r.Exact = amountOf(float64(*f.Energy), t.decimals), exact(*f.Energy)
	if f.ErrorBound != nil {
		r.Bound = amountOf(float64(*f.ErrorBound), t.decimals)
	}
	if t.whole != nil {
		r.Part = part(float64(*f.Energy), float64(*t.whole))
	}
	r.Origin = fmt.Sprintf("%s, %s %% read, %s", or(plain(string(f.Source)), unknown), percentText(f.CoveragePercent), several(f.Gaps, "gap"))
	return r
}

// group is a row and those that are part of it. Where a part comes from is said only
// where that is news.
func group(outer row, parts ...row) []row {
	rows := []row{outer}
	said := outer.Origin
	for _, r := range parts {
		r.Inner = true
		if r.Origin == outer.Origin || r.Origin == said {
			r.Origin = ""
		} else {
			said = r.Origin
		}
		rows = append(rows, r)
	}
	return rows
}

// chargedRows are empty where it is not known what the job is charged.
func chargedRows(a *energy.Account) []row {
	if a.Total.Energy == nil {
		return nil
	}
	t := tableOf(&a.Total)
	rows := group(t.row("this job, in all", "", "", &a.Total),
		t.row("idle baseline", "u-idle", "what the machine uses without any job", &a.Idle),
		t.row("own work", "u-job", "used by the job's own processes", &a.Job),
		t.row("rest", "u-rest", "used by processes of no job", &a.Rest),
		t.row("net of idle", "", "own work and rest together", &a.Net))
	for _, d := range domainsOf(a) {
		split := a.Domains[d]
		rows = append(rows, group(t.row(domainName(d), domainClass(d), "", &split.Total), t.parts(&split)...)...)
	}
	return rows
}

// parts of a domain: all of them where any is known, so that none seems to be missing.
func (t table) parts(s *energy.Breakdown) []row {
	if s.Idle.Energy == nil && s.Job.Energy == nil && s.Rest.Energy == nil {
		return nil
	}
	parts := []row{t.row("idle baseline", "u-idle", "", &s.Idle), t.row("own work", "u-job", "", &s.Job), t.row("rest", "u-rest", "", &s.Rest)}
	if s.Net.Energy != nil && (s.Job.Energy == nil || s.Rest.Energy == nil) {
		parts = append(parts, t.row("net of idle", "", "own work and rest together", &s.Net))
	}
	return parts
}

// domainsOf are an account's domains, those that everybody has first.
func domainsOf(a *energy.Account) []energy.Domain {
	return slices.SortedFunc(maps.Keys(a.Domains), func(x, y energy.Domain) int {
		return cmp.Or(cmp.Compare(domainRank(x), domainRank(y)), cmp.Compare(x, y))
	})
}

func domainName(d energy.Domain) string {
	switch d {
	case energy.DomainCPU:
		return "CPU"
	case energy.DomainDRAM:
		return "DRAM"
	case energy.DomainGPU:
		return "GPU"
	}
	return or(plain(string(d)), unknown)
}

func domainClass(d energy.Domain) string { return zoneClass(d, map[string]int{}) }

// machineRows are empty where nothing was read.
func machineRows(a *energy.Account) []row {
	if a.Machine.Energy == nil && len(a.Zones) == 0 {
		return nil
	}
	var zones []row
	used := map[string]int{}
	t := tableOf(&a.Machine)
	beside := table{nil, t.decimals}
	for i := range a.Zones {
		z := &a.Zones[i]
		name := nameOf(z.Name, z.ID)
		if z.Counted {
			zones = append(zones, t.row(name, zoneClass(z.Domain, used), domainName(z.Domain), &z.Figure))
		} else {
			zones = append(zones, beside.row(name, "", "not added: "+whyNotAdded(z), &z.Figure))
		}
	}
	return group(t.row("machine, in all", "", "whatever ran meanwhile", &a.Machine), zones...)
}
