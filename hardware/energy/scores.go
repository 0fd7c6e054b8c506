package energy

import (
	"math"
	"time"
)

// Work is what a job achieved. What is 0 or nil is not known.
type Work struct {
	Frames        int64         // encoded, over all outputs
	Pixels        int64         // encoded, over all outputs: Σ frames × width × height
	MediaDuration time.Duration // length of the media that came out
	WallTime      time.Duration // length of the encode
	OutputBits    int64         // size of what came out
	VMAF          *float64      // 0 to 100
}

// MinScoreCoverage is the coverage of the window, in percent, below which energy
// is not set in relation to work: most of the work would have cost nothing.
const MinScoreCoverage = 90

// Scores set a job's energy J (Account.Total) in relation to its work. A score is
// nil where a figure in its formula is unknown or 0, or where less than
// MinScoreCoverage of the window was read; none is ever infinite or NaN.
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

// Score computes what can be known of a job's efficiency.
func Score(a Account, w Work) Scores {
	if a.Total.Source == Unavailable || a.Total.Energy == nil {
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
	if wall := w.WallTime.Seconds(); wall > 0 {
		s.MegabitsPerSecondPerWatt = ratio(float64(w.OutputBits)/1e6/wall, joules/wall)
	}
	if w.VMAF != nil && *w.VMAF >= 0 && *w.VMAF <= 100 {
		s.QualityWeightedPixelsPerJoule = quotient(pixels**w.VMAF/100, joules, w.Pixels > 0)
	}
	return s
}

// ratio of two quantities of which 0 means unknown.
func ratio(above, below float64) *float64 { return quotient(above, below, above > 0) }

// quotient is nil where it would not be a finite number.
func quotient(above, below float64, known bool) *float64 {
	q := above / below
	if !known || !(below > 0) || math.IsInf(q, 0) || math.IsNaN(q) {
		return nil
	}
	return &q
}
