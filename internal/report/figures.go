package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"ffmpeg-agent/hardware/energy"
)

// figureRow makes a table's row of a figure, and tells its part of a whole.
func figureRow(name, class, note string, f *energy.Figure, whole *energy.Joules) row {
	r := row{Name: name, Class: class, Note: note, Energy: unknown, Bound: unknown, Part: "–"}
	if f.Energy == nil {
		r.Origin = or(plain(f.Method), string(energy.Unavailable))
		return r
	}
	r.Energy, r.Exact = fixed(float64(*f.Energy), 3), exact(*f.Energy)
	if f.ErrorBound != nil {
		r.Bound = fixed(float64(*f.ErrorBound), 3)
	}
	if whole != nil {
		r.Part = part(float64(*f.Energy), float64(*whole))
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
	whole := a.Total.Energy
	if whole == nil {
		return nil
	}
	rows := group(figureRow("this job, in all", "", "", &a.Total, whole),
		figureRow("idle baseline", "u-idle", "what the machine uses without any job", &a.Idle, whole),
		figureRow("own work", "u-job", "used by the job's own processes", &a.Job, whole),
		figureRow("rest", "u-rest", "used by processes of no job", &a.Rest, whole),
		figureRow("net of idle", "", "own work and rest together", &a.Net, whole))
	for _, d := range domainsOf(a) {
		split := a.Domains[d]
		var parts []row
		for _, of := range []struct {
			name, class string
			figure      energy.Figure
		}{{"idle baseline", "u-idle", split.Idle}, {"own work", "u-job", split.Job}, {"rest", "u-rest", split.Rest}} {
			if of.figure.Energy != nil {
				parts = append(parts, figureRow(of.name, of.class, "", &of.figure, whole))
			}
		}
		rows = append(rows, group(figureRow(domainName(d), domainClass(d), "", &split.Total, whole), parts...)...)
	}
	return rows
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
	for i := range a.Zones {
		z := &a.Zones[i]
		name := nameOf(z.Name, z.ID)
		if z.Counted {
			zones = append(zones, figureRow(name, zoneClass(z.Domain, used), domainName(z.Domain), &z.Figure, a.Machine.Energy))
		} else {
			zones = append(zones, figureRow(name, "", "not added: "+whyNotAdded(z), &z.Figure, nil))
		}
	}
	return group(figureRow("machine, in all", "", "whatever ran meanwhile", &a.Machine, a.Machine.Energy), zones...)
}
