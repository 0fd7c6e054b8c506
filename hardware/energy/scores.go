package energy

import (
	"math"
	"time"
)

// Work is the output of a job. 0 or nil means unknown.
type Work struct {
	Frames        int64         // encoded, over all outputs
	Pixels        int64         // encoded, over all outputs: Σ frames × width × height
	MediaDuration time.Duration // of the output
	WallTime      time.Duration // of the encode
	OutputBits    int64         // size of the output
	VMAF          *float64      // 0 to 100
}

// MinScoreCoverage is the coverage of the window, in percent, below which there are no scores,
// because part of the work would seem to cost no energy.
const MinScoreCoverage = 90

// Scores relate a job's energy J, its Account.Total, to its work. A score is nil if a figure in
// its formula is unknown or 0, or if less than MinScoreCoverage of the window was read. None is
// infinite or NaN.
type Scores struct {
	// Joules is J itself.
	Joules *float64 `json:"joules,omitempty"`
	// JoulesPerFrame = J / frames.
	JoulesPerFrame *float64 `json:"joules_per_frame,omitempty"`
	// JoulesPerMediaSecond = J / seconds of video.
	JoulesPerMediaSecond *float64 `json:"joules_per_media_second,omitempty"`
	// MicrojoulesPerPixel = J · 10⁶ / pixels.
	MicrojoulesPerPixel *float64 `json:"microjoules_per_pixel,omitempty"`
	// PixelsPerJoule = pixels / J, the protocol's efficiency_score.
	PixelsPerJoule *float64 `json:"pixels_per_joule,omitempty"`
	// FramesPerJoule = frames / J.
	FramesPerJoule *float64 `json:"frames_per_joule,omitempty"`
	// MegabitsPerSecondPerWatt = (bits / 10⁶ / wall seconds) / (J / wall seconds).
	MegabitsPerSecondPerWatt *float64 `json:"megabits_per_second_per_watt,omitempty"`
	// QualityWeightedPixelsPerJoule = pixels · (VMAF / 100) / J, the protocol's
	// qoe_score.
	QualityWeightedPixelsPerJoule *float64 `json:"quality_weighted_pixels_per_joule,omitempty"`
}

// Score computes the scores of a job.
func Score(a Account, w Work) Scores {
	if a.Total.Energy == nil {
		return Scores{}
	}
	joules := float64(*a.Total.Energy)
	if math.IsNaN(joules) || math.IsInf(joules, 0) || joules < 0 {
		return Scores{}
	}
	s := Scores{Joules: &joules}
	if a.Total.CoveragePercent < MinScoreCoverage {
		return s
	}
	frames, pixels := float64(w.Frames), float64(w.Pixels)
	s.JoulesPerFrame = ratio(joules, frames)
	s.JoulesPerMediaSecond = ratio(joules, w.MediaDuration.Seconds())
	s.MicrojoulesPerPixel = ratio(joules*1e6, pixels)
	s.PixelsPerJoule = ratio(pixels, joules)
	s.FramesPerJoule = ratio(frames, joules)
	wall := w.WallTime.Seconds()
	s.MegabitsPerSecondPerWatt = ratio(float64(w.OutputBits)/1e6/wall, joules/wall)
	if w.VMAF != nil && *w.VMAF >= 0 && *w.VMAF <= 100 { // 0 is known
		s.QualityWeightedPixelsPerJoule = quotient(pixels**w.VMAF/100, joules, pixels > 0)
	}
	return s
}

// ratio returns a/b; nil if either is unknown, that is 0.
func ratio(a, b float64) *float64 { return quotient(a, b, a > 0 && b > 0) }

// quotient returns a/b; nil if it is unknown or not finite.
func quotient(a, b float64, known bool) *float64 {
	q := a / b
	if !known || math.IsInf(q, 0) || math.IsNaN(q) {
		return nil
	}
	return &q
}
