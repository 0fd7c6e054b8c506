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
	all := Scores{
		Joules: of(200.0), JoulesPerFrame: of(200.0 / 300), JoulesPerMediaSecond: of(20.0), MicrojoulesPerPixel: of(1.0 / 3),
		PixelsPerJoule: of(3e6), FramesPerJoule: of(1.5), MegabitsPerSecondPerWatt: of(0.1), QualityWeightedPixelsPerJoule: of(2.7e6),
	}
	work := func(change func(*Work)) Work {
		w := Work{Frames: 300, Pixels: 600e6, MediaDuration: 10 * time.Second, WallTime: 5 * time.Second, OutputBits: 20e6, VMAF: of(90.0)}
		change(&w)
		return w
	}
	but := func(change func(*Scores)) Scores { s := all; change(&s); return s }
	quality := func(score *float64) Scores { return but(func(s *Scores) { s.QualityWeightedPixelsPerJoule = score }) }
	same := func(*Work) {}
	tests := []struct {
		name    string
		account Account
		work    Work
		want    Scores
	}{
		{"all known", accountOf(200, 100), work(same), all},
		{"lowest coverage", accountOf(200, 90), work(same), all},
		{"energy unknown", UnknownAccount(t0, at(1), "no sensor"), work(same), Scores{}},
		{"nothing done", accountOf(200, 100), Work{}, Scores{Joules: of(200.0)}},
		{"nothing done well", accountOf(200, 100), Work{VMAF: of(90.0)}, Scores{Joules: of(200.0)}},
		{"half a joule", accountOf(0.5, 100), Work{Frames: 1}, Scores{Joules: of(0.5), JoulesPerFrame: of(0.5), FramesPerJoule: of(2.0)}},
		{"negative media duration", accountOf(200, 100), work(func(w *Work) { w.MediaDuration = -1 }), but(func(s *Scores) { s.JoulesPerMediaSecond = nil })},
		{"below the lowest coverage", accountOf(200, 89.9), work(same), Scores{Joules: of(200.0)}},
		{"half of the window read", accountOf(200, 50), work(same), Scores{Joules: of(200.0)}},
		{"no energy used", accountOf(0, 100), work(same), Scores{Joules: of(0.0)}},
		{"negative energy", accountOf(-1, 100), work(same), Scores{}},
		{"infinite energy", accountOf(Joules(math.Inf(1)), 100), work(same), Scores{}},
		{"not a number", accountOf(Joules(math.NaN()), 100), work(same), Scores{}},
		{"infinite scores", accountOf(5e-324, 100), Work{Pixels: 600e6, VMAF: of(90.0)}, Scores{Joules: of(5e-324), MicrojoulesPerPixel: of(0.0)}},
		{"no wall time", accountOf(200, 100), work(func(w *Work) { w.WallTime = 0 }), but(func(s *Scores) { s.MegabitsPerSecondPerWatt = nil })},
		{"quality not measured", accountOf(200, 100), work(func(w *Work) { w.VMAF = nil }), quality(nil)},
		{"quality is 0", accountOf(200, 100), work(func(w *Work) { w.VMAF = of(0.0) }), quality(of(0.0))},
		{"quality is 100", accountOf(200, 100), work(func(w *Work) { w.VMAF = of(100.0) }), quality(of(3e6))},
		{"quality above 100", accountOf(200, 100), work(func(w *Work) { w.VMAF = of(100.1) }), quality(nil)},
		{"negative quality", accountOf(200, 100), work(func(w *Work) { w.VMAF = of(-0.1) }), quality(nil)},
		{"quality not a number", accountOf(200, 100), work(func(w *Work) { w.VMAF = of(math.NaN()) }), quality(nil)},
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
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
}
