package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/job"
)

// integral is the area of a drawn path, in units of the drawing.
func integral(t rapid.TB, path string) float64 {
	t.Helper()
	var sum, x, y float64
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatalf("path %s: %v", path, err)
		}
		return v
	}
	spaced := strings.NewReplacer("M", " M ", "H", " H ", "V", " V ", "Z", " Z ").Replace(path)
	words := strings.Fields(spaced)
	for i := 0; i < len(words); i++ {
		switch words[i] {
		case "M":
			x, y = number(words[i+1]), number(words[i+2])
			i += 2
		case "H":
			next := number(words[i+1])
			sum += (next - x) * (down - y)
			x = next
			i++
		case "V":
			y = number(words[i+1])
			i++
		case "Z":
		default:
			t.Fatalf("path %s: %s", path, words[i])
		}
	}
	return sum
}

// topOf is where a panel's power axis ends, in W.
func topOf(t rapid.TB, d *panel) float64 {
	t.Helper()
	last := d.YTicks[len(d.YTicks)-1]
	v, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSuffix(last.Text, " W"), thin, ""), 64)
	if err != nil || last.At != "0.000%" {
		t.Fatalf("the axis ends in %+v: %v", last, err)
	}
	return v
}

// TestTheDrawnAreaIsTheEnergy: what is stacked in the drawings adds up to the counted
// energy of the curve, gaps and all.
func TestTheDrawnAreaIsTheEnergy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones := rapid.IntRange(1, 4).Draw(t, "zones")
		s := &job.Samples{Curve: energy.Curve{Start: began}}
		for i := range zones {
			s.Curve.Zones = append(s.Curve.Zones, zone(fmt.Sprint(i), fmt.Sprint("z", i), rapid.SampledFrom(domainOrder).Draw(t, "domain"), rapid.Bool().Draw(t, "counted") || i == 0, "rapl"))
		}
		var counted, divided float64
		from := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "points") {
			from += 100 * rapid.SampledFrom([]int64{0, 0, 0, 1, 5}).Draw(t, "gap")
			p := energy.CurvePoint{From: from, To: from + 100}
			from = p.To
			for i := range zones {
				if rapid.IntRange(0, 9).Draw(t, "unread") == 0 {
					p.Zones = append(p.Zones, nil)
					continue
				}
				e := energy.Microjoules(rapid.IntRange(0, 30e6).Draw(t, "energy"))
				p.Zones = append(p.Zones, &e)
				if s.Curve.Zones[i].Counted {
					counted += float64(e)
				}
			}
			if rapid.Bool().Draw(t, "divided") {
				p.Job, p.Idle, p.Rest = of(energy.Microjoules(rapid.IntRange(0, 9e6).Draw(t, "job"))), of(energy.Microjoules(4e6)), of(energy.Microjoules(1e6))
				if slices.ContainsFunc(p.Zones, func(e *energy.Microjoules) bool { return e != nil }) {
					divided += float64(*p.Job + *p.Idle + *p.Rest)
				}
			}
			s.Curve.Points = append(s.Curve.Points, p)
		}
		p := newPlot(s, nil)
		if p == nil {
			return
		}
		c := p.chart("")
		joules := func(d *panel, class string) float64 {
			var sum float64
			for i, a := range d.Areas {
				if a.Class == class || class == "" && i == 0 {
					sum += integral(t, a.Path)
				}
			}
			return sum / across / down * float64(p.span) * topOf(t, d) * 1e3
		}
		// Half a unit down over the whole, and a unit across at each point.
		grain := func(d *panel) float64 {
			return (0.5/down + float64(len(s.Curve.Points)+1)/across) * float64(p.span) * topOf(t, d) * 1e3
		}
		if got := joules(&c.Panels[0], ""); math.Abs(got-counted) > grain(&c.Panels[0]) {
			t.Errorf("by source %.0f µJ are drawn, the curve has %.0f", got, counted)
		}
		if len(c.Panels) == 2 {
			if got := joules(&c.Panels[1], "u-rest"); math.Abs(got-divided) > grain(&c.Panels[1]) {
				t.Errorf("by use %.0f µJ are drawn, the curve has %.0f", got, divided)
			}
		} else if divided > 0 {
			t.Errorf("%.0f µJ are divided and not drawn", divided)
		}
	})
}

