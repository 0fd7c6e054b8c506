package energy

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func accountOf(joules Joules, coverage float64) Account {
	return Account{
		Start: t0, End: at(10),
		Breakdown: Breakdown{Total: Figure{Energy: &joules, Source: Measured, CoveragePercent: coverage}},
	}
}

func TestScores(t *testing.T) {
	f := func(x float64) *float64 { return &x }
	work := Work{Frames: 300, Pixels: 600e6, MediaDuration: 10 * time.Second, WallTime: 5 * time.Second, OutputBits: 20e6, VMAF: f(90)}
	all := Scores{
		Joules: f(200), JoulesPerFrame: f(200.0 / 300), JoulesPerMediaSecond: f(20), MicrojoulesPerPixel: f(1.0 / 3),
		PixelsPerJoule: f(3e6), FramesPerJoule: f(1.5), MegabitsPerSecondPerWatt: f(0.1), QualityWeightedPixelsPerJoule: f(2.7e6),
	}
	without := func(change func(*Scores)) Scores { s := all; change(&s); return s }
	tests := []struct {
		name    string
		account Account
		work    Work
		want    Scores
	}{
		{"everything known", accountOf(200, 100), work, all},
		{"energy unknown", UnknownAccount(t0, at(1), "no sensor"), work, Scores{}},
		{"nothing done", accountOf(200, 100), Work{}, Scores{Joules: f(200)}},
		{"half of the window read", accountOf(200, 50), work, Scores{Joules: f(200)}},
		{"no energy used", accountOf(0, 100), work, Scores{Joules: f(0)}},
		{"not a number", accountOf(Joules(math.NaN()), 100), work, Scores{}},
		{"no quality measured", accountOf(200, 100), func() Work { w := work; w.VMAF = nil; return w }(),
			without(func(s *Scores) { s.QualityWeightedPixelsPerJoule = nil })},
		{"quality of 0 is known", accountOf(200, 100), func() Work { w := work; w.VMAF = f(0); return w }(),
			without(func(s *Scores) { s.QualityWeightedPixelsPerJoule = f(0) })},
		{"impossible quality", accountOf(200, 100), func() Work { w := work; w.VMAF = f(math.NaN()); return w }(),
			without(func(s *Scores) { s.QualityWeightedPixelsPerJoule = nil })},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := Score(test.account, test.work)
			if diff := cmp.Diff(test.want, got, cmpopts.EquateApprox(1e-12, 0)); diff != "" {
				t.Error(diff)
			}
			if _, err := json.Marshal(got); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestScoresAsJSON(t *testing.T) {
	text, err := json.Marshal(Score(accountOf(200, 100), Work{Frames: 100}))
	want := `{"joules":200,"joules_per_frame":2,"frames_per_joule":0.5}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
}
