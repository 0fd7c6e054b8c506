package report

import (
	"fmt"

	"ffmpeg-agent/hardware/energy"
)

// noScores returns why there are no scores, or "" if there are.
func noScores(r *result) string {
	switch total := &r.Energy.Total; {
	case r.Scores != (energy.Scores{Joules: r.Scores.Joules}):
		return ""
	case total.Energy == nil:
		return "Not available: the energy is unknown."
	case total.CoveragePercent < energy.MinScoreCoverage:
		return fmt.Sprintf("Not available: less than %d %% of the energy window is covered.", energy.MinScoreCoverage)
	}
	return "Not available: the frames, pixels and duration are unknown."
}

// scores returns the scores in the order of energy.Scores, with their formulas.
func scores(s *energy.Scores) []fact {
	facts := []fact{
		{Name: "J per frame", Note: "energy / frames encoded"},
		{Name: "J per second of video", Note: "energy / video duration"},
		{Name: "µJ per pixel", Note: "energy in µJ / pixels encoded"},
		{Name: "pixels per J", Note: "pixels encoded / energy; efficiency_score at the master"},
		{Name: "frames per J", Note: "frames encoded / energy"},
		{Name: "Mbit/s per W", Note: "output bits / encoding time / average power"},
		{Name: "quality-weighted pixels per J", Note: "pixels encoded × VMAF / 100 / energy; qoe_score at the master"},
	}
	for i, v := range []*float64{
		s.JoulesPerFrame, s.JoulesPerMediaSecond, s.MicrojoulesPerPixel, s.PixelsPerJoule, s.FramesPerJoule,
		s.MegabitsPerSecondPerWatt, s.QualityWeightedPixelsPerJoule,
	} {
		facts[i].Value = unknown
		if v != nil {
			facts[i].Value, facts[i].Exact = significant(*v), exact(*v)
		}
	}
	return facts
}