func drawn(t testing.TB, rec job.Record) *chart {
	t.Helper()
	p := newPlot(rec.Samples, readResult(&rec).Energy)
	if p == nil {
		t.Fatal("nothing to draw")
	}
	return p.chart("")
}

func TestGapsAreHatchedAndNamed(t *testing.T) {
	c := drawn(t, server(t, 64))
	want := []string{"9.0 s to 11.0 s: NVIDIA L4 was not read", "18.0 s to 19.0 s: nothing was read"}
	if !slices.Equal(c.Gaps, want) {
		t.Errorf("gaps %q, want %q", c.Gaps, want)
	}
	for _, d := range c.Panels {
		if len(d.Gaps) != 2 || d.Gaps[0].X != "28.125%" || d.Gaps[0].Wide != "6.250%" {
			t.Errorf("%s: hatched is %+v", d.Title, d.Gaps)
		}
		for _, a := range d.Areas {
			if strings.Count(a.Path, "M") < 2 {
				t.Errorf("%s: %s is drawn across a gap: %s", d.Title, a.Class, a.Path)
			}
		}
	}
	c = drawn(t, failure(t))
	if want := []string{"3.6 s to 5.2 s: nothing was read"}; !slices.Equal(c.Gaps, want) {
		t.Errorf("a sensor that died: %q, want %q", c.Gaps, want)
	}
	if c.NoUse == "" || len(c.Panels) != 1 {
		t.Errorf("without a baseline: %q, %d drawings", c.NoUse, len(c.Panels))
	}
}

func TestZonesOutsideTheTotalAreLines(t *testing.T) {
	d := drawn(t, server(t, 64)).Panels[0]
	var stacked, lines []string
	for _, k := range d.Keys {
		if k.Line {
			lines = append(lines, k.Name)
		} else {
			stacked = append(stacked, k.Name)
		}
	}
	if want := []string{"package-0", "package-1", "dram-0", "dram-1", "NVIDIA L4"}; !slices.Equal(stacked, want) || len(d.Areas) != len(want) {
		t.Errorf("stacked are %q as %d areas, want %q", stacked, len(d.Areas), want)
	}
	if want := []string{"core", "psys"}; !slices.Equal(lines, want) || len(d.Lines) != len(want) {
		t.Errorf("lines are %q, want %q", lines, want)
	}
}

func TestPhasesAndTheEnergyWindowAreMarked(t *testing.T) {
	c := drawn(t, server(t, 64))
	var got []string
	for _, b := range c.Phases {
		got = append(got, b.Note)
	}
	if want := []string{"prepare: 2.000 s", "run: 24.000 s", "check: 0.400 s", "quality: 5.100 s", "journal: 0.100 s"}; !slices.Equal(got, want) {
		t.Errorf("phases %q, want %q", got, want)
	}
	if c.Window == nil || c.Window.X != "6.250%" || c.Window.Wide != "75.000%" {
		t.Errorf("window %+v", c.Window)
	}
	for _, d := range c.Panels {
		if n := len(d.Veils); n != 2 {
			t.Errorf("%s: %d veils beside the window", d.Title, n)
		}
		if want := []string{"6.250%", "81.250%", "82.500%", "98.438%"}; !slices.Equal(d.Borders, want) {
			t.Errorf("%s: phases meet at %q, want %q", d.Title, d.Borders, want)
		}
	}
}

func TestOddCurves(t *testing.T) {
	one := func(points ...energy.CurvePoint) *job.Samples {
		return &job.Samples{Curve: energy.Curve{Start: began, Zones: []energy.CurveZone{zone("a", "a", energy.DomainCPU, true, "rapl")}, Points: points}}
	}
	e := []*energy.Microjoules{of(energy.Microjoules(5e6))}
	for name, test := range map[string]struct {
		samples *job.Samples
		slots   int
	}{
		"none":              {nil, 0},
		"no points":         {one(), 0},
		"nothing read":      {one(energy.CurvePoint{From: 0, To: 100, Zones: []*energy.Microjoules{nil}}), 0},
		"no zones in it":    {one(energy.CurvePoint{From: 0, To: 100}), 0},
		"more than zones":   {one(energy.CurvePoint{From: 0, To: 100, Zones: append(e, e...)}), 1},
		"empty length":      {one(energy.CurvePoint{From: 100, To: 100, Zones: e}), 0},
		"before the start":  {one(energy.CurvePoint{From: -5, To: 100, Zones: e}), 0},
		"out of order":      {one(energy.CurvePoint{From: 100, To: 200, Zones: e}, energy.CurvePoint{From: 50, To: 150, Zones: e}), 1},
		"a negative figure": {one(energy.CurvePoint{From: 0, To: 100, Zones: []*energy.Microjoules{of(energy.Microjoules(-1))}}), 0},
		"for ever":          {one(energy.CurvePoint{From: 0, To: math.MaxInt64, Zones: e}), 1},
	} {
		t.Run(name, func(t *testing.T) {
			account := energy.UnknownAccount(began.AddDate(-300, 0, 0), began.AddDate(3000, 0, 0), "")
			p := newPlot(test.samples, &account)
			if p == nil {
				if test.slots > 0 {
					t.Error("nothing is drawn")
				}
				return
			}
			if len(p.slots) != test.slots {
				t.Errorf("%d points are drawn, want %d", len(p.slots), test.slots)
			}
			p.chart("")
		})
	}
}

