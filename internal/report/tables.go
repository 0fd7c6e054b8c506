package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ffmpeg-agent/hardware/energy"
)

// row is a row of an energy table.
type row struct {
	Class, Name, Note    string
	Inner                bool   // part of the last row that is not inner
	Energy, Bound, Exact string // in J; Exact is "" if the energy is unknown
	Percent              string // of the table's total
	Source               string // source, coverage and gaps; "" if equal to the row above
}

// table formats rows that are parts of a total.
type table struct {
	total    *energy.Joules // nil if unknown
	decimals int
}

func tableOf(total *energy.Figure) table { return table{total.Energy, partDecimals(total)} }

func (t table) row(name, class, note string, f *energy.Figure) row {
	r := row{Name: name, Class: class, Note: note, Energy: unknown, Bound: unknown, Percent: "–"}
	if f.Energy == nil {
		r.Source = cmp.Or(sanitize(f.Method), string(energy.Unavailable))
		return r
	}
	r.Energy, r.Exact = fixedNonZero(float64(*f.Energy), t.decimals), exact(*f.Energy)
	if f.ErrorBound != nil {
		r.Bound = fixedNonZero(float64(*f.ErrorBound), t.decimals)
	}
	if t.total != nil {
		r.Percent = percentage(float64(*f.Energy), float64(*t.total))
	}
	r.Source = fmt.Sprintf("%s, %s %% covered, %s", cmp.Or(sanitize(string(f.Source)), unknown), coverageText(f.CoveragePercent), plural(f.Gaps, "gap"))
	return r
}

// group returns a row followed by its parts. The source of a part is omitted if it is the
// same as that of the outer row or of the previous part.
func group(outer row, parts ...row) []row {
	rows := []row{outer}
	last := outer.Source
	for _, r := range parts {
		r.Inner = true
		if r.Source == outer.Source || r.Source == last {
			r.Source = ""
		} else {
			last = r.Source
		}
		rows = append(rows, r)
	}
	return rows
}

// jobRows returns the job's energy by use and by domain, or nil if its total is unknown.
func jobRows(a *energy.Account) []row {
	if a.Total.Energy == nil {
		return nil
	}
	t := tableOf(&a.Total)
	rows := group(t.row("this job, total", "", "", &a.Total),
		t.row("idle baseline", "u-idle", "what the machine uses without jobs", &a.Idle),
		t.row("own work", "u-job", "the job's own processes", &a.Job),
		t.row("rest", "u-rest", "processes outside of jobs", &a.Rest),
		t.row("net of idle", "", "own work + rest", &a.Net))
	for _, d := range domainsOf(a) {
		split := a.Domains[d]
		rows = append(rows, group(t.row(domainName(d), domainClass(d), "", &split.Total), t.parts(&split)...)...)
	}
	return rows
}

// parts returns the parts of a domain: all of them if any is known, so that an unknown part
// is not overlooked, else none.
func (t table) parts(s *energy.Breakdown) []row {
	if s.Idle.Energy == nil && s.Job.Energy == nil && s.Rest.Energy == nil {
		return nil
	}
	parts := []row{t.row("idle baseline", "u-idle", "", &s.Idle), t.row("own work", "u-job", "", &s.Job), t.row("rest", "u-rest", "", &s.Rest)}
	if s.Net.Energy != nil && (s.Job.Energy == nil || s.Rest.Energy == nil) {
		parts = append(parts, t.row("net of idle", "", "own work + rest", &s.Net))
	}
	return parts
}

// machineRows returns the machine's energy by zone, or nil if no zone was read.
func machineRows(a *energy.Account) []row {
	if a.Machine.Energy == nil && len(a.Zones) == 0 {
		return nil
	}
	var zones []row
	used := map[string]int{}
	counted := tableOf(&a.Machine)
	notCounted := table{nil, counted.decimals}
	for i := range a.Zones {
		z := &a.Zones[i]
		name := zoneName(z.Name, z.ID)
		if z.Counted {
			zones = append(zones, counted.row(name, zoneClass(z.Domain, used), domainName(z.Domain), &z.Figure))
		} else {
			zones = append(zones, notCounted.row(name, "", "not counted: "+whyNotCounted(z), &z.Figure))
		}
	}
	return group(counted.row("machine, total", "", "all processes", &a.Machine), zones...)
}

// whyNotCounted explains why a zone is not part of the total.
func whyNotCounted(z *energy.ZoneFigure) string {
	switch {
	case strings.HasPrefix(z.ID, "intel-rapl-mmio"):
		return "another interface to the same package"
	case insidePackage(z.Name):
		return "included in its package"
	case z.Domain == energy.DomainPlatform:
		return "whole machine including packages"
	}
	return "overlaps other zones"
}

// insidePackage reports whether a zone is core or uncore. On machines with several packages
// its name is prefixed with that of its package.
func insidePackage(name string) bool {
	part := name[strings.LastIndexByte(name, '-')+1:]
	return part == "core" || part == "uncore"
}

// domainsOf returns an account's domains in the order of domainOrder.
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
	return cmp.Or(sanitize(string(d)), unknown)
}

func domainClass(d energy.Domain) string { return zoneClass(d, map[string]int{}) }
