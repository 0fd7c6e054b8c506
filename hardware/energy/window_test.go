package energy

import (
	"maps"
	"testing"
	"time"
)

func TestTallySumsThePieces(t *testing.T) {
	s := newStep(10, 30, 600)
	s.errorBound, s.crossCheck, s.peak = 40, of(Microjoules(1200)), 7
	head, tail := s.cut(20)
	w := newWindow("job", t0, 10)
	w.to = 30
	ta := newTally()
	ta.add(w, head, "cpu time", attribution{job: 100})
	ta.add(w, tail, shareEqual, attribution{ambiguous: 130})
	other := newStep(30, 40, 30)
	other.peak = 3
	ta.add(w, other, shareEqual, attribution{rest: 20})
	if ta.share != (attribution{job: 100, ambiguous: 130, rest: 20}) || ta.machine != 630 || ta.covered != 30 || ta.errorBound != 40 {
		t.Errorf("got %+v", ta)
	}
	if want := map[string]time.Duration{"cpu time": 10, shareEqual: 20}; !maps.Equal(ta.methods, want) {
		t.Errorf("got methods %v, want %v", ta.methods, want)
	}
	if ta.equalError != 170+20 {
		t.Errorf("got %d µJ of doubt about equal shares, want 190", ta.equalError)
	}
	if ta.checked != 600 || ta.crossCheck != 1200 || ta.checkedFor != 20 {
		t.Errorf("got cross-check of %d µJ: %d in %v, want 600: 1200 in 20ns", ta.checked, ta.crossCheck, ta.checkedFor)
	}
	if want := (powerRange{3, 7, true}); ta.power != want {
		t.Errorf("got powers %+v, want %+v", ta.power, want)
	}
	near(t, "cross-check power", float64(ta.crossCheckPower.max), 1200e-6/20e-9, 1e-3)
}

func TestTallyCountsEachGapOnce(t *testing.T) {
	w, ta := newWindow("job", t0, 0), newTally()
	for range 2 {
		s := newStep(10, 30, 0)
		s.gap = true
		head, tail := s.cut(20)
		ta.add(w, head, shareAlone, attribution{})
		ta.add(w, tail, shareAlone, attribution{})
	}
	if ta.gaps != 2 || ta.covered != 0 {
		t.Errorf("got %d gaps and %v covered, want 2 and 0", ta.gaps, ta.covered)
	}
}

func TestContradictionIsAboveATenth(t *testing.T) {
	const long = 2 * time.Second
	for name, test := range map[string]struct {
		checked, crossCheck Microjoules
		length              time.Duration
		power               powerRange
		difference          float64
		contradict          bool
	}{
		"equal":               {1000, 1000, long, powerRange{}, 0, false},
		"a tenth less":        {1000, 900, long, powerRange{}, 0.1, false},
		"more than that":      {1000, 899, long, powerRange{}, 0.101, true},
		"a tenth of the more": {1000, 1111, long, powerRange{}, 0.111, false},
		"more than a tenth":   {1000, 1112, long, powerRange{}, 0.112, true},
		"too short":           {1000, 2000, long - 1, powerRange{}, 0, false},
		"no energy":           {0, 2000, long, powerRange{}, 0, false},
		"a microjoule":        {1, 3, long, powerRange{}, 2, true},
		"power changes":       {1000, 2000, long, powerRange{min: 1e-6, max: 801e-6}, 1, false},
		"power changes less":  {1000, 2000, long, powerRange{min: 1e-6, max: 800e-6}, 1, true},
	} {
		ta := tally{checked: test.checked, crossCheck: test.crossCheck, checkedFor: test.length, crossCheckPower: test.power}
		difference, contradict := ta.contradiction()
		near(t, name, difference, test.difference, 1e-9)
		if contradict != test.contradict {
			t.Errorf("%s: got contradiction %v, want %v", name, contradict, test.contradict)
		}
	}
}

func TestPowerRange(t *testing.T) {
	var r powerRange
	for _, p := range []Watts{5, 7, 3, 6, 4} {
		r.add(p)
	}
	if want := (powerRange{3, 7, true}); r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
	if got := r.averagingError(2 * time.Second); got != 8 {
		t.Errorf("got averaging error %v J, want 8", got)
	}
}

func TestClosestReadingToTheStartCounts(t *testing.T) {
	w := newWindow("job", t0, 100)
	for _, r := range []struct{ at, want instant }{{70, 30}, {80, 20}, {110, 10}, {130, 10}} {
		if w.seen("z", r.at); w.tallies["z"].startDistance != r.want {
			t.Errorf("after a reading at %d: got %d, want %d", r.at, w.tallies["z"].startDistance, r.want)
		}
	}
}
