package energy

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPiecesAddUpToTheStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStep(1e9, 3e9, Microjoules(rapid.Int64Range(0, 1e12).Draw(t, "energy")))
		s.crossCheck = of(Microjoules(1000))
		var windows []*window
		for range rapid.IntRange(0, 4).Draw(t, "windows") {
			from := rapid.OneOf(rapid.Int64Range(0, 4e9), rapid.SampledFrom([]int64{1e9, 2e9, 3e9})).Draw(t, "from")
			windows = append(windows, newWindow("", t0, instant(from)))
		}
		end, sum, crossCheck := s.from, Microjoules(0), Microjoules(0)
		for _, piece := range s.pieces(windows) {
			if piece.from != end || piece.length() <= 0 || piece.energy < 0 || piece.whole != s {
				t.Fatalf("after %v: got %+v", end, piece)
			}
			near := float64(s.energy) * float64(piece.length()) / float64(s.length())
			if float64(piece.energy) < near-5 || float64(piece.energy) > near+5 {
				t.Fatalf("got %d µJ from %v to %v of %d", piece.energy, piece.from, piece.to, s.energy)
			}
			for _, w := range windows {
				if piece.from < w.from && w.from < piece.to {
					t.Fatalf("a window begins at %v in the piece from %v to %v", w.from, piece.from, piece.to)
				}
			}
			end, sum, crossCheck = piece.to, sum+piece.energy, crossCheck+piece.ofWhole(*piece.crossCheck)
		}
		if end != s.to || sum != s.energy || crossCheck > 1000 || crossCheck < 990 {
			t.Fatalf("pieces end at %v with %d µJ, cross-check %d; want %v, %d, 1000", end, sum, crossCheck, s.to, s.energy)
		}
	})
}

func TestPeakPowerIsOverTheUpdateInterval(t *testing.T) {
	ms := time.Millisecond
	type delta struct {
		length time.Duration
		joules float64 // -1: a gap
		peak   Watts
	}
	for _, test := range []struct {
		name   string
		update time.Duration
		deltas []delta
	}{
		{"fast sensor", ms, []delta{{100 * ms, 10, 100}, {100 * ms, 20, 200}, {100 * ms, 5, 50}}},
		{"short steps", ms, []delta{{2 * ms, 1, 100}, {2 * ms, 1, 200}, {2 * ms, 0, 200}, {6 * ms, 0, 100}}},
		{"slow sensor", 100 * ms, []delta{{60 * ms, 0, 0}, {60 * ms, 12, 100}, {60 * ms, 0, 100}, {60 * ms, 12, 100}}},
		{"a burst of many updates", 100 * ms, []delta{{2000 * ms, 400, 200}, {100 * ms, 10, 100}}},
		{"after a long step", 100 * ms, []delta{{60000 * ms, 0, 0}, {50 * ms, 10, 10}}},
		{"a gap", 100 * ms, []delta{{60 * ms, 12, 120}, {60 * ms, -1, 0}, {60 * ms, 0, 0}}},
	} {
		var recent recentSteps
		now := instant(0)
		for i, d := range test.deltas {
			s := newStep(now, now+d.length, Joules(max(0, d.joules)).Microjoules())
			s.gap = d.joules < 0
			recent.add(s, test.update)
			now = s.to
			if s.peak != d.peak {
				t.Errorf("%s: step %d: got %v W, want %v", test.name, i, s.peak, d.peak)
			}
		}
	}
}