func TestTimeTicks(t *testing.T) {
	for span, want := range map[time.Duration]string{
		3 * time.Millisecond:     "0 s 0.001 s 0.002 s 0.003 s",
		4600 * time.Millisecond:  "0 s 0.5 s 1 s 1.5 s 2 s 2.5 s 3 s 3.5 s 4 s 4.5 s",
		32 * time.Second:         "0 s 5 s 10 s 15 s 20 s 25 s 30 s",
		4 * time.Minute:          "0 s 30 s 60 s 90 s 120 s 150 s 180 s 210 s 240 s",
		20 * time.Minute:         "0 min 5 min 10 min 15 min 20 min",
		3 * time.Hour:            "0 h 0.5 h 1 h 1.5 h 2 h 2.5 h 3 h",
		30 * time.Hour:           "0 h 6 h 12 h 18 h 24 h 30 h",
		5 * 24 * time.Hour:       "0 d 1 d 2 d 3 d 4 d 5 d",
		9 * 24 * time.Hour:       "0 d 1 d 2 d 3 d 4 d 5 d 6 d 7 d 8 d 9 d",
		0:                        "0 s",
		time.Duration(1<<63 - 1): "",
	} {
		var got []string
		ticks := timeTicks(span)
		for _, mark := range ticks {
			got = append(got, mark.Text)
		}
		if text := strings.Join(got, " "); want != "" && text != want || len(ticks) > 10 {
			t.Errorf("%v: %s, want %s", span, text, want)
		}
	}
}

func TestPowerTicks(t *testing.T) {
	for _, test := range []struct {
		highest float64
		want    string
	}{
		{0, "0.0 W 0.5 W 1.0 W 1.5 W"},
		{0.03, "0.00 W 0.01 W 0.02 W 0.03 W 0.04 W"},
		{61.5, "0 W 20 W 40 W 60 W 80 W"},
		{313, "0 W 100 W 200 W 300 W 400 W"},
		{12_000, "0 W 5000 W 10\u202f000 W 15\u202f000 W"},
		{math.Inf(1), "0.0 W 0.5 W 1.0 W 1.5 W"},
	} {
		ticks, top := powerTicks(test.highest, 5)
		var got []string
		for _, mark := range ticks {
			got = append(got, mark.Text)
		}
		if text := strings.Join(got, " "); text != test.want || !math.IsInf(test.highest, 0) && top < test.highest {
			t.Errorf("%v W: %s up to %v, want %s", test.highest, text, top, test.want)
		}
	}
}

// TestTheMeanIsTheAccounts: of a job alone, the drawing's mean is the power that the
// job is charged, whatever was read beside it.
func TestTheMeanIsTheAccounts(t *testing.T) {
	rec := server(t, 64)
	mean := drawn(t, rec).Summary[0]
	got, err := strconv.ParseFloat(mean.Exact, 64)
	if want := float64(*readResult(&rec).Energy.MeanPower); err != nil || math.Abs(got-want) > want/100 {
		t.Errorf("mean %s (%v), the account has %v W", mean.Exact, err, want)
	}
}

// TestTextsStandWhereThereIsRoom: a text that is shown fits at the narrowest width it is
// shown at, in a wide font.
func TestTextsStandWhereThereIsRoom(t *testing.T) {
	for percent, want := range map[int64]string{6: "none", 12: "wide", 20: "wide", 25: "room", 100: "room"} {
		if got := roomFor("6.6 %", percent, 100); got != want {
			t.Errorf("in %d %% of the width: %s, want %s", percent, got, want)
		}
	}
}
