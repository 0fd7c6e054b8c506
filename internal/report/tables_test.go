package report

import (
	"slices"
	"strings"
	"testing"

	"ffmpeg-agent/hardware/energy"
)

func TestWhyNotCounted(t *testing.T) {
	for _, test := range []struct {
		zone energy.ZoneFigure
		want string
	}{
		{energy.ZoneFigure{ID: "intel-rapl:0:0", Name: "core"}, "included in its package"},
		{energy.ZoneFigure{ID: "intel-rapl:1:0", Name: "package-1-core"}, "included in its package"},
		{energy.ZoneFigure{ID: "intel-rapl:2:1", Name: "package-1-die-0-uncore"}, "included in its package"},
		{energy.ZoneFigure{ID: "intel-rapl-mmio:0", Name: "mmio-package-0"}, "another interface"},
		{energy.ZoneFigure{ID: "intel-rapl:2", Name: "psys", Domain: energy.DomainPlatform}, "whole machine"},
		{energy.ZoneFigure{ID: "intel-rapl:3", Name: "multicore"}, "overlaps other zones"},
	} {
		if got := whyNotCounted(&test.zone); !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, want %q in it", test.zone.Name, got, test.want)
		}
	}
}

// If only some parts of a domain are known, the others are shown as unknown.
func TestUnknownPartsOfDomain(t *testing.T) {
	known := func(j energy.Joules) energy.Figure {
		return energy.Figure{Energy: &j, Source: energy.Measured, CoveragePercent: 100, ErrorBound: pointer(energy.Joules(0.5))}
	}
	unavailable := energy.Figure{Source: energy.Unavailable, Method: "GPU use by process unknown"}
	a := &energy.Account{Breakdown: energy.Breakdown{Total: known(70), Idle: known(50), Net: known(20), Job: unavailable, Rest: unavailable}}
	a.Domains = map[energy.Domain]energy.Breakdown{energy.DomainGPU: a.Breakdown}
	var got []string
	for _, r := range jobRows(a)[5:] {
		got = append(got, r.Name+" "+r.Energy+" "+r.Source)
	}
	want := []string{"GPU 70.000 measured, 100.0 % covered, no gaps", "idle baseline 50.000 ", "own work unknown GPU use by process unknown", "rest unknown ", "net of idle 20.000 "}
	if !slices.Equal(got, want) {
		t.Errorf("got rows %q, want %q", got, want)
	}
	a.Domains[energy.DomainGPU] = energy.Breakdown{Total: known(70), Idle: unavailable, Net: unavailable, Job: unavailable, Rest: unavailable}
	if rows := jobRows(a)[5:]; len(rows) != 1 {
		t.Errorf("got rows %+v without known parts, want 1", rows)
	}
}
